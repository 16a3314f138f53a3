"""`python -m simulation 1-200`: run the scenarios of these seeds; with `--sequences`, the short sequences.

`--jobs 2` runs them in two processes. Exits 1 if a run breaks an invariant, and prints the shortened run, or only its
first violation with `--brief`.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from simulation.runs import RunResult, run_seed, shortened
from simulation.sequences import run_sequence

_AT_ONCE = 20
"""Seeds that a process takes at once."""


def seeds(words: list[str]) -> list[int]:
    """Parse numbers and ranges."""
    found: list[int] = []
    for word in words:
        first, _, last = word.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def run_all(options: argparse.Namespace, wanted: list[int]) -> Iterator[RunResult]:
    """Yield the results in the order of the seeds."""
    run = run_sequence if options.sequences else run_seed
    if options.jobs == 1:
        yield from map(run, wanted)
        return
    with ProcessPoolExecutor(options.jobs) as pool:
        yield from pool.map(run, wanted, chunksize=min(_AT_ONCE, 1 + len(wanted) // options.jobs))


def main(words: list[str]) -> int:
    """Run the seeds."""
    # Sets of names are iterated in the order of their hashes: without this a seed makes a different run each time.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "simulation", *words], {**os.environ, "PYTHONHASHSEED": "0"})
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("seeds", nargs="+")
    parser.add_argument("--sequences", action="store_true")
    parser.add_argument("--brief", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(words)
    began, broken, writes, simulated = time.monotonic(), 0, 0, 0.0
    wanted = seeds(options.seeds)
    shorten = partial(shortened, run=run_sequence if options.sequences else run_seed)
    for result in run_all(options, wanted):
        writes, simulated = writes + result.writes, simulated + result.simulated
        if result.broken:
            broken += 1
            print(f"seed {result.seed}: {result.broken[0]}" if options.brief else shorten(result), flush=True)
    took = time.monotonic() - began
    kind = "sequences" if options.sequences else "runs"
    print(f"{len(wanted)} {kind}, {simulated / 3600:.1f} h, {writes} writes, {took:.1f} s: {broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
