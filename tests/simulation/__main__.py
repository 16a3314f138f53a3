"""`python -m simulation 1-200`: run the scenarios of these seeds.

Exits 1 if a run breaks an invariant, and prints the shortened run.
"""

import os
import sys
import time

from simulation.runs import run_seed, shortened


def seeds(words: list[str]) -> list[int]:
    """Parse numbers and ranges."""
    found: list[int] = []
    for word in words:
        first, _, last = word.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def main(words: list[str]) -> int:
    """Run the seeds one after another."""
    # Sets of names are iterated in the order of their hashes: without this a seed makes a different run each time.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(sys.executable, [sys.executable, "-m", "simulation", *words], {**os.environ, "PYTHONHASHSEED": "0"})
    began, broken, writes, simulated = time.monotonic(), 0, 0, 0.0
    brief = "--brief" in words
    for seed in (wanted := seeds([word for word in words if word != "--brief"])):
        result = run_seed(seed)
        writes, simulated = writes + result.writes, simulated + result.simulated
        if result.broken:
            broken += 1
            print(f"seed {seed}: {result.broken[0]}" if brief else shortened(result), flush=True)
    took = time.monotonic() - began
    print(f"{len(wanted)} runs, {simulated / 3600:.1f} h, {writes} writes, {took:.1f} s: {broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
