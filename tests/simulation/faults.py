"""Faults of a cluster: each does its harm, waits, and undoes it, so that any of them can be left out."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from invariants.objects import controller, deleting, labels, name, node_of, set_condition, stamp, uid
from rescheduler.core.model.raw import RawObject
from simulation import hostile, neighbours
from simulation.admission import CODES, TARGETS, Refuses
from simulation.clusters import SPACE, Cluster
from simulation.controllers import BROKEN, VERSION
from simulation.processes import Process

_RELIST = 602.0  # seconds; the operator lists its own kinds and the nodes each minute, everything else every 10 minutes
ZONE = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, as a record of its function and arguments.

    Attributes:
        at: seconds after the start.
        what: name of a function in `FAULTS`.
        lasts: seconds.
        details: further arguments of the function.
    """

    at: float
    what: str
    lasts: float
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        more = " ".join(f"{key}={value}" for key, value in self.details.items())
        return f"{self.at:6.0f} s  {self.what} for {self.lasts:.0f} s  {more}"


async def fail(c: Cluster, lasts: float, node: str) -> None:
    """Fail the machine; it comes back by a reboot."""
    c.machines[node].power_off()
    await asyncio.sleep(lasts)
    c.machines[node].come_back(reboot=True)


async def cut(c: Cluster, lasts: float, nodes: list[str], *, reboot: bool) -> None:
    """Cut machines off: they run on, or reboot before they come back."""
    for node in nodes:
        c.machines[node].cut = True
    await asyncio.sleep(lasts)
    for node in nodes:
        c.machines[node].come_back(reboot=reboot)


async def not_ready(c: Cluster, lasts: float, nodes: list[str]) -> None:
    """Let kubelets report that they are not Ready."""
    for node in nodes:
        c.machines[node].fall_ill()
    await asyncio.sleep(lasts)
    for node in nodes:
        c.machines[node].come_back(reboot=False)


async def flap(c: Cluster, lasts: float, node: str, *, times: int) -> None:
    """Let a node fail and recover in turn."""
    for _ in range(times):
        await not_ready(c, lasts, [node])
        await asyncio.sleep(lasts)


async def fence(c: Cluster, lasts: float, node: str, *, after: float) -> None:
    """Cut the machine off; a fencer powers it off and then attests it; it is repaired later."""
    machine = c.machines[node]
    machine.cut = True
    await asyncio.sleep(after)
    machine.power_off()
    _attest(c, node, machine.boot)
    await asyncio.sleep(lasts)
    machine.come_back(reboot=True)
    c.annotate(node, fenced=None)


async def attest_old_boot(c: Cluster, lasts: float, node: str) -> None:
    """Cut the machine off with an attestation of an earlier boot on the node, which proves nothing."""
    c.machines[node].cut = True
    _attest(c, node, "an-earlier-boot")
    await asyncio.sleep(lasts)
    c.machines[node].come_back(reboot=False)
    c.annotate(node, fenced=None)


def _attest(c: Cluster, node: str, boot: str) -> None:
    raw = c.server.find("nodes", node) or {"metadata": {"uid": ""}}
    said = {"nodeUID": uid(raw), "bootID": boot, "method": "power off", "time": stamp(c.now())}
    c.annotate(node, fenced=json.dumps(said))


async def api_outage(c: Cluster, lasts: float) -> None:
    """Make the API server unreachable for every client."""
    c.server.away = True
    await asyncio.sleep(lasts)
    c.server.away = False


async def disconnect_operator(c: Cluster, lasts: float, operator: int) -> None:
    """Make the API server unreachable for one operator."""
    client = _operator(c, operator).client
    if client:
        client.cut = True
        await asyncio.sleep(lasts)
        client.cut = False


async def kill(c: Cluster, lasts: float, operator: int) -> None:
    """Send SIGKILL, and start a new process."""
    await _restart(lasts, _operator(c, operator), Process.kill)


async def stop(c: Cluster, lasts: float, operator: int) -> None:
    """Send SIGTERM, and start a new process."""
    await _restart(lasts, _operator(c, operator), Process.stop)


def _operator(c: Cluster, index: int) -> Process:
    return c.operators[index % len(c.operators)]


async def _restart(lasts: float, operator: Process, end: Callable[[Process], Awaitable[None]]) -> None:
    if operator.app:
        await end(operator)
        await asyncio.sleep(lasts)
        operator.start()


async def maintain(c: Cluster, lasts: float, nodes: list[str]) -> None:
    """Request maintenance of nodes."""
    for node in nodes:
        c.annotate(node, maintenance="swap disk")
    await asyncio.sleep(lasts)
    for node in nodes:
        c.annotate(node, maintenance=None)


async def cancel(c: Cluster, lasts: float, node: str) -> None:
    """Delete a NodeDrain as a person."""
    if drain := c.server.find("nodedrains", node):
        c.server.remove("nodedrains", drain, user="human")


async def manual_drain(c: Cluster, lasts: float, node: str) -> None:
    """Create a NodeDrain as a person, and delete it."""
    if c.server.find("nodedrains", node) is None:
        spec = {"nodeName": node, "requests": [{"reason": "Manual", "message": "by hand"}]}
        c.server.make("nodedrains", {"metadata": {"name": node}, "spec": spec}, user="human")
    await asyncio.sleep(lasts)
    await cancel(c, 0, node)


async def uncordon(c: Cluster, lasts: float, node: str) -> None:
    """Uncordon a node as a person."""
    c.edit_node(node, lambda raw: raw["spec"].pop("unschedulable", None))


async def cordon(c: Cluster, lasts: float, node: str) -> None:
    """Cordon a node as a person, and uncordon it."""
    c.edit_node(node, lambda raw: raw["spec"].update(unschedulable=True))
    await asyncio.sleep(lasts)
    await uncordon(c, 0, node)


async def mark_for_removal(c: Cluster, lasts: float, node: str) -> None:
    """Let the cluster autoscaler mark a node for removal, and change its mind."""
    key = "ToBeDeletedByClusterAutoscaler"

    def set_taint(raw: RawObject, *, on: bool) -> None:
        kept = [t for t in raw["spec"].get("taints") or () if t["key"] != key]
        raw["spec"]["taints"] = kept + ([{"key": key, "effect": "NoSchedule"}] if on else [])

    c.edit_node(node, lambda raw: set_taint(raw, on=True))
    await asyncio.sleep(lasts)
    c.edit_node(node, lambda raw: set_taint(raw, on=False))


async def scale(c: Cluster, lasts: float, app: str, *, replicas: int) -> None:
    """Scale an owner up or down for a while."""
    before = (c.server.find("deployments", app, SPACE) or {"spec": {"replicas": 1}})["spec"]["replicas"]
    c.edit("deployments", app, lambda raw: raw["spec"].update(replicas=replicas), SPACE)
    await asyncio.sleep(lasts)
    c.edit("deployments", app, lambda raw: raw["spec"].update(replicas=before), SPACE)


async def roll(c: Cluster, lasts: float, app: str, *, version: int, broken: bool) -> None:
    """Start a rollout and roll it back; the new pods of a broken rollout never become Ready."""
    words = {VERSION: str(version)} | ({BROKEN: "true"} if broken else {})

    def given(raw: RawObject) -> dict[str, Any]:
        annotations: dict[str, Any] = raw["spec"]["template"]["metadata"].setdefault("annotations", {})
        return annotations

    c.edit("deployments", app, lambda raw: given(raw).update(words), SPACE)
    await asyncio.sleep(lasts)
    c.edit("deployments", app, lambda raw: [given(raw).pop(word, None) for word in (VERSION, BROKEN)], SPACE)


async def evict_for_memory(c: Cluster, lasts: float, node: str) -> None:
    """Let the kubelet evict pods for lack of memory: they stay as Failed until somebody deletes them."""
    owned = [p for p in c.server.all("pods", SPACE) if controller(p).get("kind") in ("ReplicaSet", "Deployment")]
    ended = [p for p in owned if node_of(p) == node and not deleting(p)]

    def fail(raw: dict[str, Any]) -> None:
        raw["status"] |= {"phase": "Failed", "reason": "Evicted"}
        set_condition(raw, "Ready", "False", "PodFailed", c.now())

    for pod in ended:
        c.machines[node].running.pop(uid(pod), None)
        c.server.edit("pods", pod, fail, user="kubelet")
    await asyncio.sleep(lasts)
    for pod in ended:
        c.server.remove("pods", pod, grace=0, user="human")


async def forge_release(c: Cluster, lasts: float, app: str, *, seed: int) -> None:
    """Create a pod that poses as released to a Deployment; its record, if any, names another pod."""
    posed = hostile.impostor(random.Random(seed), c, app)
    if posed:
        await asyncio.sleep(lasts)
        c.server.remove("pods", posed, user="human")


async def change_policy(c: Cluster, lasts: float, **spec: str) -> None:
    """Change the mode of the policy, or suspend it, for a while."""
    c.edit("reschedulepolicies", "default", lambda raw: raw["spec"].update(spec))
    await asyncio.sleep(lasts)
    c.edit("reschedulepolicies", "default", lambda raw: [raw["spec"].pop(key, None) for key in spec])


async def slow_starts(c: Cluster, lasts: float) -> None:
    """Slow down the start of pods."""
    for machine in c.machines.values():
        machine.slow = 60.0
    await asyncio.sleep(lasts)
    for machine in c.machines.values():
        machine.slow = 0.0


async def unready_pods(c: Cluster, lasts: float, app: str) -> None:
    """Make pods of an app unready for a while although they run: their kubelets correct it at the next heartbeat."""
    for pod in c.server.all("pods", SPACE):
        if labels(pod).get("app") == app:
            c.server.edit("pods", pod, lambda raw: set_condition(raw, "Ready", "False", "", c.now()), user="kubelet")


async def refuse(c: Cluster, lasts: float, **details: Any) -> None:
    """Let a policy, a webhook or the server refuse one kind of write for a while."""
    policy = Refuses(**details)
    c.server.policies.append(policy)
    await asyncio.sleep(lasts)
    c.server.policies.remove(policy)


async def delete_released(c: Cluster, lasts: float, *, every: float) -> None:
    """Delete released pods as a person."""
    await neighbours.reap(c, lasts, every=every)


async def write_garbage(c: Cluster, lasts: float, *, seed: int, node: str = "") -> None:
    """Write garbage on a node or on pods, and remove it again."""
    chance = random.Random(seed)
    wipe = hostile.scribble_on_node(chance, c, node) if node else hostile.scribble_on_pods(chance, c)
    await asyncio.sleep(lasts)
    wipe()


async def compact(c: Cluster, lasts: float) -> None:
    """Let every watch expire (410), as after a compaction of etcd."""
    for operator in c.operators:
        if operator.client:
            operator.client.watch_faults.compact()


async def freeze_watches(c: Cluster, lasts: float, operator: int) -> None:
    """Let the watches of one operator deliver nothing, while its requests are answered."""
    await _distort(c, lasts, operator, frozen=True)


async def mix_events(c: Cluster, lasts: float, operator: int) -> None:
    """Deliver events of the watches of one operator twice and in another order."""
    await _distort(c, lasts, operator, mixed=True)


async def lose_events(c: Cluster, lasts: float, operator: int) -> None:
    """Deliver only some events of the watches of one operator; its next lists show the rest."""
    await _distort(c, lasts, operator, repaired=_RELIST, lost=0.3)


async def _distort(c: Cluster, lasts: float, operator: int, *, repaired: float = 0.0, **faults: float) -> None:
    """Distort the watches; the rules allow for the late view. `repaired`: seconds until the view is current again."""
    client, state = _operator(c, operator).client, c.server.checkers[0].state
    if client is None:
        return
    for what, value in faults.items():
        setattr(client.watch_faults, what, value)
    state.lag += lasts + repaired
    await asyncio.sleep(lasts)
    for what in faults:
        setattr(client.watch_faults, what, 0)
    await asyncio.sleep(repaired + 2)
    state.lag -= lasts + repaired


FAULTS: dict[str, Callable[..., Awaitable[None]]] = {
    each.__name__: each
    for each in (
        *(
            fail,
            cut,
            not_ready,
            flap,
            fence,
            attest_old_boot,
            api_outage,
            disconnect_operator,
            kill,
            stop,
            maintain,
            cancel,
            manual_drain,
            uncordon,
            cordon,
        ),
        *(
            mark_for_removal,
            scale,
            roll,
            evict_for_memory,
            forge_release,
            change_policy,
            unready_pods,
            slow_starts,
            refuse,
            delete_released,
            write_garbage,
        ),
        *(compact, freeze_watches, mix_events, lose_events),
    )
}


async def carry_out(fault: Fault, cluster: Cluster) -> None:
    """Wait until the fault is due, and inject it."""
    await asyncio.sleep(fault.at)
    await FAULTS[fault.what](cluster, fault.lasts, **fault.details)


SHORT, LONG = (5, 20, 45, 70), (90, 150, 240, 420)
"""Seconds that faults last."""


def draw(
    chance: random.Random,
    cluster: Cluster,
    apps: list[str],
    *,
    minutes: float,
    number: tuple[int, int] = (6, 16),
    short: tuple[int, ...] = SHORT,
    long: tuple[int, ...] = LONG,
) -> list[Fault]:
    """Return a random sequence of faults.

    `minutes`: the time in which they begin. `number`: least and most faults. `short`, `long`: seconds that they last.
    """
    nodes = sorted(cluster.machines)
    zones = {labels(raw).get(ZONE, "") for raw in cluster.server.all("nodes")} - {""}
    hot = chance.sample(nodes, 2)  # faults that meet on one node find the most bugs

    def node() -> str:
        return chance.choice(hot if chance.random() < 0.6 else nodes)

    def most(share: float) -> list[str]:
        return chance.sample(nodes, max(1, round(share * len(nodes))))

    def zone() -> list[str]:
        picked = chance.choice(sorted(zones)) if zones else ""
        return [name(raw) for raw in cluster.server.all("nodes") if labels(raw).get(ZONE, "") == picked]

    def reboot() -> bool:
        return chance.random() < 0.5

    makers: list[tuple[int, Callable[[], tuple[str, float, dict[str, Any]]]]] = [
        (4, lambda: ("fail", chance.choice(short + long), {"node": node()})),
        (4, lambda: ("cut", chance.choice(short + long), {"nodes": [node()], "reboot": reboot()})),
        (3, lambda: ("not_ready", chance.choice(short + long), {"nodes": [node()]})),
        (2, lambda: ("flap", chance.choice((8, 15, 30)), {"node": node(), "times": chance.randint(2, 4)})),
        (2, lambda: ("cut", chance.choice(long), {"nodes": zone(), "reboot": reboot()})),
        (1, lambda: ("cut", chance.choice(long), {"nodes": most(chance.choice((0.4, 0.8, 1))), "reboot": False})),
        (2, lambda: ("not_ready", chance.choice(long), {"nodes": most(chance.choice((0.3, 0.6)))})),
        (3, lambda: ("fence", chance.choice(long), {"node": node(), "after": chance.choice((20, 60, 120))})),
        (1, lambda: ("attest_old_boot", chance.choice(long), {"node": node()})),
        (1, lambda: ("api_outage", chance.choice((3, 12, 40, 100)), {})),
        (2, lambda: ("disconnect_operator", chance.choice((3, 8, 20, 60)), {"operator": chance.randint(0, 1)})),
        (3, lambda: ("kill", chance.choice((0.2, 2, 20)), {"operator": chance.randint(0, 1)})),
        (1, lambda: ("stop", chance.choice((0.2, 2, 20)), {"operator": chance.randint(0, 1)})),
        (5, lambda: ("maintain", chance.choice(short + long), {"nodes": [node()]})),
        (2, lambda: ("maintain", chance.choice(long), {"nodes": most(chance.choice((0.4, 0.7)))})),
        (2, lambda: ("slow_starts", chance.choice(long), {})),
        (1, lambda: ("cancel", 0, {"node": node()})),
        (1, lambda: ("manual_drain", chance.choice(short + long), {"node": node()})),
        (1, lambda: ("uncordon", 0, {"node": node()})),
        (2, lambda: ("cordon", chance.choice(long), {"node": node()})),
        (1, lambda: ("mark_for_removal", chance.choice(long), {"node": node()})),
        (2, lambda: ("scale", chance.choice(long), {"app": chance.choice(apps), "replicas": chance.randint(0, 5)})),
        (3, lambda: ("roll", chance.choice(long), _rollout(chance, apps))),
        (2, lambda: ("evict_for_memory", chance.choice(short + long), {"node": node()})),
        (
            1,
            lambda: (
                "forge_release",
                chance.choice(long),
                {"app": chance.choice(apps), "seed": chance.getrandbits(30)},
            ),
        ),
        (3, lambda: ("change_policy", chance.choice(long), chance.choice(_RULES))),
        (1, lambda: ("unready_pods", 0, {"app": chance.choice(apps)})),
        (6, lambda: ("refuse", chance.choice(short + long), _refusal(chance))),
        (3, lambda: ("write_garbage", chance.choice(short + long), {"seed": chance.getrandbits(30)})),
        (3, lambda: ("write_garbage", chance.choice(short + long), {"seed": chance.getrandbits(30), "node": node()})),
        (2, lambda: ("delete_released", chance.choice(long), {"every": chance.choice((0.1, 1.0, 7.0))})),
    ]
    weights = [weight for weight, _ in makers]
    made = [maker() for _, maker in chance.choices(makers, weights, k=chance.randint(*number))]
    times = sorted(chance.uniform(0, 60 * minutes) for _ in made)
    return [Fault(round(at), what, lasts, details) for at, (what, lasts, details) in zip(times, made, strict=True)]


def draw_watch_fault(chance: random.Random) -> Fault:
    """Return a fault of the watches of one operator within the first half minute."""
    what = chance.choice(("compact", "freeze_watches", "mix_events", "lose_events"))
    details = {} if what == "compact" else {"operator": chance.randint(0, 1)}
    return Fault(chance.randint(0, 30), what, chance.choice((5, 20, 45)), details)


def _rollout(chance: random.Random, apps: list[str]) -> dict[str, Any]:
    return {"app": chance.choice(apps), "version": chance.getrandbits(20), "broken": chance.random() < 0.3}


def _refusal(chance: random.Random) -> dict[str, Any]:
    what, verb = chance.choice(TARGETS)
    return {"what": what, "verb": verb, "code": chance.choice(CODES), "everybody": chance.random() < 0.3}


_RULES = ({"mode": "Audit"}, {"suspend": "All"}, {"suspend": "New"})
