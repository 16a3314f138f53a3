"""Hostile or careless values that tenants, kubelets and people write, each from a seed.

All of them pass the validation of the API server; nobody can write anything else.
"""

import json
import random
from collections.abc import Callable
from typing import Any

from harness import workloads
from invariants.objects import MOVE, annotations, labels, name, uid
from rescheduler.core.model.raw import RawObject
from simulation.clusters import SPACE, Cluster
from simulation.controllers import reference

_GROUP = "rescheduler.dev"
_TIMES = (
    *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00Z"),
    *("2026-01-05T10:00:00", "2026-01-05T10:00:00+23:59", "yesterday", "", "2262-04-12T00:00:00Z"),
)
_STAMPS = ("0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1970-01-01T00:00:00Z")
"""Strings that the API server parses as times: Go's parser, to the second."""
GRACES = (0, 1, 10**9, 10**14, 2**63 - 1)
_DEEP = 20_000
_DURATIONS = ("forever", "99999h99999h", "1e999h", "-1h", "", "0", "true ", "TRUE", "106751991167300d")


def text(chance: random.Random) -> str:
    """Return any string that an annotation may have."""
    return chance.choice(
        (
            *(
                "",
                " ",
                "true",
                "false",
                "null",
                "0",
                "-1",
                "1e999",
                "NaN",
                "{}",
                "[]",
                '{"',
                "\x7f\u202e\U0001f4a3",
                "../../x",
            ),
            "[" * _DEEP,
            '{"a":' * _DEEP,
            "x" * 200_000,
            json.dumps(value(chance)),
        )
    )


def value(chance: random.Random, depth: int = 3) -> Any:
    """Return any JSON."""
    simple = (None, True, False, 0, -1, 2**63, 1e308, float("inf"), "", "x", chance.choice(_TIMES), "1e999")
    match chance.randrange(4) if depth else 0:
        case 1:
            return [value(chance, depth - 1) for _ in range(chance.randrange(3))]
        case 2:
            keys = chance.sample(("Maintenance", "Failure", "nodeUID", "bootID", "time", "x", ""), 3)
            return {key: value(chance, depth - 1) for key in keys}
    return chance.choice(simple)


def move(chance: random.Random, above: RawObject, below: RawObject, now: str) -> str:
    """Return a forged record of a move between these owners: correct, wrong in one value, or nonsense."""
    found: dict[str, Any] = {
        "cause": chance.choice(("NodeDrain/n1", "NodeDrain/n2", "NamespacePool/x", "", 7)),
        "hash": chance.choice(("web1", "!", "", 5)),
        "cost": chance.choice((None, "0", "x", 5, {})),
        "ready": chance.choice((0, 1, 3, -5, 10**20, "x", "1e999", None, [])),
        "since": chance.choice((*_TIMES, now)),
        "attempt": chance.choice((1, 0, -1, 2**63, "x", None)),
        "deployment": name(above),
        "deploymentUID": chance.choice((uid(above), "", "u", 5)),
        "replicaSet": name(below),
        "replicaSetUID": chance.choice((uid(below), "", "v", None)),
    }
    if chance.random() < 0.5:  # like a record of the operator
        found |= {"cause": "NodeDrain/n1", "hash": "web1", "cost": None, "ready": 1, "since": now}
        found |= {"attempt": 1, "deploymentUID": uid(above), "replicaSetUID": uid(below)}
    return chance.choice((json.dumps(found), json.dumps(found).replace('"1e999"', "1e999"), text(chance)))


def condition(chance: random.Random) -> RawObject:
    """Return a condition of a node or a pod."""
    types = ("Odd", "DiskPressure", "KernelDeadlock", "x" * 300, "Maintenance", "PodScheduled2", "example.com/x")
    found = {"type": chance.choice(types), "status": chance.choice(("True", "False", "Unknown", "?", ""))}
    times = ("lastTransitionTime", "lastHeartbeatTime", "lastProbeTime")
    found |= {key: chance.choice(_STAMPS) for key in times if chance.random() < 0.7}
    return found | ({"reason": "x", "message": text(chance)[:1000]} if chance.random() < 0.5 else {})


def on_pod(chance: random.Random, above: list[RawObject], below: list[RawObject], now: str) -> dict[str, str]:
    """Return annotations of the operator's group on a pod.

    `above`, `below`: Deployments and ReplicaSets, one of which an annotation may name.
    """
    found = {
        MOVE: move(chance, chance.choice(above), chance.choice(below), now),
        f"{_GROUP}/do-not-disrupt": chance.choice((*_DURATIONS, text(chance))),
        f"{_GROUP}/replacement": chance.choice(("never", "REQUIRED", "Sometimes", text(chance))),
        "controller.kubernetes.io/pod-deletion-cost": chance.choice(("-2147483648", "0", "2147483647")),
    }
    picked = {key: found[key] for key in chance.sample(sorted(found), chance.randint(1, 3))}
    return picked | ({MOVE: found[MOVE]} if chance.random() < 0.5 else {})


def on_node(chance: random.Random) -> dict[str, str]:
    """Return annotations of the operator and of others on a Node."""
    keys = (
        *(f"{_GROUP}/{word}" for word in ("maintenance", "cancelled", "fenced", "move", "pool", "x")),
        *("cluster.x-k8s.io/machine", "cluster.x-k8s.io/cluster-namespace", "karpenter.sh/do-not-disrupt"),
    )
    return {key: text(chance) for key in chance.sample(keys, chance.randint(1, 4))}


def taint(chance: random.Random) -> RawObject:
    """Return a taint of an unknown author."""
    keys = ("odd", "example.com/odd", f"{_GROUP}/odd", "x" * 60)
    found = {"key": chance.choice(keys), "effect": chance.choice(("PreferNoSchedule", "NoSchedule"))}
    found |= {"value": chance.choice(("", "true", "-"))} if chance.random() < 0.5 else {}
    return found | ({"timeAdded": chance.choice(_STAMPS)} if chance.random() < 0.5 else {})


def objects(chance: random.Random) -> list[RawObject]:
    """Return workloads of tenants that copy annotations from other pods, or experiment."""
    record = {"cause": "NodeDrain/n1", "hash": "h", "ready": 1, "since": "2026-01-01T00:00:00+00:00"}
    record |= {"deployment": "d", "deploymentUID": "u", "replicaSet": "r", "replicaSetUID": "v"}
    copied = json.dumps(record)
    moves = (copied, copied.replace('"ready": 1', '"ready": 1e999'), "[" * _DEEP, copied.replace("+00:00", ""))

    def given() -> dict[str, str]:
        return {MOVE: chance.choice(moves), f"{_GROUP}/do-not-disrupt": chance.choice(_DURATIONS)}

    forged = workloads.bare_pod("forged", SPACE, annotations=given())
    every = [
        workloads.deployment("odd", 2, SPACE, grace=chance.choice(GRACES), annotations=given()),
        # Without any grace period Kubernetes itself starts a second pod while the first runs.
        workloads.stateful_set("odd-db", 1, SPACE, grace=chance.choice(GRACES[1:]), annotations=given()),
        forged,
    ]
    return [each for each in every if chance.random() < 0.4]


def impostor(chance: random.Random, cluster: Cluster, app: str) -> RawObject | None:
    """Create a bare pod whose controller is a Deployment that never made it."""
    above = cluster.server.find("deployments", app, SPACE)
    if above is None:
        return None
    made = workloads.bare_pod(f"impostor-{chance.getrandbits(20)}", SPACE)
    other = {"metadata": {"name": app, "uid": "another"}}
    record = move(chance, other, other, cluster.now().isoformat())
    made["metadata"] |= {"labels": {"app": app}, "ownerReferences": [reference("Deployment", above)]}
    made["metadata"]["annotations"] = {MOVE: record} if chance.random() < 0.7 else {}
    return cluster.server.make("pods", made, user="human")


def scribble_on_pods(chance: random.Random, cluster: Cluster) -> Callable[[], None]:
    """Write on some pods; return a function that removes it."""
    pods = cluster.server.all("pods", SPACE)
    wipes = [_scribble(chance, cluster, pod) for pod in chance.sample(pods, min(len(pods), chance.randint(1, 6)))]

    def wipe() -> None:
        for each in wipes:
            each()

    return wipe


def _scribble(chance: random.Random, cluster: Cluster, pod: RawObject) -> Callable[[], None]:
    server = cluster.server
    words = on_pod(chance, server.all("deployments"), server.all("replicasets"), cluster.now().isoformat())
    entry = condition(chance)
    before = {key: annotations(pod).get(key) for key in words}

    def write(raw: RawObject) -> None:
        # Admission lets nobody else change the record of a released pod.
        kept = {MOVE} if workloads.is_released(raw) else set()
        written = {key: word for key, word in words.items() if key not in kept}
        raw["metadata"]["annotations"] = {**annotations(raw), **written}
        raw["status"].setdefault("conditions", []).append(entry)

    def wipe(raw: RawObject) -> None:
        # Admission lets nobody else remove a record that the operator has written meanwhile.
        mine = {key: before[key] for key in words if annotations(raw).get(key) == words[key]}
        found = {**annotations(raw), **mine}
        raw["metadata"]["annotations"] = {key: word for key, word in found.items() if word is not None}
        raw["status"]["conditions"] = [c for c in raw["status"]["conditions"] if c["type"] != entry["type"]]

    cluster.server.edit("pods", pod, write, user="human")

    def undo() -> None:
        cluster.server.edit("pods", pod, wipe, user="human")

    return undo


def scribble_on_node(chance: random.Random, cluster: Cluster, node: str) -> Callable[[], None]:
    """Write on a Node; return a function that removes it."""
    words, entry, mark = on_node(chance), condition(chance), taint(chance)
    before = cluster.server.find("nodes", node) or {"metadata": {}}
    words = {key: value for key, value in words.items() if key not in annotations(before)}
    label = {"example.com/odd": "x", f"{_GROUP}/odd": "y"} if chance.random() < 0.5 else {}
    size = {"cpu": chance.choice(("64", "1n", "999999999999Gi", "1e18")), "example.com/odd": "-1"}

    def write(raw: RawObject) -> None:
        raw["metadata"]["annotations"] = {**annotations(raw), **words}
        raw["metadata"]["labels"] = {**labels(raw), **label}
        raw["status"]["conditions"].append(entry)
        raw["spec"]["taints"] = [*(raw["spec"].get("taints") or ()), mark]
        if chance.random() < 0.3:
            raw["status"]["allocatable"] |= size

    def wipe(raw: RawObject) -> None:
        raw["metadata"]["annotations"] = {k: v for k, v in annotations(raw).items() if k not in words}
        raw["metadata"]["labels"] = {k: v for k, v in labels(raw).items() if k not in label}
        raw["status"]["conditions"] = [c for c in raw["status"]["conditions"] if c["type"] != entry["type"]]
        raw["spec"]["taints"] = [t for t in raw["spec"].get("taints") or () if t["key"] != mark["key"]]
        raw["status"]["allocatable"] = dict(cluster.sizes[node])

    cluster.edit_node(node, write)
    return lambda: cluster.edit_node(node, wipe)
