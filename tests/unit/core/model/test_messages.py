"""Lists in sentences for users name the first items only."""

from rescheduler.core.model import messages


def test_a_listing_names_the_first_items_and_counts_the_others() -> None:
    assert messages.listing([f"pod a/{n}" for n in range(12)], limit=2) == "pod a/0, pod a/1 and 10 more"
    assert messages.listing(["pod a/0"]) == "pod a/0"
