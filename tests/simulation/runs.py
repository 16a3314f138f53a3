"""A run: a cluster and its faults, all from one seed, until an invariant breaks or the cluster is restored."""

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import looptime
import structlog

from harness import workloads
from invariants.checker import Checker
from invariants.end_state import differences, shape
from invariants.objects import annotations, name
from invariants.records import Change
from invariants.state import CONTROL_PLANE, RecordedState
from invariants.wait_rules import silence
from rescheduler.core.model.raw import RawObject
from simulation import hostile
from simulation.clusters import NAMESPACE, SPACE, Cluster
from simulation.faults import ZONE, Fault, carry_out, draw
from simulation.neighbours import of_the_team, settle_in

MINUTES = 12.0
"""Minutes in which faults begin."""
SETTLES = 45 * 60.0  # seconds; flapping, pauses after setbacks and five-minute evictions are all over by then
_STANDS = 30 * 60.0  # seconds in which a drain ends or names its blocker
_QUIET = 70.0  # seconds
_LAG = 2.0


@dataclass
class RunResult:
    """The result of a run.

    Attributes:
        broken: violations; empty if there are none.
        lines: the last writes and log lines of the operator.
    """

    seed: int
    faults: Sequence[Fault]
    policy: RawObject
    broken: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    writes: int = 0
    simulated: float = 0.0

    def __str__(self) -> str:
        parts = [f"seed {self.seed}: {len(self.broken)} broken", f"policy {json.dumps(self.policy)}"]
        parts += [str(fault) for fault in self.faults]
        return "\n".join([*parts, "…", *self.lines, *(f"BROKEN {words}" for words in self.broken)])


class _RunLog:
    """Keep the last lines of a run: writes with their users, and log lines of the operator."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._zero = cluster, cluster.now().timestamp()
        self.lines: deque[str] = deque(maxlen=400)
        self.bugs: list[str] = []

    def call(self, call: object) -> None:
        """Ignore the request: the operator's log has the refused ones."""

    def change(self, change: Change) -> None:
        result = change.call and change.call.user in ("operator-a", "operator-b", "human")
        if result and change.call and change.place.resource not in ("events", "leases"):
            self.say(f"{change} {_short_body(change.call.body)}")

    def log(self, _: Any, method: str, event: MutableMapping[str, Any]) -> NoReturn:
        """Process a log event for structlog."""
        self.say(" ".join([method, *(f"{key}={value}" for key, value in event.items())])[:400])
        failed = method in ("error", "exception", "critical") and event.get("exc_info")
        if failed or event["event"] in ("process.failed", "object.unreadable"):
            self.bugs.append(f"logged {event}")
        raise structlog.DropEvent

    def say(self, words: str) -> None:
        self.lines.append(f"{self._cluster.now().timestamp() - self._zero:8.2f} s  {words}")


def _short_body(body: RawObject) -> str:
    """Return a short text of a written body, without the long parts of a status."""
    status = body.get("status") or {}
    if "phase" in status:
        why = " ".join(c["reason"] for c in status["conditions"] if c["type"] == "Progressing")
        return " ".join((status["phase"], why, *sorted(f"{b['pod']}:{b['class']}" for b in status["blockers"])))
    return json.dumps({key: value for key, value in body.items() if key not in ("apiVersion", "kind")})[:500]


# -- the cluster of a seed --------------------------------------------------------------------------------------------


_SMALL = {"cpu": "100m", "memory": "160Mi"}  # a pod is a tenth of this
_REBALANCE = {"enabled": True, "high": "25%", "low": "20%"}


def _policy(chance: random.Random) -> RawObject:
    pick = chance.choice
    unknown = {"type": "Ready", "status": ["Unknown"], "for": pick(("0s", "10s", "60s"))}
    false = {"type": "Ready", "status": ["False"], "for": pick(("15s", "3m"))}
    failure: dict[str, Any] = {"conditions": [unknown, false], "recoverAfter": pick(("5s", "30s", "2m"))}
    failure |= {"maxUnhealthy": pick(("20%", "20%", 1, 2, "50%", "100%"))}
    failure |= {"flapping": {"changes": 3, "within": pick(("3m", "10m"))}}
    failure |= pick(({}, {"leaseTimeout": "15s"}, {"leaseTimeout": "20s"}))
    maintenance = {"maxConcurrent": pick((1, 1, 2, "50%")), "maxUnavailable": pick(("10%", "50%", 2))}
    drain: dict[str, Any] = {"replacement": pick(("Preferred", "Preferred", "Required", "WhenBlocked", "Never"))}
    drain |= {"replacementTimeout": pick(("20s", "5m")), "noRoom": pick(("Hold", "Evict"))}
    drain |= {"unmanaged": pick(("Block", "Evict")), "maxEvictionsPerSecond": pick((1, 20))}
    drain |= pick(({}, {}, {"timeout": "2m", "onTimeout": pick(("Hold", "Delete", "Cancel"))}))
    return {"failure": failure, "maintenance": maintenance, "drain": drain}


_BUDGETS: tuple[RawObject, ...] = (
    {},
    {"minAvailable": 1},
    {"maxUnavailable": 1},
    {"maxUnavailable": 0},
    {"minAvailable": "100%"},
    {"minAvailable": "50%"},
    {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
)


def _objects(chance: random.Random) -> list[RawObject]:
    def budget(app: str) -> list[RawObject]:
        spec = chance.choice(_BUDGETS)
        return [workloads.budget(app, SPACE, **spec)] if spec else []

    grace = chance.choice((1, 5, 30))
    disk = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}]}
    database = workloads.stateful_set("db", chance.randint(1, 3), SPACE, grace=grace)
    database["spec"] |= chance.choice(({}, {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}))
    never = {"annotations": {"rescheduler.dev/replacement": "Never"}}
    return [
        of_the_team(workloads.deployment("web", chance.randint(3, 8), SPACE, grace=grace)),
        *budget("web"),
        of_the_team(workloads.deployment("single", 1, SPACE, grace=grace)),
        *budget("single"),
        of_the_team(workloads.deployment("never", 2, SPACE, grace=1, **never)),
        *budget("never"),
        of_the_team(workloads.deployment("disk", 1, SPACE, grace=grace, **disk)),
        database,
        *budget("db"),
        workloads.daemon_set("log", SPACE),
        *chance.choice(([], [workloads.bare_pod("alone", SPACE)])),
    ]


def _build(chance: random.Random, cluster: Cluster, more: random.Random, *, rebalances: bool) -> RawObject:
    zones = chance.choice(((), ("a", "b"), ("a", "b", "c")))
    count, masters = chance.randint(4, 8), chance.choice((0, 0, 2, 3))
    found = settle_in(chance, cluster, more)
    room = chance.choice((6, 8, 30)) + len({"daemon set", "bare set", "attacher", "pair"} & set(found))
    for index in range(count):
        zone = {ZONE: zones[index % len(zones)]} if zones else {}
        role = {CONTROL_PLANE: ""} if index < masters else {}
        cluster.add_node(f"n{index + 1}", {**zone, **role}, pods=room, **(_SMALL if rebalances else {}))
    spec = {**_policy(chance), **({"rebalance": _REBALANCE} if rebalances else {})}
    cluster.deploy(workloads.policy("default", **spec), *_objects(chance), *hostile.objects(chance))
    static = {"nodeName": "n1", "tolerations": [{"operator": "Exists"}]}
    mirror = workloads.bare_pod("static-n1", SPACE, annotations={"kubernetes.io/config.mirror": "x"}, **static)
    cluster.server.make("pods", mirror)
    lease = {"metadata": {"name": "rescheduler", "namespace": NAMESPACE}, "spec": {"holderIdentity": ""}}
    cluster.server.make("leases", lease)
    return {"neighbours": found, **spec}


# -- the run ----------------------------------------------------------------------------------------------------------


def run_seed(
    seed: int, faults: Sequence[Fault] | None = None, *, settles: float = SETTLES, rebalances: bool = False
) -> RunResult:
    """Run a seed, or the seed with other faults; in the end the cluster must be restored within `settles` seconds.

    `rebalances`: its policy rebalances nodes during the run.
    """

    def begin(chance: random.Random, cluster: Cluster) -> tuple[RawObject, Sequence[Fault]]:
        policy = _build(chance, cluster, random.Random(f"more {seed}"), rebalances=rebalances)
        apps = ["web", "single", "never"]
        return policy, draw(chance, cluster, apps, minutes=MINUTES) if faults is None else faults

    return play(seed, begin, settles=settles)


Begin = Callable[[random.Random, Cluster], tuple[RawObject, Sequence[Fault]]]
"""Fills a cluster; returns its policy and the faults."""


def play(seed: int, begin: Begin, *, settles: float, briefly: bool = False) -> RunResult:
    """Play the faults in a cluster of this seed until an invariant breaks, or until the cluster is restored.

    `briefly`: do not check what follows in the restored cluster.
    """
    random.seed(seed)  # the jitter of the operator
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(start=1000.0, noop_cycles=0)) as runner:
        return runner.run(_play(seed, begin, settles, briefly=briefly))


async def _play(seed: int, begin: Begin, settles: float, *, briefly: bool) -> RunResult:
    chance = random.Random(seed)
    cluster = Cluster(random.Random(seed))
    checker = Checker(RecordedState(_LAG), frozenset(("operator-a", "operator-b")), (NAMESPACE, "rescheduler"))
    run_log = _RunLog(cluster)
    cluster.server.checkers += [checker, run_log]
    cluster.server.answered.append(checker.answer)
    structlog.configure(processors=[run_log.log], cache_logger_on_first_use=False)
    policy, faults = begin(chance, cluster)
    result = RunResult(seed, faults, policy)
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(str(context)))

    def found() -> list[str]:
        crashes = [operator.crashed for operator in cluster.operators if operator.crashed]
        return [*checker.broken, *cluster.duplicates, *run_log.bugs, *errors, *crashes]

    for operator in cluster.operators:
        operator.began = lambda at: setattr(checker.state, "born", at)
    cluster.start()
    try:
        result.broken = await _follow(cluster, faults, settles, found, briefly=briefly) or found()
    finally:
        result.lines, result.writes = list(run_log.lines), checker.writes
        result.simulated = asyncio.get_running_loop().time() - 1000.0
        await cluster.stop()
    return result


async def _follow(cluster: Cluster, faults: Sequence[Fault], settles: float, found: Any, *, briefly: bool) -> list[str]:
    """Wait until an invariant breaks, or all is restored and quiet; return what is not after the time limit."""
    if not await _until(lambda: not list(differences(cluster.server.all, {})), 120, found):
        return found() or [f"the cluster does not start: {list(differences(cluster.server.all, {}))}"]
    before = {name(raw): shape(raw) for raw in cluster.server.all("nodes")}
    running = [asyncio.create_task(carry_out(fault, cluster)) for fault in faults]
    while not all(task.done() for task in running):
        await asyncio.sleep(1)
        if found():
            return []
    for task in running:
        task.result()
    if not await _until(lambda: not list(differences(cluster.server.all, before)), settles, found):
        return (
            []
            if found()
            else [f"all faults are over, and still {words}" for words in differences(cluster.server.all, before)]
        )
    if briefly:
        return []
    return await _stand(cluster, before, settles, found) or await _quiet(cluster, found)


async def _stand(cluster: Cluster, before: dict[str, RawObject], settles: float, found: Any) -> list[str]:
    """Check that a request ends in an empty node or in a named blocker, and its withdrawal in a restored node."""
    node = cluster.chance.choice(sorted(before))
    cluster.annotate(node, maintenance="stands")

    def settled() -> bool:
        drain = cluster.server.find("nodedrains", node)
        if drain is None:  # a policy may cancel a drain although its request stays on the node
            return "rescheduler.dev/cancelled" in annotations(cluster.server.find("nodes", node) or {"metadata": {}})
        phase = (drain.get("status") or {}).get("phase")
        return phase in ("Drained", "Blocked", "Waiting") and not list(silence(drain))

    if not await _until(settled, _STANDS, found):
        return [] if found() else [f"the request still exists, and: {cluster.server.find('nodedrains', node)}"]
    cluster.annotate(node, maintenance=None)
    if not await _until(lambda: not list(differences(cluster.server.all, before)), settles, found):
        return (
            []
            if found()
            else [f"the request is withdrawn, and still {words}" for words in differences(cluster.server.all, before)]
        )
    return []


async def _quiet(cluster: Cluster, found: Any) -> list[str]:
    """Check that an idle operator writes only Leases; late effects of the last fault may end first."""
    checker = cluster.server.checkers[0]
    for _ in range(3):
        writes = checker.writes
        await asyncio.sleep(_QUIET)
        if checker.writes == writes or found():
            return []
    return [f"the idle operator writes: {checker.writes - writes} times in {_QUIET:.0f} s"]


async def _until(condition: Any, limit: float, found: Any) -> bool:
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    while not condition():
        if loop.time() > end or found():
            return False
        await asyncio.sleep(5)
    return not found()


def shortened(result: RunResult, run: Callable[[int, Sequence[Fault]], RunResult] = run_seed) -> RunResult:
    """Return the same failure with as few faults as possible; `run`: what played it."""
    best = result
    for fault in result.faults:
        fewer = [each for each in best.faults if each is not fault]
        without = run(result.seed, fewer)
        if without.broken:
            best = without
    return best
