"""Tables of large clusters and large drains."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Found = Mapping[str, Any]
Sizes = Mapping[str, Found]
Cell = Callable[[str, Found], str]

_MEMORY_GOALS = {"1000:10000": 90, "5000:100000": 150}
_CPU_GOALS = {"1000:10000": 0.01, "5000:100000": 0.04}
_CONNECTIONS, _SHARE_OF_CACHE = 64, 1 / 20


def title(size: str) -> str:
    """Return a size as text."""
    nodes, pods, *rest = size.split(":")
    return f"{int(nodes):,} nodes, {int(pods):,} pods" + (", no budgets" if rest == ["0"] else "")


def large_clusters(sizes: Sizes) -> list[str]:
    """Return the section about large clusters."""
    if not sizes:
        return []
    sizes = dict(sorted(sizes.items(), key=lambda item: [int(part) for part in item[0].split(":")]))
    shared = ", ".join(f"{found['load before']:.0f}" for found in sizes.values())
    lines = [
        "## Large clusters",
        "",
        "etcd has the nodes and the pods, and a generator renews the Leases every 10 s and writes each node every 5 min, as",
        "kubelets do. Only drained nodes have a simulated kubelet. The cache is one of controller-runtime for pods and nodes,",
        "with its defaults, in the same run. Other work ran on the machine: its load before each run was",
        f"{shared}. That makes times and shares of a core larger than they are on a quiet machine.",
        "",
        f"| what | goal | {' | '.join(map(title, sizes))} |",
        "|---" * (len(sizes) + 2) + "|",
    ]
    for what, goal, cell in _rows(sizes):
        lines.append(f"| {what} | {goal} | {' | '.join(cell(size, found) for size, found in sizes.items())} |")
    if missing := [title(size) for size in _MEMORY_GOALS if size not in sizes]:
        lines += ["", f"Not measured yet: {'; '.join(missing)}."]
    if growth := _growth(sizes):
        lines += ["", "Growth, by least squares:", "", *growth]
    return [*lines, "", "![growth](scale.svg)", ""]


def _memory(size: str, found: Found) -> str:
    return _against(found["idle"]["memory, MB"], _MEMORY_GOALS.get(size), "{:.0f} MB")


def _cpu(size: str, found: Found) -> str:
    return _against(found["idle"]["share of a core"], _CPU_GOALS.get(size), "{:.1%}")


def _cache(_: str, found: Found) -> str:
    return f"{found['controller-runtime']['memory, MB']:.0f} MB, {found['controller-runtime']['share of a core']:.1%}"


def _share(size: str, found: Found) -> str:
    goal = _SHARE_OF_CACHE if size == "5000:100000" else None
    return _against(found["idle"]["memory, MB"] / found["controller-runtime"]["memory, MB"], goal, "{:.2f}")


def _writes(_: str, found: Found) -> str:
    idle = found["idle"]
    return f"{idle['writes but Leases']} of {idle['requests']} requests in {idle['seconds']:.0f} s"


def _start(_: str, found: Found) -> str:
    begun = found["start"]
    return f"{begun['seconds to lead']:.1f} s, {begun['cpu, s']:.1f} s of a core, {begun['highest memory, MB']:.0f} MB"


def _failover(_: str, found: Found) -> str:
    taken = found["failover"]
    return f"{taken['seconds to lead']:.1f} s, {taken['requests']} requests, {taken['highest memory, MB']:.0f} MB"


def _beside(_: str, found: Found) -> str:
    drain = found.get("drain of 10")
    if not drain:
        return "-"
    return f"{drain['seconds']:.0f} s for {drain['pods']} pods, the bare load {drain['bare load, s']:.0f} s"


def _most(_: str, found: Found) -> str:
    spans = [found["start"], found["idle"], found["failover"], *found["drains"].values()]
    return _against(max(span["connections"] for span in spans), _CONNECTIONS, "{}")


def _drains(count: str) -> Cell:
    def cell(_: str, found: Found) -> str:
        if count not in found["drains"]:
            return "-"
        span = found["drains"][count]
        pods = span["by request"].get("create pods/eviction", 0)
        return (
            f"{span['highest memory, MB']:.0f} MB, {span['share of a core']:.0%} of a core, {span['requests']} requests, "
            f"{span['writes but Leases']} writes, {pods} evictions, {span['drained']} drained in {span['seconds']:.0f} s"
        )

    return cell


def _rows(sizes: Sizes) -> list[tuple[str, str, Cell]]:
    counts = sorted({count for found in sizes.values() for count in found["drains"]}, key=int)
    return [
        ("idle: resident memory", "< 90 MB with 10,000 pods, < 150 MB with 100,000", _memory),
        ("the cache: resident memory, share of a core", "", _cache),
        ("memory of the operator to that of the cache", "<= 0.05 with 100,000 pods", _share),
        ("idle: share of a core", "<= 1% and <= 4%", _cpu),
        ("idle: writes but those of Leases", "0", _writes),
        ("start: seconds until it leads, processor, highest memory", "", _start),
        ("failover after SIGKILL: seconds until the standby leads", "", _failover),
        ("10 nodes drain: time", "not by the size of the cluster", _beside),
        *((f"{count} nodes drain at once", "", _drains(count)) for count in counts),
        ("most connections", f"<= {_CONNECTIONS}", _most),
    ]


def _against(value: float, goal: float | None, form: str) -> str:
    text = form.format(value)
    return text if goal is None else f"{text} ({'met' if value <= goal else 'missed'})"


def _growth(sizes: Sizes) -> list[str]:
    """Return the slopes of the idle memory over nodes and pods, and of the highest memory over drains."""
    lines: list[str] = []
    budgets = [found for size, found in sizes.items() if not size.endswith(":0:0") and size.count(":") == 1]
    if len({(found["nodes"], found["pods"]) for found in budgets}) >= 3:
        for name, values in (
            ("the operator", [found["idle"]["memory, MB"] for found in budgets]),
            ("the cache", [found["controller-runtime"]["memory, MB"] for found in budgets]),
        ):
            base, node, pod = slopes([(found["nodes"], found["pods"]) for found in budgets], values)
            lines.append(
                f"- Idle memory of {name}: {base:.0f} MB, {node * 1000:.1f} MB for each 1,000 nodes, and "
                f"{pod * 10_000:.1f} MB for each 10,000 pods."
            )
    for size, found in sizes.items():
        points = [(int(count), span["highest memory, MB"]) for count, span in found["drains"].items()]
        if len(points) > 1:
            _, each = slopes([(count,) for count, _ in points], [memory for _, memory in points])
            lines.append(f"- Highest memory with {title(size)}: {each * 100:.1f} MB for each 100 drains at once.")
    return lines


def slopes(points: list[tuple[int, ...]], values: list[float]) -> list[float]:
    """Return the constant and the slope of each coordinate that fit the values best."""
    matrix = np.array([[1, *point] for point in points], dtype=float)
    return [float(value) for value in np.linalg.lstsq(matrix, np.array(values), rcond=None)[0]]


def large_drains(results: Mapping[str, Any]) -> list[str]:
    """Return the table of large drains."""
    found = [
        (what, results[key])
        for key, what in (
            ("large drain", "one node of 250 pods, 250 budgets in 100 namespaces"),
            ("large drains", "100 nodes of 30 pods at once"),
        )
        if key in results
    ]
    if not found:
        return []
    lines = [
        "## Large drains",
        "",
        "Another client sends a GET or a PATCH every 0.1 s. Its times are of a quiet cluster, during the bare load, and",
        "during the drain.",
        "",
        "| what | result | goal |",
        "|---|---|---|",
    ]
    for what, drain in found:
        limit = min(drain["bare load, s"].values())
        others = {key: times["p99"] for key, times in drain["other clients, ms"].items()}
        asked, ratio = drain["requests a pod"], others["rescheduler"] / others["bare load"]
        pair = f"{others['bare load']:.0f} ms, {others['rescheduler']:.0f} ms"
        lines += [
            f"| {what}: bare load, the operator | {limit:.1f} s, {drain['seconds']:.1f} s |  |",
            f"| {what}: share of the limit | {limit / drain['seconds']:.2f} | >= 0.90 |",
            f"| {what}: requests on pods, a pod | {asked['on pods']:.2f} | <= 1.15 |",
            f"| {what}: requests in all but Leases, a pod | {asked['in all but Leases']:.2f} | <= 1.25 |",
            f"| {what}: other clients on a quiet cluster, 99th percentile | {others['quiet']:.0f} ms |  |",
            f"| {what}: the same during the bare load, the operator | {pair} |  |",
            f"| {what}: the same, the operator to the bare load | {ratio:.2f} | <= 1.5 |",
        ]
    return [*lines, ""]
