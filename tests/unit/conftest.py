"""Settings of all unit tests."""

from hypothesis import settings

# A deadline is a timed assertion: on a busy machine, or while coverage is measured, a test may pause for a while.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
