"""Pure judgement: values in, values out.

Nothing here does I/O, reads a clock or draws a random number: `now` is an argument. It imports the standard
library and `rescheduler.api`, and import-linter holds it to that.
"""
