"""Rebalancing in simulated time breaks no invariant while machines fail and operators are killed."""

from concurrent.futures import ThreadPoolExecutor

from simulation.runs import RunResult, run_seed


def result(seed: int) -> RunResult:
    """Run a seed in its own thread, with its own event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run_seed, seed, rebalances=True).result()


def test_stories_of_clusters_that_are_evened_out_meanwhile_break_nothing() -> None:
    stories = [result(seed) for seed in (21, 24, 33, 39, 47, 52)]
    assert not [str(story) for story in stories if story.broken]
    assert any("rebalance.move_ended" in line for story in stories for line in story.lines)
