"""Write the results of `make test-real` to bench/real.md and bench/real.svg."""

import json
from typing import Any

from bench import plots
from bench.common import HERE


def markdown(results: list[dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    rows = [
        f"| {result['name']} | {result['way']} | {result['failed']} of {result['requests']:,} "
        f"| {_span(result['failed at'])} |"
        for result in results
    ]
    return "\n".join(
        [
            "# Requests that failed while a node was drained: `make test-real`",
            "",
            "Real kubelets with containerd; 50 requests a second, a new connection each, none repeated, from a client that",
            "follows the Service's EndpointSlices. The app takes 2 s to start and waits 3 s in its preStop hook.",
            "",
            "| app | drained by | failed | from, to (s) |",
            "|---|---|---|---|",
            *rows,
            "",
            "![failed requests over time](real.svg)",
            "",
        ]
    )


def _span(times: list[float]) -> str:
    return f"{times[0]:.1f} to {times[-1]:.1f}" if times else ""


def main() -> None:
    """Write the table and the plot."""
    results = json.loads((HERE / "real.json").read_text())
    (HERE / "real.md").write_text(markdown(results))
    plots.failures(HERE / "real.svg", [result for result in results if result["name"] == "one replica"])


if __name__ == "__main__":
    main()
