"""Rebalancing in simulated time breaks no invariant while machines fail and operators are killed."""

from concurrent.futures import ThreadPoolExecutor

from simulation.runs import RunResult, run_seed


def run(seed: int) -> RunResult:
    """Run a seed in its own thread, with its own event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run_seed, seed, rebalances=True).result()


def test_rebalancing_breaks_no_invariant_during_faults() -> None:
    results = [run(seed) for seed in (21, 24, 33, 39, 47, 52)]
    assert not [str(result) for result in results if result.broken]
    assert any("rebalance.move_ended" in line for result in results for line in result.lines)
