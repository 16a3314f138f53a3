"""Tables of the results for people."""

from collections.abc import Iterable, Sequence
from typing import Any

from bench import scale_tables
from bench.soak import sequences, summed

Row = tuple[str, str, str]


def _range(values: dict[str, float], digits: int = 1) -> str:
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f} to {values['max']:.{digits}f})"


def _seconds(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values) + " s"


def drain(title: str, result: dict[str, Any], share: str, ratio: str) -> list[Row]:
    """Return rows of a drain compared with its limit, `kubectl drain` and other tools' settings."""
    rows = [
        (f"{title}: bare load, {result['best pace']}", _seconds(result["seconds"]["limit"]), ""),
        (f"{title}: the operator", _seconds(result["seconds"]["rescheduler"]), ""),
        (f"{title}: `kubectl drain`", _seconds(result["seconds"]["kubectl drain"]), ""),
        (f"{title}: share of the limit", _range(result["share of the limit"], 2), share),
        (f"{title}: times as fast as `kubectl drain`", _range(result["times as fast as kubectl"]), ratio),
    ]
    beside = ("with the default rate of 20/s, s", "Karpenter's settings, s", "Cluster API's settings, s")
    rows += [(f"{title}: {key.removesuffix(', s')}", f"{result[key]:.1f} s", "") for key in beside]
    if "requests a pod" in result:
        rows.append((f"{title}: requests on pods, a pod", _range(result["requests a pod"]["on pods"], 2), "<= 1.15"))
        every = result["requests a pod"]["in all but Leases"]
        rows.append((f"{title}: requests in all but Leases, a pod", _range(every, 2), "<= 1.3"))
    return rows


_GOALS = {"default policy": "< 125 s", "leaseTimeout: 20s": "< 25 s"}


def failures(results: dict[str, Any]) -> list[Row]:
    """Return rows of failed nodes."""
    found: list[Row] = []
    for way, seconds in results.get("replaced after a death, s", {}).items():
        what = f"a node of 30 pods stops reporting: all replacements Ready, {way}"
        found.append((what, f"{_range(seconds)} s", _GOALS.get(way, "")))
    if many := results.get("failing together"):
        one, ten = many["one node of 10 pods, s"], many["ten nodes of 10 pods, s"]
        found.append(("one node of 10 pods fails", f"{one:.1f} s", ""))
        found.append(("ten nodes of 10 pods fail together (brake off)", f"{ten:.1f} s", "<= one + 15 s"))
    for limit, alarms in results.get("false alarms", {}).items():
        said = f"{alarms['alarms']} of {alarms['renewals']} renewals ({alarms['longer than it']} were later than that)"
        found.append((f"kubelets whose Leases are 5 to 15 s late: false alarms, {limit}", said, ""))
    if watched := results.get("5,000 leases"):
        said = f"{watched['share of a core']:.1%} of a core ({watched['share of a core, idle']:.1%} while none is)"
        what = f"5,000 Leases watched, {watched['renewals a second']:.0f} renewals a second"
        found.append((what, said, "< 5%"))
    if moved := results.get("condition to first request, ms"):
        found.append(("1,000 nodes, a condition's time is up: first request, median", f"{moved['median']:.0f} ms", ""))
        found.append(("the same, 99th percentile", f"{moved['p99']:.0f} ms", "< 1000 ms"))
    return found


def rebalance(pools: dict[str, Any]) -> list[Row]:
    """Return rows of rebalancing, compared with the descheduler: deviation, evictions, and dips in Ready pods."""
    found: list[Row] = []
    for name, pool in pools.items():
        before, same = f"standard deviation of the requested share {pool['before']:.3f}", pool["to the same deviation"]
        for side in ("rescheduler", "descheduler"):
            after, back = pool[side]["curve"][-1], pool[side]["back"]
            evictions, dips = pool[side]["evictions"], pool[side]["dips"]
            what = f"{name}, {before}, evened out by {side}"
            result = (
                f"{after:.3f} after {evictions} evictions with {dips} dips, {back} back to where one had left; "
                f"{same[side]} to {same['deviation']:.3f}"
            )
            found.append((what, result, "0 dips, 0 back" if side == "rescheduler" else ""))
    if pools:
        ours, theirs = (
            sum(pool["to the same deviation"][side] for pool in pools.values())
            for side in ("rescheduler", "descheduler")
        )
        what = "evictions to the same deviation, all pools, of those of the descheduler"
        found.append((what, f"{ours} of {theirs}", "half, never more"))
    return found


def admission(results: dict[str, Any]) -> list[Row]:
    """Return rows of creations with the policies of pools and without."""
    found: list[Row] = []
    for what, sides in results.get("admission, ms", {}).items():
        for having in ("without", "with"):
            times = sides[having]
            said = f"{times['median']:.1f} ms, 99th percentile {_range(times['p99 of rounds'])} ms"
            goal = "< 60 ms" if what == "namespace, 200 pools" and having == "with" else ""
            found.append((f"creation of a {what}, {having} the policies: median", said, goal))
    return found


def plans(results: dict[str, Any]) -> list[Row]:
    """Return rows of plans compared with the scheduler, and of the time for a large plan."""
    found: list[Row] = []
    if told := results.get("plans"):
        both = {key: told["roomy"][key] + told["tight"][key] for key in told["roomy"]}
        what = f"plans for {both['pods']} pods on {told['clusters']} random clusters"

        def share(key: str, of: str) -> str:
            return f"{both[key]} of {both[of]} ({100 * both[key] / both[of]:.1f}%)"

        found.append((f"{what}: Fits that the scheduler did not place", f"{both['wrong_fits']} of {both['fits']}", "0"))
        found.append((f"{what}: DoesNotFit that it did", share("wrong_does_not_fit", "does_not_fit"), "<= 1%"))
        found.append((f"{what}: Unknown", share("unknown", "pods"), "<= 5%"))
    for name, each in results.get("large plans", {}).items():
        took = each["seconds"]
        said = f"{took['median']:.2f} ({took['min']:.2f} to {took['max']:.2f}) s"
        found.append((f"a plan for 250 pods on 5,000 nodes, {name}", said, "< 1 s"))
    return found


def soaks(results: dict[str, Any]) -> list[Row]:
    """Return rows of random failures, checked against the invariants at every write."""
    found: list[Row] = []
    if told := results.get("soak in simulated time"):
        what = f"{told['stories']:.0f} random runs of the simulation, {told['hours']:.0f} h in {told['seconds']:.0f} s"
        found.append((f"{what}, {told['writes']:.0f} writes: invariants broken", f"{told['broken']:.0f}", "0"))
    if runs := results.get("soak on a control plane"):
        total = summed(runs)
        what = f"{sequences(runs)} random sequences on the control plane, {total['seconds'] / 60:.0f} min"
        said = f"{what}, {total['revisions']:.0f} revisions, {total['writes']:.0f} of them ours: invariants broken"
        found.append((said, f"{total['broken']:.0f}", "0"))
    return found


def mapping(results: dict[str, Any]) -> list[Row]:
    """Return rows of changes of a pool's mapping."""
    found: list[Row] = []
    if moved := results.get("pool of 500 pods"):
        lowest, made = moved["lowest ready of an app of 20"], moved["pods made for each moved"]
        said = f"{moved['seconds']:.0f} s, {made:.2f} pods made for each, lowest Ready of an app of 20: {lowest}"
        found.append(("a namespace of 500 pods comes into a pool that moves them", said, "never below 20"))
    if many := results.get("many pools"):
        found.append(
            ("200 pools, 5,000 namespaces: what the operator weighs more", f"{many['memory, MB']:.1f} MB", "< 20 MB")
        )
        said = f"{_range(many['25 namespaces, s'], 2)} s"
        found.append(("the same: a change that touches 25 namespaces is applied", said, "< 2 s"))
        found.append(("the same: all labelled after a start with none", f"{many['all labelled, s']:.0f} s", ""))
    return found


def rows(results: dict[str, Any]) -> list[Row]:
    """Return all rows."""
    found: list[Row] = []
    if asked := results.get("annotation to cordon, ms"):
        found.append(("annotation to cordon among 1,000 nodes, median", f"{asked['median']:.0f} ms", "< 50 ms"))
        found.append(("the same, 99th percentile", f"{asked['p99']:.0f} ms", "< 165 ms"))
    if one := results.get("one node"):
        found += drain("100 pods of one node", one, ">= 0.80", ">= 5")
    if many := results.get("ten nodes"):
        found += drain("10 x 100 pods", many, ">= 0.80", ">= 8")
    for name, slots in results.get("slots", {}).items():
        goal = ("< 150 ms", "< 1000 ms") if name == "rescheduler" else ("", "")
        found.append((f"slot latency of {name}, median", f"{slots['ms']['median']:.0f} ms", goal[0]))
        found.append((f"slot latency of {name}, 99th percentile", f"{slots['ms']['p99']:.0f} ms", goal[1]))
    if moved := results.get("replacement first"):
        for mode, label in (("Never", "plain eviction"), ("Preferred", "replacement first")):
            lowest = moved[mode]["lowest ready of 100"]
            what = f"10 apps of 10 under `maxUnavailable: 1`, pods Ready after 2 s, {label}"
            found.append((what, f"{moved[mode]['seconds']:.0f} s, lowest Ready {lowest} of 100", ""))
    found += failures(results)
    found += rebalance(results.get("rebalance", {}))
    found += mapping(results)
    found += admission(results)
    found += plans(results)
    found += soaks(results)
    if memory := results.get("memory, MB"):
        found.append(("idle operator, 1,000 nodes, resident", f"{memory['idle']:.0f} MB", "< 120 MB"))
        found.append(
            ("the same after 10 x 100 pods drained", f"{results.get('ten nodes', {}).get('memory, MB', 0):.0f} MB", "")
        )
    return found


_OPTIMUM_COLUMNS = (
    "machines",
    "drains",
    "promised",
    "emptied, emulated",
    "all large / all small pods first, emulated",
    "emptied, real scheduler",
    "possible",
    "`Fits` without a place, emulated / real",
    "`DoesNotFit` with a place, emulated / real",
    "goal",
)
_OPTIMUM_GOALS = {
    "90%": "66 promised, 73 emptied by the real scheduler",
    "92%": "21 promised, 32 emptied by the real scheduler",
}

_CHAIN_MOVE_GOALS = {"1": "38 emptied"}


def optimum(results: dict[str, Any]) -> list[str]:
    """Return the table of plans for a real cluster that is nearly full, next to what is possible."""
    if not results:
        return []
    lines = [
        "## Plans for a nearly full cluster",
        "",
        "The cluster is M3 of RASA, a public data set of a real cluster (Apache-2.0,",
        "github.com/bytedance/research-cluster-dataset), with at most 110 pods on a machine. The first rows leave out the",
        "machines that are used less than a share of their CPU, and drain each machine in turn. The other rows drain",
        "random sets of machines of the whole cluster at once. A drain is emptied if a scheduler places all of its pods,",
        "in the order of the plan. The emulated scheduler spreads and balances, with ties by chance: the fewest and the",
        "most of its runs. OR-tools says what is possible without moving another pod. The last counts are sums over all",
        "runs; `-` is not measured.",
        "",
        f"| {' | '.join(_OPTIMUM_COLUMNS)} |",
        "|---" * len(_OPTIMUM_COLUMNS) + "|",
    ]
    for name, found in results.items():
        if name != "at once":
            lines.append(_optimum_row(f"used at least {name}", found, _OPTIMUM_GOALS.get(name, "")))
    lines += [_optimum_row(f"{count} at once", found, "") for count, found in results["at once"].items()]
    return [*lines, ""]


def chain_moves(results: dict[str, Any]) -> list[str]:
    """Return the table of drains of a real cluster in which a few other pods may move first."""
    if not results:
        return []
    lines = [
        "## Chain moves in a nearly full cluster",
        "",
        "The machines of M3 that are used at least 92% are drained in turn, as above. A drain may move this many pods of",
        "other machines first, as `drain.chainMoves` allows. Only the plan and its chain moves are real. The scheduler is",
        "emulated, and so is the drain: it makes each chain move that the plan offers, and plans again.",
        "",
        "| `chainMoves` | drains | emptied, emulated | other pods moved, over all drains | goal |",
        "|---|---|---|---|---|",
    ]
    for limit, found in results.items():
        cells = (limit, found["drains"], _fewest_to_most(found["emptied"]), _fewest_to_most(found["moves"]))
        lines.append(f"| {' | '.join(map(str, cells))} | {_CHAIN_MOVE_GOALS.get(limit, '')} |")
    return [*lines, ""]


def _optimum_row(name: str, found: dict[str, Any], goal: str) -> str:
    emulated, real = found["emulated"], found.get("real")
    open_cases = found["not known to be possible"]
    possible = f"{found['possible']}" + (f" to {found['possible'] + open_cases}" if open_cases else "")
    wrong = [
        f"{_wrong([run['score'] for run in emulated], *keys)} / {_wrong([real['score']], *keys) if real else '-'}"
        for keys in (("wrong_fits", "fits"), ("wrong_does_not_fit", "does_not_fit"))
    ]
    cells = (
        name,
        found["drains"],
        found["promised"],
        _fewest_to_most(run["drains"] for run in emulated),
        " / ".join(map(_fewest_to_most, found["emulated in other orders"].values())),
        real["drains"] if real else "-",
        possible,
        *wrong,
        goal,
    )
    return f"| {' | '.join(map(str, cells))} |"


def _fewest_to_most(counts: Iterable[int]) -> str:
    ordered = sorted(counts)
    return f"{ordered[0]}" if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def _wrong(scores: Sequence[dict[str, int]], wrong: str, of: str) -> str:
    return f"{sum(score[wrong] for score in scores)} of {sum(score[of] for score in scores)}"


_REBALANCING_COLUMNS = (
    "`high`/`low`",
    "moves",
    "deviation before and after",
    "after as many moves: found, bound",
    "moves to 0.1133: ours, found",
    "nodes above `high` at the end",
    "goal",
)
_REBALANCING_GOALS = {
    "90%/70%": "deviation at most 5% above the optimum, moves for the same at most 8%",
    "95%/85%": "no node above `high`",
}


def rebalancing_of_m3(results: dict[str, Any]) -> list[str]:
    """Return the table of rebalancing on a real cluster, next to an optimum."""
    if not results:
        return []
    lines = [
        "## Rebalancing of a real cluster",
        "",
        "The cluster is M3 of RASA as it is. The loop of the operator runs under an emulated scheduler, and no control",
        "plane. The deviation is of CPU and memory together, weighted by the size of the nodes. `found` is the best end",
        "that a search finds when it chooses the nodes itself, and no choice is better than `bound`.",
        "",
        f"| {' | '.join(_REBALANCING_COLUMNS)} |",
        "|---" * len(_REBALANCING_COLUMNS) + "|",
    ]
    for name, found in results.items():
        if name != "nearly full":
            cells = (
                name,
                found["moves"],
                f"{found['deviation before']:.4f}, {found['deviation']:.4f}",
                f"{found['deviation, found']:.4f}, {found['deviation, bound']:.4f}",
                f"{found['moves to the reference'] or '-'}, {found['moves to the reference, found'] or '-'}",
                found["nodes above high"],
                _REBALANCING_GOALS.get(name, ""),
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
    full = results["nearly full"]
    lines += [
        "",
        (
            f"A generated pool of 40 nodes with {full['CPU used']:.0%} of its CPU used has {full['places before']} places for its "
            f"largest pods before, and {full['places after']} after {full['moves']} moves. It needs {full['places needed']}."
        ),
    ]
    return [*lines, ""]


def markdown(results: dict[str, Any]) -> str:
    """Return bench/results.md."""
    lines = [
        "# Results of `make bench`",
        "",
        "Two shared cores, client and servers together; the control plane is real, the kubelets are simulated",
        "(a pod is gone 1 s after its deletion). Median (minimum to maximum) of the runs.",
        "",
        "| what | result | goal |",
        "|---|---|---|",
        *(f"| {what} | {result} | {goal} |" for what, result, goal in rows(results)),
        "",
        "![one node](one-node.svg)",
        "![ten nodes](ten-nodes.svg)",
        "![slot latency](slots.svg)",
        "![Ready pods](serving.svg)",
        "![rebalancing](rebalance.svg)",
        "",
    ]
    lines += scale_tables.large_clusters(results.get("scale", {}))
    lines += scale_tables.large_drains(results)
    lines += optimum(results.get("optimum", {}))
    lines += chain_moves(results.get("chain moves", {}))
    lines += rebalancing_of_m3(results.get("rebalancing of M3", {}))
    if memory := results.get("memory, MB"):
        costs = ", ".join(f"{name} {size:.0f}" for name, size in memory["imports"].items())
        lines += [f"What each import costs, MB: {costs}.", ""]
    return "\n".join(lines)
