"""Run random sequences of failures: 500 in simulated time, 20 on a real control plane; no invariant may break.

On the control plane a failed machine is a killed KWOK process, and an unreachable one is a stopped KWOK process.
"""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import requests

from bench.common import HERE, OPERATOR, say, session
from harness import ControlPlane, workloads
from harness.observer import Observer
from harness.operators import Operator, install
from harness.recorder import Recorder
from harness.waiting import until
from invariants.checker import Checker
from invariants.end_state import differences, shape
from invariants.objects import name
from invariants.records import Answer, Call
from invariants.state import RecordedState
from rescheduler.core.model.raw import RawObject
from simulation import hostile
from simulation.faults import Fault
from simulation.neighbours import of_the_team, overlapping

NODES, ZONES = 5, ("a", "b")
_LAG = 6.0  # seconds; a busy machine is late
_SETTLES = 150.0  # seconds
_SPACE = "soak"
_AT_ONCE = 20  # runs of one process


def simulated(last: int = 500) -> dict[str, Any]:
    """Run seeds in simulated time; each core runs a part of them."""
    starts = range(1, last + 1, _AT_ONCE)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(lambda first: _run_seeds(first, min(first + _AT_ONCE - 1, last)), starts))
    return {key: sum(part[key] for part in parts) for key in parts[0]}


def _run_seeds(first: int, last: int) -> dict[str, float]:
    """Run some seeds in a separate process."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "simulation", f"{first}-{last}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stdout + done.stderr)
    found = re.search(r"(\d+) runs, ([\d.]+) h, (\d+) writes, ([\d.]+) s: (\d+) broken", done.stdout)
    if found is None:
        raise RuntimeError(f"no result: {done.stdout[-500:]}{done.stderr[-2000:]}")
    return dict(zip(("stories", "hours", "writes", "seconds", "broken"), map(float, found.groups()), strict=True))


class Rig:
    """A control plane with its nodes, two operators, and a recorder."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane, self.observer = plane, Observer(plane.kubeconfig)
        identity = install(plane)
        self.nodes = plane.add_nodes(NODES, zones=ZONES, own_kwok=True)
        self.recorder = Recorder(plane)
        self.operators = [
            Operator(identity, plane.workdir / f"operator-{n}.log", identity=f"operator-{n}").start() for n in (0, 1)
        ]
        self.born = [time.time()]
        self._down: set[str] = set()

    def stop(self) -> None:
        for operator in self.operators:
            operator.stop()
        self.recorder.stop()

    def every(self, resource: str) -> list[RawObject]:
        """Return objects of a resource."""
        kinds = {"nodedrains": "nodedrains.rescheduler.dev"}
        return list(self.plane.get(kinds.get(resource, resource), "-A")["items"])

    # -- faults ---------------------------------------------------------------------------------------------------

    def fail(self, lasts: float, node: str) -> None:
        """Fail the machine; it comes back by a reboot."""
        if node not in self._down:
            self._down.add(node)
            self.plane.fail_node(node)
            time.sleep(lasts)
            self.plane.recover_node(node)
            self._down.discard(node)

    def cut(self, lasts: float, nodes: list[str]) -> None:
        """Cut machines off; they come back without a reboot."""
        mine = [node for node in nodes if node not in self._down]
        self._down |= set(mine)
        for node in mine:
            self.plane.pause_node(node)
        time.sleep(lasts)
        for node in mine:
            self.plane.resume_node(node)
        self._down -= set(mine)

    def fence(self, lasts: float, node: str) -> None:
        """Fail the machine; a fencer attests that it is dead."""
        if node in self._down:
            return
        self._down.add(node)
        self.plane.fail_node(node)
        raw = self.observer.node(node)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        said = {"nodeUID": raw["metadata"]["uid"], "bootID": raw["status"]["nodeInfo"]["bootID"]}
        self._annotate(node, "fenced", json.dumps({**said, "method": "power off", "time": stamp}))
        time.sleep(lasts)
        self.plane.recover_node(node)
        self._annotate(node, "fenced", None)
        self._down.discard(node)

    def ill(self, lasts: float, nodes: list[str]) -> None:
        """Let kubelets report that they are not Ready."""
        self.plane.kubectl("annotate", "--overwrite", "node", *nodes, "cluster/not-ready=true")
        time.sleep(lasts)
        self.plane.kubectl("annotate", "node", *nodes, "cluster/not-ready-")

    def flap(self, lasts: float, node: str) -> None:
        for _ in range(3):
            self.ill(lasts, [node])
            time.sleep(lasts)

    def maintain(self, lasts: float, nodes: list[str]) -> None:
        for node in nodes:
            self._annotate(node, "maintenance", "swap disk")
        time.sleep(lasts)
        for node in nodes:
            self._annotate(node, "maintenance", None)

    def cancel(self, _lasts: float, node: str) -> None:
        self.plane.kubectl("delete", "nodedrain", node, "--ignore-not-found", "--wait=false")

    def scale(self, lasts: float, app: str, *, replicas: int) -> None:
        before = self.plane.get("deployment", app, "-n", _SPACE)["spec"]["replicas"]
        self.plane.kubectl("scale", "deployment", app, "-n", _SPACE, f"--replicas={replicas}")
        time.sleep(lasts)
        self.plane.kubectl("scale", "deployment", app, "-n", _SPACE, f"--replicas={before}")

    def scribble(self, lasts: float, seed: int) -> None:
        """Write garbage on a node and on pods, and remove it; admission may refuse the write."""
        chance = random.Random(seed)
        above, below = self.every("deployments"), self.every("replicasets")
        pods = [pod for pod in self.every("pods") if pod["metadata"]["namespace"] == _SPACE]
        written = [(f"nodes/{chance.choice(self.nodes)}", hostile.on_node(chance))]
        for pod in chance.sample(pods, min(len(pods), 4)) if above and below else ():
            words = hostile.on_pod(chance, above, below, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
            written.append((f"namespaces/{_SPACE}/pods/{name(pod)}", words))
        for path, words in written:
            self._merge(path, words)
        time.sleep(lasts)
        for path, words in written:
            self._merge(path, dict.fromkeys(words))

    def _merge(self, path: str, words: Mapping[str, str | None]) -> None:
        body = json.dumps({"metadata": {"annotations": words}})
        headers = {"Content-Type": "application/merge-patch+json"}
        with suppress(requests.RequestException):
            session(self.plane).patch(f"{self.plane.server}/api/v1/{path}", data=body, headers=headers, timeout=10)

    def kill(self, lasts: float, operator: int) -> None:
        process = self.operators[operator]
        if str(process.log) not in self._down:  # two operators with one log would leave a process that holds its ports
            self._down.add(str(process.log))
            process.kill()
            time.sleep(lasts)
            process.start(ready=False)
            self.born.append(time.time())
            self._down.discard(str(process.log))

    def away(self, lasts: float) -> None:
        self.plane.stop_apiserver()
        time.sleep(lasts)
        self.plane.start_apiserver()

    def _annotate(self, node: str, word: str, value: str | None) -> None:
        text = f"rescheduler.dev/{word}" + ("-" if value is None else f"={value}")
        self.plane.kubectl("annotate", "--overwrite", "node", node, text)

    def carry_out(self, fault: Fault) -> None:
        """Wait until the fault is due, and inject it; people retry while the API server is away."""
        time.sleep(fault.at)
        faults: dict[str, Callable[..., None]] = {
            each.__name__: each
            for each in (
                *(self.fail, self.cut, self.fence, self.ill, self.flap, self.maintain, self.cancel, self.scale),
                *(self.kill, self.away, self.scribble),
            )
        }
        faults[fault.what](fault.lasts, **fault.details)


def _draw(chance: random.Random, nodes: list[str]) -> list[Fault]:
    """Return a few faults within a quarter of a minute."""
    hot = chance.sample(nodes, 2)

    def node() -> str:
        return chance.choice(hot if chance.random() < 0.6 else nodes)

    def some(most: int) -> list[str]:
        return chance.sample(nodes, chance.randint(1, most))

    makers: list[Callable[[], tuple[str, float, dict[str, Any]]]] = [
        lambda: ("fail", chance.choice((4, 16, 24)), {"node": node()}),
        lambda: ("fail", chance.choice((16, 24)), {"node": node()}),
        lambda: ("cut", chance.choice((4, 16, 24)), {"nodes": [node()]}),
        lambda: ("cut", chance.choice((16, 28)), {"nodes": some(4)}),
        lambda: ("fence", chance.choice((26, 32)), {"node": node()}),
        lambda: ("ill", chance.choice((3, 8)), {"nodes": [node()]}),
        lambda: ("ill", 8, {"nodes": some(3)}),
        lambda: ("flap", 1.5, {"node": node()}),
        lambda: ("maintain", chance.choice((4, 12)), {"nodes": some(2)}),
        lambda: ("maintain", chance.choice((4, 12)), {"nodes": [node()]}),
        lambda: ("cancel", 0, {"node": node()}),
        lambda: ("scale", 8, {"app": chance.choice(("web", "single")), "replicas": chance.randint(0, 5)}),
        lambda: ("kill", chance.choice((0.2, 3)), {"operator": chance.randint(0, 1)}),
        lambda: ("kill", chance.choice((0.2, 3)), {"operator": chance.randint(0, 1)}),
        lambda: ("scribble", 8, {"seed": chance.getrandbits(30)}),
        lambda: ("scribble", 8, {"seed": chance.getrandbits(30)}),
    ]
    made = [maker() for maker in chance.choices(makers, k=chance.randint(3, 6))]
    # The outage of the API server comes only once, and last: other faults need the server.
    faults = [Fault(round(chance.uniform(0, 14), 1), what, lasts, details) for what, lasts, details in made]
    return faults + ([Fault(50, "away", 3, {})] if chance.random() < 0.2 else [])


def _policy(chance: random.Random) -> RawObject:
    pick = chance.choice
    unknown = {"type": "Ready", "status": ["Unknown"], "for": pick(("0s", "2s"))}
    failure: dict[str, Any] = {
        "conditions": [unknown, {"type": "Ready", "status": ["False"], "for": pick(("2s", "4s"))}]
    }
    failure |= {"recoverAfter": "2s", "startupGrace": "0s", "flapping": {"changes": 3, "within": "12s"}}
    failure |= {"maxUnhealthy": pick(("20%", 2, "100%"))} | pick(({}, {"leaseTimeout": "8s"}))
    drain = {"replacement": pick(("Preferred", "Required", "WhenBlocked")), "replacementTimeout": pick(("5s", "20s"))}
    maintenance = {"maxConcurrent": pick((1, 2)), "maxUnavailable": pick((1, "50%"))}
    return {"failure": failure, "drain": drain, "maintenance": maintenance}


def _workloads(chance: random.Random) -> list[RawObject]:
    budgets: tuple[dict[str, Any], ...] = (
        {"minAvailable": 1},
        {"maxUnavailable": 1},
        {"maxUnavailable": 0},
        {"minAvailable": "50%"},
        {},
    )
    # The node controller marks pods of a silent node; a kubelet that is back sets running pods to Ready again.
    alive = {"cluster/ready-after": "1s"}
    never = {**alive, "rescheduler.dev/replacement": "Never"}
    neighbours = [
        overlapping(workloads.daemon_set("agent", _SPACE, annotations=alive, tolerations=[{"operator": "Exists"}])),
        overlapping(workloads.replica_set("bare", 1, _SPACE, annotations=alive)),
    ]
    made = [
        *(each for each in neighbours if chance.random() < 0.5),
        of_the_team(workloads.deployment("web", chance.randint(3, 6), _SPACE, annotations=alive)),
        of_the_team(workloads.deployment("single", 1, _SPACE, annotations=alive)),
        of_the_team(workloads.deployment("never", 2, _SPACE, annotations=never)),
        workloads.stateful_set("db", 2, _SPACE, annotations=alive),
        workloads.daemon_set("log", _SPACE, annotations=alive, tolerations=[{"operator": "Exists"}]),
    ]
    picked = {app: chance.choice(budgets) for app in ("web", "single", "db")}
    return made + [workloads.budget(app, _SPACE, **spec) for app, spec in picked.items() if spec]


def _sequence(rig: Rig, seed: int) -> list[str]:
    """Run one sequence; return what is not restored in the end."""
    chance = random.Random(seed)
    policy, faults = _policy(chance), _draw(chance, rig.nodes)
    say(f"sequence {seed}: {json.dumps(policy)}\n" + "\n".join(map(str, faults)))
    rig.plane.apply(workloads.namespace(_SPACE), workloads.policy("default", **policy), *_workloads(chance))
    until(
        lambda: not list(differences(rig.every, {})),
        lambda: str(list(differences(rig.every, {}))),
        seconds=300,
        every=1,
    )
    before = {name(raw): shape(raw) for raw in rig.every("nodes")}
    with ThreadPoolExecutor(len(faults)) as pool:
        list(pool.map(rig.carry_out, faults))
    wrong: list[str] = []
    try:
        until(lambda: not list(differences(rig.every, before)), "the cluster to be restored", seconds=_SETTLES, every=1)
    except TimeoutError:
        wrong = [f"sequence {seed}: in the end {words}" for words in differences(rig.every, before)]
    wrong += [f"sequence {seed}: {o.log.name} ended: {o.tail()}" for o in rig.operators if not o.running]
    for words in wrong:
        say(f"BROKEN {words}")
    rig.plane.kubectl("delete", "namespace", _SPACE, "--wait=false")
    rig.plane.kubectl("delete", "pods", "--all", "-n", _SPACE, "--force", "--grace-period=0", check=False)
    rig.plane.kubectl("wait", "--for=delete", f"namespace/{_SPACE}", "--timeout=110s", check=False)
    return wrong


def _checked(rig: Rig) -> tuple[list[str], int, int]:
    """Return violations of the record, its number of revisions, and the operator's share of them."""
    checker = Checker(RecordedState(_LAG), frozenset((OPERATOR,)))
    born, revisions = sorted(rig.born), 0
    for each in rig.recorder.changes(OPERATOR):
        if isinstance(each, Call):
            checker.call(each)
            continue
        if isinstance(each, Answer):
            checker.answer(each)
            continue
        while born and born[0] <= each.at:
            checker.state.born = born.pop(0)
        checker.change(each)
        revisions += 1
    return checker.broken, revisions, checker.writes


def on_a_control_plane() -> dict[str, Any]:
    """Run the sequences of `SOAK_SEEDS` (such as 1-5; else 1-20); keep results of an earlier run."""
    first, _, last = os.environ.get("SOAK_SEEDS", "1-20").partition("-")
    known: dict[str, Any] = {}
    with suppress(FileNotFoundError, KeyError):
        known = json.loads((HERE / "results.json").read_text())["soak on a control plane"]
    began, found = time.monotonic(), dict[str, Any]()
    with ControlPlane.start(audit=True, bodies_of=OPERATOR, node_monitor_grace_period="12s") as plane:
        rig = Rig(plane)
        seeds = range(int(first), int(last or first) + 1)
        wrong = [words for seed in seeds for words in _sequence(rig, seed)]
        rig.stop()
        broken, revisions, writes = _checked(rig)
        for words in broken:
            say(f"BROKEN {words}")
        found = {"revisions": revisions, "writes": writes, "broken": len(wrong) + len(broken)}
    found["seconds"] = time.monotonic() - began
    return {**known, f"{seeds[0]}-{seeds[-1]}": found}


def summed(results: dict[str, Any]) -> dict[str, float]:
    """Return the sums over all runs on the control plane."""
    return {key: sum(run[key] for run in results.values()) for key in ("revisions", "writes", "broken", "seconds")}


def sequences(results: dict[str, Any]) -> int:
    """Return the number of sequences."""
    return sum(len(list(_span(key))) for key in results)


def _span(key: str) -> Iterator[int]:
    first, _, last = key.partition("-")
    yield from range(int(first), int(last) + 1)
