"""Write the results of `make test-real` to bench/real.md and bench/real.svg."""

import json
from typing import Any

from bench import plots
from bench.common import HERE


def markdown(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the tables in Markdown."""
    requests = [
        f"| {result['name']} | {result['way']} | {result['client']} | {result['failed']} of {result['requests']:,} "
        f"| {_span(result['failed at'])} | {result['drains that ended']} of 3 |"
        for result in results["requests"]
    ]
    usage = [
        f"| {result['state']} | {result['pod']} | {result['memory MB']:.1f} | {result['CPU in % of a core']:.2f} "
        f"| {result['seconds']:.0f} |"
        for result in results["usage"]
    ]
    return "\n".join(
        [
            "# Real kubelets: `make test-real`",
            "",
            "Three nodes with kubelet, containerd and kube-proxy, CoreDNS, and two replicas of Rescheduler from the chart",
            "with its defaults.",
            "",
            "## Requests that fail while all nodes are drained, one after another",
            "",
            "Two clients send 50 requests a second each, a new connection each, none repeated. One follows the Service's",
            "EndpointSlices, the other one uses its cluster IP through kube-proxy. The app takes 2 s to start and waits 3 s",
            "in its preStop hook. `kubectl drain` has `--delete-emptydir-data` and `--timeout=30s`.",
            "",
            "| app | drained by | client | failed | from, to (s) | drains that ended |",
            "|---|---|---|---|---|---|",
            *requests,
            "",
            "![failed requests over time](real.svg)",
            "",
            "## Memory and CPU of the operator's container",
            "",
            "From the container's cgroup, with one Deployment of 12 pods. The memory is the working set, as Kubernetes",
            "counts it: without file pages that nobody used lately.",
            "",
            "| state | pod | memory (MB) | CPU (% of a core) | measured for (s) |",
            "|---|---|---|---|---|",
            *usage,
            "",
        ]
    )


def _span(times: list[float]) -> str:
    return f"{times[0]:.1f} to {times[-1]:.1f}" if times else ""


def main() -> None:
    """Write the table and the plot."""
    results = json.loads((HERE / "real.json").read_text())
    (HERE / "real.md").write_text(markdown(results))
    shown = [r for r in results["requests"] if r["name"] == "one replica" and r["client"] == "endpoints"]
    plots.failures(HERE / "real.svg", shown)


if __name__ == "__main__":
    main()
