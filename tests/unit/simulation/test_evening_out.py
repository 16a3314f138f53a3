"""Rebalancing in simulated time breaks no invariant while machines fail and operators are killed."""

from concurrent.futures import ThreadPoolExecutor

from simulation.runs import Told, tell


def told(seed: int) -> Told:
    """Run a seed in its own thread, with its own event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(tell, seed, evens=True).result()


def test_stories_of_clusters_that_are_evened_out_meanwhile_break_nothing() -> None:
    stories = [told(seed) for seed in (21, 24, 33, 39, 47, 52)]
    assert not [str(story) for story in stories if story.broken]
    assert any("rebalance.move_ended" in line for story in stories for line in story.lines)
