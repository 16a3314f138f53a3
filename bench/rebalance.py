"""Measure rebalancing by the operator and by the descheduler's LowNodeUtilization, until no pod moves.

Both sides start from the same five pools with pods of very different sizes, and have the same thresholds. Replacements
are Ready after a second.
"""

import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import yaml

from bench.common import OPERATOR, audit, say, session
from harness import ControlPlane, binaries, unbalanced_cluster, workloads
from harness.observer import Observer
from harness.operators import Operator, install
from harness.unbalanced_cluster import App, deviation
from harness.waiting import until
from harness.watches import watch_events

POOLS, NODES = 5, 10
HIGH, LOW = 80, 50
_READY_AFTER = "1s"
_QUIET = 200.0  # seconds without a move: more than a workload's cool-down and the time between two checks
_LONGEST = 3600.0
_ADMIN = "kwok-admin"
Sizes = Mapping[str, tuple[int, int]]


@dataclass
class Follower:
    """Watch the pods of a namespace: their nodes, which are Ready, and when an app has fewer than it should.

    Attributes:
        dips: how many times fewer pods of an app were Ready than it should have.
        back: how many times a pod came to a node that a pod of its app had left.
        left: pods that have gone, in order, by app and node; `came`: pods that came after the start.
        last: when a pod last came or went; monotonic.
    """

    wanted: Mapping[str, int]
    dips: int = 0
    back: int = 0
    left: list[tuple[str, str]] = field(default_factory=list)
    came: list[tuple[str, str]] = field(default_factory=list)
    last: float = field(default_factory=time.monotonic)
    _pods: dict[str, tuple[str, str]] = field(default_factory=dict)
    _serving: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _stopped: bool = False

    def start(self, plane: ControlPlane, space: str) -> "Follower":
        """List the pods, and watch from there."""
        url, self._session = f"{plane.server}/api/v1/namespaces/{space}/pods", session(plane)
        first = self._session.get(url, timeout=60).json()
        for pod in first["items"]:
            self._take("ADDED", pod)
        self.came.clear()
        threading.Thread(target=self._run, args=(url, first["metadata"]["resourceVersion"]), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop watching: later changes are the cleanup."""
        self._stopped = True

    def _run(self, url: str, version: str) -> None:
        while not self._stopped:
            for event in watch_events(self._session, url, version=version, seconds=60):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK" and not self._stopped:
                    self._take(event["type"], event["object"])

    def _take(self, kind: str, pod: dict[str, Any]) -> None:
        meta, node = pod["metadata"], pod["spec"].get("nodeName", "")
        uid, app = meta["uid"], meta["labels"]["app"]
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or ())
        before = len(self._serving[app])
        if kind == "DELETED" or "deletionTimestamp" in meta or not ready:
            self._serving[app].discard(uid)
        else:
            self._serving[app].add(uid)
        self.dips += len(self._serving[app]) < min(before, self.wanted[app])
        if kind == "DELETED":
            self.left += [self._pods.pop(uid)] if uid in self._pods else []
            self.last = time.monotonic()
        elif node and uid not in self._pods:
            self._pods[uid] = (app, node)
            self.came.append((app, node))
            self.back += (app, node) in self.left
            self.last = time.monotonic()

    def curve(self, apps: Sequence[App], sizes: Sizes) -> list[float]:
        """Return the deviation after each move: a pod that left, and the next pod of its app that came."""
        by_name = {app.name: app for app in apps}
        at = Counter((app.name, node) for app in apps for node in app.nodes)
        comes: dict[str, list[str]] = defaultdict(list)
        for app, node in reversed(self.came):
            comes[app].append(node)
        found = [deviation(sizes, [(by_name[app], node) for app, node in at.elements()])]
        for app, node in self.left:
            if comes[app]:
                at[app, node] -= 1
                at[app, comes[app].pop()] += 1
                found.append(deviation(sizes, [(by_name[app], where) for app, where in at.elements()]))
        return found


def rebalances() -> dict[str, Any]:
    """Measure both sides on the same pools, one after the other."""
    binaries.ensure(["descheduler"])
    with ControlPlane.start(audit=True, open_limits=True, node_monitor_grace_period="50s") as plane:
        identity, observer = install(plane), Observer(plane.kubeconfig)
        pools = {f"pool{n}": _nodes(plane, f"pool{n}", Random(n)) for n in range(POOLS)}
        apps = {
            pool: unbalanced_cluster.fill(n, sizes, 0.5 + 0.05 * (n % 3))
            for n, (pool, sizes) in enumerate(pools.items())
        }

        def descheduler() -> None:
            for pool in pools:
                _deschedule(plane, observer, pool)

        def operator() -> None:
            for pool in pools:
                nodes = {"matchLabels": {"bench": pool}}
                bounds = {"enabled": True, "high": f"{HIGH}%", "low": f"{LOW}%"}
                plane.apply(workloads.policy(pool, nodeSelector=nodes, rebalance=bounds))

        theirs = _side(plane, observer, "descheduler", pools, apps, _ADMIN, descheduler, quiet=5)
        with Operator(identity, plane.workdir / "operator.log") as process:
            until(lambda: "leader.working" in process.log.read_text(), "the operator to lead")
            ours = _side(plane, observer, "rescheduler", pools, apps, OPERATOR, operator, quiet=_QUIET)
    return {"rebalance": {pool: _compare(ours[pool], theirs[pool]) for pool in pools}}


def _nodes(plane: ControlPlane, pool: str, random: Random) -> Sizes:
    sizes: dict[str, tuple[int, int]] = {}
    for number in range(NODES):
        times, prefix = random.choice((1, 1, 2)), f"{pool}-{number}-"
        labels = {"bench": pool}
        (name,) = plane.add_nodes(1, prefix=prefix, labels=labels, cpu=str(8 * times), memory=f"{32 * times}Gi")
        sizes[name] = (8000 * times, 32 * 1024 * times)
    return sizes


def _side(
    plane: ControlPlane,
    observer: Observer,
    side: str,
    pools: Mapping[str, Sizes],
    apps: Mapping[str, Sequence[App]],
    user: str,
    act: Callable[[], None],
    *,
    quiet: float,
) -> dict[str, dict[str, Any]]:
    """Measure one side on all pools; return its result for each pool."""
    say(f"rebalancing {POOLS} pools: {side}")
    followers = {}
    for pool in pools:
        plane.apply(workloads.namespace(pool))
        unbalanced_cluster.create(plane, observer, pool, apps[pool], {"bench": pool}, ready_after=_READY_AFTER)
        wanted = {app.name: len(app.nodes) for app in apps[pool]}
        followers[pool] = Follower(wanted).start(plane, pool)
    began = time.monotonic()
    act()
    _wait(followers.values(), quiet, began + _LONGEST)
    evictions = _evictions(plane, user)
    results = {}
    for pool, follower in followers.items():
        follower.stop()
        curve = follower.curve(apps[pool], pools[pool])
        results[pool] = {"evictions": evictions[pool], "dips": follower.dips, "back": follower.back, "curve": curve}
        say(f"{side}, {pool}: {curve[0]:.3f} -> {curve[-1]:.3f}, {evictions[pool]} evictions, {follower.dips} dips")
    for pool in pools:
        plane.kubectl("delete", "namespace", pool, "--wait=false")
    until(lambda: not any(observer.pods(pool) for pool in pools), "the pools to be empty", seconds=180, every=1)
    gone = set(pools)
    until(
        lambda: not gone & {item["metadata"]["name"] for item in plane.get("namespaces")["items"]},
        "the namespaces to be gone",
        seconds=180,
        every=1,
    )
    return results


def _wait(followers: Any, quiet: float, deadline: float) -> None:
    """Wait until no pod has come or gone for `quiet` seconds."""
    rows = list(followers)
    while time.monotonic() - max(follower.last for follower in rows) < quiet:
        if time.monotonic() > deadline:
            raise TimeoutError("pods still move after an hour")
        time.sleep(1)


def _evictions(plane: ControlPlane, user: str) -> Counter[str]:
    """Return accepted evictions by namespace, without dry runs."""
    found: Counter[str] = Counter()
    for event in audit(plane, user):
        reference = event.get("objectRef", {})
        real = reference.get("subresource") == "eviction" and "dryRun" not in event["requestURI"]
        if real and event["responseStatus"]["code"] == 201:
            found[reference["namespace"]] += 1
    return found


def _deschedule(plane: ControlPlane, observer: Observer, pool: str) -> None:
    """Run the descheduler on one pool until a run evicts nothing; its nodeFit skips pods that fit nowhere."""
    thresholds = {"thresholds": {"cpu": LOW, "memory": LOW}, "targetThresholds": {"cpu": HIGH, "memory": HIGH}}
    profile = {
        "name": "bench",
        "pluginConfig": [
            {"name": "DefaultEvictor", "args": {"nodeFit": True}},
            {"name": "LowNodeUtilization", "args": thresholds},
        ],
        "plugins": {"balance": {"enabled": ["LowNodeUtilization"]}},
    }
    body = {"apiVersion": "descheduler/v1alpha2", "kind": "DeschedulerPolicy", "nodeSelector": f"bench={pool}"}
    config = plane.workdir / f"descheduler-{pool}.yaml"
    config.write_text(yaml.safe_dump({**body, "profiles": [profile]}))
    command = [str(binaries.path("descheduler")), "--kubeconfig", str(plane.kubeconfig)]
    command += ["--policy-config-file", str(config), "--disable-metrics", "--secure-port", "0", "--v", "1"]
    before = -1
    while (now := _evictions(plane, _ADMIN)[pool]) != before:
        before = now
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if result.returncode:
            raise RuntimeError(f"the descheduler failed:\n{result.stderr[-2000:]}")
        until(lambda: _all_ready(observer, pool), f"the pods of {pool} to be Ready", seconds=60, every=0.2)


def _all_ready(observer: Observer, space: str) -> bool:
    pods = observer.pods(space)
    return all(
        "deletionTimestamp" not in pod["metadata"]
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or ())
        for pod in pods
    )


def _compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Compare both sides, and the moves of each to the deviation that both reached."""
    both = max(min(ours["curve"]), min(theirs["curve"])) + 1e-9

    def moves(side: dict[str, Any]) -> int:
        return next(number for number, value in enumerate(side["curve"]) if value <= both)

    return {
        "before": ours["curve"][0],
        "rescheduler": ours,
        "descheduler": theirs,
        "to the same deviation": {"deviation": both, "rescheduler": moves(ours), "descheduler": moves(theirs)},
    }
