"""Nodes evened out by the real engine in simulated time while machines fail and operators are killed: nothing breaks."""

from concurrent.futures import ThreadPoolExecutor

from simulation.runs import Told, tell


def told(seed: int) -> Told:
    """In a thread of its own, whose event loop is nobody else's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(tell, seed, evens=True).result()


def test_stories_of_clusters_that_are_evened_out_meanwhile_break_nothing() -> None:
    stories = [told(seed) for seed in (21, 24, 33, 39, 47, 52)]
    assert not [str(story) for story in stories if story.broken]
    assert any("rebalance.move_ended" in line for story in stories for line in story.lines)
