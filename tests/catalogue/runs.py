"""Run one entry in one way, and measure it."""

import itertools
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import requests

from catalogue import measures, neighbours
from catalogue.cluster import RESCHEDULER, Cluster
from catalogue.comparison import REPLACEMENT_TIMEOUT, Result
from catalogue.entries import Entry, Way, load, merged, runs_once, wanted
from catalogue.measures import owner_of
from catalogue.peer import Peer
from catalogue.recorder import Recorder
from harness import ControlPlane, binaries, workloads
from harness.min_ready import ready
from rescheduler.api.names import MAINTENANCE

_SETTLED = 2  # seconds that the pods are still watched after the end
_FLAGS = ("--ignore-daemonsets", "--delete-emptydir-data", "--force")
_SHORT = 160  # characters of a message in the table


def run_all(
    plane: ControlPlane,
    chosen: Sequence[str],
    at_once: int,
    say: Callable[[str, Way, Result], None] = lambda *_: None,
    peer: Peer | None = None,
) -> dict[str, dict[Way, Result]]:
    """Return results of entries: several ways run side by side, and after them those that must be alone.

    With `peer`, each entry runs in a fourth way.
    """
    ways = [way for way in Way if peer or way is not Way.PEER]
    alone = [name for name in chosen if load(name).alone]
    together = [name for name in chosen if name not in alone]
    found: dict[tuple[str, Way], Result] = {}

    def one(name: str, way: Way) -> None:
        found[name, way] = run(plane, name, way, peer)
        say(name, way, found[name, way])

    for group, workers in ((together, at_once), (alone, 1)):
        with ThreadPoolExecutor(workers) as pool:
            for future in [pool.submit(one, name, way) for name in group for way in ways]:
                future.result()
    return {name: {way: found[name, way] for way in ways} for name in chosen}


def run(plane: ControlPlane, name: str, way: Way, peer: Peer | None = None) -> Result:
    """Return the result of an entry; an error of its setup is a result, too."""
    space = f"{name}-{way}"
    entry = load(name, space)
    cluster = Cluster(plane, space, entry.nodes)
    try:
        with _prepared(cluster, entry, way) as recorder:
            return _drain(cluster, entry, recorder, _tool(way, peer))
    except Exception as error:  # noqa: BLE001 - one broken entry must not end the others
        return Result(trouble=f"{type(error).__name__}: {error}")
    finally:
        with suppress(requests.RequestException):
            cluster.remove()


@contextmanager
def _prepared(cluster: Cluster, entry: Entry, way: Way) -> Iterator[Recorder]:
    """Create everything of the entry, and record its pods."""
    cluster.create(*([_policy(entry, cluster.space, way)] if way in (Way.DEFAULT, Way.NEVER) else []))
    objects = entry.built(entry.objects, cluster.space)
    early = [each for each in entry.neighbours if each["name"] in neighbours.EARLY]
    with ExitStack() as stack:
        with _placed(cluster, entry):
            for each in early:
                stack.enter_context(neighbours.start(cluster, each))
            cluster.plane.apply(*objects)
            _settle(cluster, entry, objects)
        cluster.plane.apply(*entry.built(entry.then, cluster.space))
        for command in entry.commands:
            cluster.plane.kubectl("-n", cluster.space, *command.split())
        _await_counts(cluster)
        for each in entry.neighbours:
            if each not in early:
                stack.enter_context(neighbours.start(cluster, each))
        once = {
            made["metadata"]["name"]: wanted(made, 0)
            for made in objects
            if runs_once(made) or made["metadata"]["name"] in entry.once
        }
        yield stack.enter_context(Recorder(cluster.plane, cluster.space, once))


@contextmanager
def _placed(cluster: Cluster, entry: Entry) -> Iterator[None]:
    """Keep new pods on the first node, unless they may start anywhere."""
    others = [] if entry.anywhere else cluster.nodes[1:]
    for node in others:
        cluster.patch_node(node, {"spec": {"unschedulable": True}})
    yield
    for node in others:
        cluster.patch_node(node, {"spec": {"unschedulable": None}})


def _settle(cluster: Cluster, entry: Entry, objects: list[dict[str, Any]]) -> None:
    """Wait until all pods run, and are Ready if they can be."""
    owned = sum(int(each.get("replicas", 0)) for each in entry.neighbours)
    cluster.settle(entry.name, owned + sum(wanted(made, len(cluster.nodes)) for made in objects))
    for pod in cluster.pods():
        if owner_of(pod) in entry.serve:
            cluster.set_ready(pod)


def _policy(entry: Entry, space: str, way: Way) -> dict[str, Any]:
    """Return the defaults, with a time limit for replacements that a catalogue can wait for."""
    spec: dict[str, Any] = {
        "nodeSelector": {"matchLabels": {"site": space}},
        "maintenance": {"maxUnavailable": "100%"},
        "drain": {"replacementTimeout": f"{REPLACEMENT_TIMEOUT}s"},
    }
    spec = merged(spec, entry.policy)
    if way is Way.NEVER:
        spec = merged(spec, {"drain": {"replacement": "Never"}})
    return workloads.policy(space, **spec)


def _await_counts(cluster: Cluster) -> None:
    """Wait until budgets and quotas are counted; the count of a broken budget never comes."""
    budgets, quotas = (
        f"/apis/policy/v1/namespaces/{cluster.space}/poddisruptionbudgets",
        f"/api/v1/namespaces/{cluster.space}/resourcequotas",
    )

    def counted() -> bool:
        pods = [pod for pod in cluster.pods() if ready(pod)]
        for budget in cluster.get(budgets)["items"]:
            status, covers = budget.get("status", {}), measures.Budget.parse(budget).covers
            if status.get("observedGeneration") != budget["metadata"]["generation"]:
                return False
            if status.get("currentHealthy") != sum(map(covers, pods)):
                return False
        return all("used" in quota.get("status", {}) for quota in cluster.get(quotas)["items"])

    deadline = time.monotonic() + 10
    while not counted() and time.monotonic() < deadline:
        time.sleep(0.2)


Outcome = tuple[bool, float, dict[str, set[str]], tuple[str, ...]]
"""Whether the tool reported the end, seconds, classes of blockers by owner, and messages."""
Tool = Callable[[Cluster, Entry, Recorder, list[str], float], Outcome]
"""Drains the nodes of an entry; the last argument is the monotonic time of the start."""


def _tool(way: Way, peer: Peer | None) -> Tool:
    if way is Way.PEER and peer:
        return partial(_by_peer, peer)
    return _by_kubectl if way is Way.KUBECTL else _by_rescheduler


def _drain(cluster: Cluster, entry: Entry, recorder: Recorder, drain: Tool) -> Result:
    drained = cluster.nodes[: entry.drain]
    first = {p["metadata"]["uid"]: owner_of(p) for p in _to_leave(recorder, drained)}
    began = time.monotonic()
    done, seconds, classes, messages = drain(cluster, entry, recorder, drained, began)
    time.sleep(_SETTLED)
    there = _to_leave(recorder, drained)
    left = sorted({owner_of(p) for p in there} - set(entry.stays))
    uids = {p["metadata"]["uid"] for p in there}
    if done and left:
        messages = (*messages, f"reported the end, but the node still has pods of {', '.join(left)}")
    tally = recorder.tally
    return Result(
        finished=done and not left,
        seconds=round(seconds, 1),
        least=dict(sorted(tally.least.items())),
        start=dict(sorted(tally.start.items())),
        past_budget=tally.past_budget,
        twice=sum(count for count in tally.twice.values() if count > 0),
        moved=tuple(sorted(set(first.values()) - {owner for uid, owner in first.items() if uid in uids})),
        left=tuple(left),
        classes={owner: tuple(sorted(found)) for owner, found in sorted(classes.items())},
        unexplained=tuple(owner for owner in left if owner not in classes),
        reported=messages,
    )


def _to_leave(recorder: Recorder, drained: list[str]) -> list[measures.Pod]:
    """Return the pods on the drained nodes that a drain must move."""
    return [p for p in recorder.pods() if p["spec"].get("nodeName") in drained and not measures.stays(p)]


def _by_kubectl(cluster: Cluster, entry: Entry, recorder: Recorder, drained: list[str], began: float) -> Outcome:
    """Drain as people do it; kubectl gives up at the time limit."""
    command = [str(binaries.path("kubectl")), "--kubeconfig", str(cluster.plane.kubeconfig), "drain", *drained]
    command += [*_FLAGS, f"--timeout={entry.seconds}s"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=entry.seconds + 60)
    seconds = time.monotonic() - began
    errors = [line for line in result.stderr.splitlines() if line.startswith("error when")]
    said = [
        _short(re.sub(r"^error when .*? -n \S+( \(will retry after \w+\))?: ", "", line), recorder) for line in errors
    ]
    kept = [words for words in dict.fromkeys(said) if "global timeout" not in words]
    return not result.returncode, seconds, {}, tuple(kept[:3])


def _by_peer(
    peer: Peer, cluster: Cluster, entry: Entry, recorder: Recorder, drained: list[str], began: float
) -> Outcome:
    """Drain with the other tool; it is stopped at the time limit."""
    done, errors = peer.drain(drained, entry.seconds)
    return done, time.monotonic() - began, {}, tuple(_short(line, recorder) for line in errors)


def _by_rescheduler(cluster: Cluster, entry: Entry, recorder: Recorder, drained: list[str], began: float) -> Outcome:
    """Request maintenance, and collect blockers until the end or the time limit."""
    for node in drained:
        cluster.patch_node(node, {"metadata": {"annotations": {MAINTENANCE: "catalogue"}}})
    classes: dict[str, set[str]] = {}
    statuses: list[dict[str, Any]] = []
    for _ in itertools.count():
        statuses = [_status(cluster, node) for node in drained]
        for blocker in (b for status in statuses for b in status.get("blockers") or ()):
            classes.setdefault(recorder.owners.get(blocker["pod"], blocker["pod"]), set()).add(blocker["class"])
        seconds = time.monotonic() - began
        if all(status.get("phase") == "Drained" for status in statuses):
            return True, seconds, classes, ()
        if seconds > entry.seconds:
            break
        time.sleep(0.25)
    last = [b for status in statuses for b in status.get("blockers") or ()]
    said = [f"{b['class']}: {_short(b['message'], recorder)}" for b in last]
    current = {recorder.owners.get(b["pod"], b["pod"]) for b in last}
    named = {owner: found for owner, found in classes.items() if owner in current}
    return False, seconds, named, tuple(dict.fromkeys(said))[:4]


def _status(cluster: Cluster, node: str) -> dict[str, Any]:
    try:
        return dict(cluster.get(f"{RESCHEDULER}/nodedrains/{node}").get("status") or {})
    except requests.HTTPError:
        return {}


def _short(message: str, recorder: Recorder) -> str:
    """Return a message of bounded length, with owners in place of generated pod names."""
    for pod, owner in sorted(recorder.owners.items(), key=lambda item: -len(item[0])):
        message = message.replace(pod, f"{owner}-…" if owner and pod != owner else pod)
    return message if len(message) <= _SHORT else f"{message[:_SHORT]}…"
