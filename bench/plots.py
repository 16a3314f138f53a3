"""Plots of the results, for bench/ and the README."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 7.5, 4.0  # inches


def _save(path: Path, title: str, axes: Axes, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    plt.savefig(path, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close()


def departures(path: Path, title: str, curves: dict[str, list[float]]) -> None:
    """Plot the remaining pods over time, a line for each way."""
    _, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT))
    for name, times in curves.items():
        if not name.startswith("bare"):
            axes.step([0.0, *times], range(len(times), -1, -1), where="post", label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    _save(path, title, axes, "seconds", "pods left")


def latencies(path: Path, results: dict[str, Any]) -> None:
    """Plot the share of slots that are taken within a time."""
    _, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT))
    for name, result in results.items():
        found = result["samples"]
        axes.step(found, [(index + 1) / len(found) for index in range(len(found))], where="post", label=name)
    axes.set_xscale("log")
    _save(path, "A budget has room again: when is the next pod evicted?", axes, "ms", "share of slots")


def serving(path: Path, results: dict[str, Any]) -> None:
    """Plot the Ready pods over time, with and without replacement first."""
    _, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT))
    for mode, label in (("Preferred", "replacement first"), ("Never", "plain eviction")):
        times, counts = zip(*results[mode]["curve"], strict=True)
        axes.step(times, counts, where="post", label=label)
    axes.set_ylim(bottom=80, top=102)
    _save(path, "Ready pods of 100 while their node is drained", axes, "seconds", "Ready pods")


def spreads(path: Path, results: dict[str, Any]) -> None:
    """Plot the deviation of nodes after each eviction, a line for each pool and side."""
    _, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT))
    for side, colour in (("rescheduler", "tab:blue"), ("descheduler", "tab:orange")):
        for number, pool in enumerate(results.values()):
            curve = pool[side]["curve"]
            axes.plot(range(len(curve)), curve, color=colour, marker=".", label=None if number else side)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    _save(
        path, "Five uneven pools, until nothing moves", axes, "evictions", "standard deviation of the requested share"
    )


def growth(path: Path, sizes: dict[str, Any]) -> None:
    """Plot the memory over the pods of the cluster, next to a cache of controller-runtime, and over drains."""
    _, (over_pods, over_drains) = plt.subplots(1, 2, figsize=(2 * _WIDTH, _HEIGHT))
    for nodes in sorted({found["nodes"] for found in sizes.values()}):
        group = sorted((f for f in sizes.values() if f["nodes"] == nodes), key=lambda found: found["pods"])
        pods = [found["pods"] for found in group]
        over_pods.plot(pods, [f["idle"]["memory, MB"] for f in group], marker="o", label=f"operator, {nodes:,} nodes")
        cache = [f["controller-runtime"]["memory, MB"] for f in group]
        over_pods.plot(pods, cache, marker="s", linestyle=":", label=f"cache, {nodes:,} nodes")
    for found in sizes.values():
        spans = found["drains"].items()
        if spans:
            counts, memory = [int(count) for count, _ in spans], [span["highest memory, MB"] for _, span in spans]
            over_drains.plot(counts, memory, marker="o", label=f"{found['nodes']:,} nodes, {found['pods']:,} pods")
    over_pods.set(title="Idle", xlabel="pods", ylabel="resident MB")
    over_pods.legend(frameon=False)
    for axes in (over_pods, over_drains):
        axes.set_ylim(bottom=0)
    _save(path, "Highest memory of the operator", over_drains, "nodes that drain at once", "resident MB")


def failures(path: Path, results: list[dict[str, Any]]) -> None:
    """Plot the failed requests over time, a line for each way."""
    _, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT))
    for result in results:
        times = [0.0, *result["failed at"], result["requests"] / 50]
        counts = [*range(len(result["failed at"]) + 1), len(result["failed at"])]
        axes.step(times, counts, where="post", label=f"{result['way']}: {result['failed']} of {result['requests']:,}")
    axes.set_xlim(left=0)
    _save(path, "One replica on real kubelets, all nodes drained in turn", axes, "seconds", "failed requests so far")
