"""Tables of the results for people."""

from typing import Any

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
    if memory := results.get("memory, MB"):
        costs = ", ".join(f"{name} {size:.0f}" for name, size in memory["imports"].items())
        lines += [f"What each import costs, MB: {costs}.", ""]
    return "\n".join(lines)
