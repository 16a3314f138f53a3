"""Hostile or mistaken values of other clients: plain lists to choose from, and Hypothesis strategies.

`mutated` puts any JSON at any place: no API server accepts that for built-in kinds, but other kinds have no such
promise. `forged` keeps each type and changes the values: a client that may write an object or its status can store it.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

Json = Any
Path = tuple[str | int, ...]

DEEP = "[" * 60_000
TIMES = (
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "1969-12-31T23:59:59Z",
    "1970-01-01T00:00:00Z",
    "2026-01-01T00:00:00",
    "2026-01-01",
    "2026-06-30T23:59:60Z",
    "2026-01-01T00:00:00.123456789Z",
    "2026-01-01T00:00:00+99:99",
    "2199-12-31T23:59:59Z",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:59",
    "10000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z",
    "now",
    "",
)
QUANTITIES = (
    *("0", "-1", "1e999999", "1E+400", "1e-400", "-9E", "9223372036854775807", "9223372036854775808", "8Ei", "1n"),
    *("", "Gi", "nan", "Infinity", "0x10", "1_000", "1e", "1" * 5000, "NaNm", ".5", "5."),
)
INTEGERS = (-(2**63), -(2**31), -1, 0, 1, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1)
TEXTS = (
    *(
        "",
        " ",
        "false",
        "true",
        "null",
        "0",
        "-1",
        "requird",
        "5 hours",
        "99999h99999h",
        "1h" * 100,
        "100%",
        "999999999999%",
    ),
    *("{}", "[]", "[1]", '"x"', "NaN", "Infinity", "1e999", "-0", "1" * 5000, '{"a":1,"a":2}', '{"a":', "{'a': 1}"),
    *(
        '{"Maintenance":{"x":1}}',
        '{"Maintenance":null,"Failure":"x","Manual":5}',
        '{"Nonsense":"x"}',
        '{"Failure":"\\ud800"}',
    ),
    *('{"ready":1e999}', '{"ready":Infinity}', '{"since":"2026-01-01T00:00:00"}'),
    *("n1/../../secrets", "../x", "a/b/c", "a%2fb", "a b", "a\nb", "a\x00b", "\u202e", "💥", "ﬀ" * 70, "٣h", "x" * 254),
    *(
        '{"nodeUID":"u","bootID":"b","method":"m","time":"9999-12-31T23:59:59-23:59"}',
        "rescheduler-released",
        "<no value>",
    ),
    DEEP,
    '{"a":' * 20_000,
    "x" * 200_000,
    '{"Maintenance":"' + "x" * 200_000 + '"}',
)
MOVE = (
    '{"cause":"NodeDrain/n1","ready":%s,"since":"%s","attempt":%s,'
    '"deployment":"web","deploymentUID":"%s","replicaSet":"web-h","replicaSetUID":"%s"}'
)
MOVES = tuple(
    MOVE % values
    for values in (
        ("1", "2026-01-01T00:00:00+00:00", "1", "uid-web", "uid-web-h"),
        ("1e999", "2026-01-01T00:00:00+00:00", "1", "d", "r"),
        ("Infinity", "2026-01-01T00:00:00+00:00", "NaN", "d", "r"),
        ("1", "2026-01-01T00:00:00", "1", "d", "r"),
        ("1", "9999-12-31T23:59:59+00:00", "1", "d", "r"),
        ("-5", "0001-01-01T00:00:00+23:00", "-1", "d", "r"),
        ("1", "2026-01-01T00:00:00+00:00", "1", "", ""),
        ("9" * 400, "2026-01-01T00:00:00+00:00", "9" * 400, "d", "r"),
        ('"1"', "2026-01-01T00:00:00+00:00", "[]", "d", "r"),
        ("true", "2026-01-01T00:00:00+00:00", "null", "d", "r"),
    )
)


_GONE = object()
ANYTHING: tuple[Json, ...] = (
    *(_GONE, None, True, False, 0, -1, 2**63, 10**400, 1.5, float("inf"), float("nan"), "", "x"),
    *([], [None], ["x"], [[]], [{}], [5], {}, {"x": None}, {"x": "y"}, {"key": []}, {"matchLabels": 5}, {"name": {}}),
)
"""One JSON value of each kind."""


# -- strategies -------------------------------------------------------------------------------------------------------


def texts() -> st.SearchStrategy[str]:
    """Any text, short or long, parseable or not."""
    known = st.sampled_from((*TEXTS, *TIMES, *QUANTITIES, *MOVES))
    return st.one_of(known, st.text(st.characters(codec="utf-8"), max_size=30))


def times() -> st.SearchStrategy[str]:
    """RFC 3339 times as Go parses them, and times that do not parse."""
    return st.sampled_from(TIMES)


def quantities() -> st.SearchStrategy[str]:
    """Quantities of all sizes, and strings that are no quantities."""
    return st.sampled_from(QUANTITIES)


def integers() -> st.SearchStrategy[int]:
    """Any number of 64 bits."""
    return st.one_of(st.sampled_from(INTEGERS), st.integers(-(2**63), 2**63 - 1))


def json_values() -> st.SearchStrategy[Json]:
    """Any JSON."""
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        integers(),
        st.sampled_from((1e308, float("inf"), float("nan"), -0.0, 10**400)),
        texts(),
    )
    keys = st.one_of(st.sampled_from(("name", "key", "matchLabels", "type")), st.text(max_size=5))
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
    )


def one_forged(valid: Json) -> Iterator[Json]:
    """Yield a copy of a valid object for each value in it and each hostile value of its type."""
    for path in _paths(valid):
        before = _get(valid, path)
        if not isinstance(before, dict | list) and not _fixed(path):
            for new in _pool(before):
                yield _with(valid, path, new)


def one_mutated(valid: Json) -> Iterator[Json]:
    """Yield a copy of a valid object for each part of it and each kind of JSON in its place, or nothing."""
    for path in _paths(valid):
        for new in ANYTHING if path else ANYTHING[1:]:
            yield _with(valid, path, new)


def mutated(valid: Json, most: int = 4) -> st.SearchStrategy[Json]:
    """Copies of a valid object with up to `most` of its parts replaced by any JSON, or left out."""
    paths = _paths(valid)

    @st.composite
    def draw(draw: st.DrawFn) -> Json:
        found = deepcopy(valid)
        for path in draw(st.lists(st.sampled_from(paths), min_size=1, max_size=most)):
            found = _set(found, path, _GONE if draw(st.booleans()) else draw(json_values()))
        return found

    return draw()


def forged(valid: Json, most: int = 6) -> st.SearchStrategy[Json]:
    """Copies of a valid object with up to `most` of its values replaced by hostile ones of the same type."""
    leaves = [path for path in _paths(valid) if not isinstance(_get(valid, path), dict | list) and not _fixed(path)]

    @st.composite
    def draw(draw: st.DrawFn) -> Json:
        found = deepcopy(valid)
        for path in draw(st.lists(st.sampled_from(leaves), min_size=1, max_size=most)):
            found = _set(found, path, draw(_alike(_get(valid, path))))
        return found

    return draw()


_IDENTITY = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation")
"""Only the API server writes these fields."""


def _fixed(path: Path) -> bool:
    return len(path) == 2 and path[0] == "metadata" and path[1] in _IDENTITY


def _pool(value: Json) -> tuple[Json, ...]:
    """Return hostile values of the same type."""
    if isinstance(value, bool):
        return (not value,)
    return INTEGERS if isinstance(value, int) else (*TEXTS, *TIMES, *QUANTITIES, *MOVES)


def _alike(value: Json) -> st.SearchStrategy[Json]:
    known = st.sampled_from(_pool(value))
    if isinstance(value, bool):
        return known
    return known | (integers() if isinstance(value, int) else texts())


def _paths(value: Json, at: Path = ()) -> list[Path]:
    """Return the paths of all parts of a value, the whole first."""
    inner: list[tuple[str | int, Json]] = []
    if isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [at, *(path for key, part in inner for path in _paths(part, (*at, key)))]


def _get(value: Json, path: Path) -> Json:
    for key in path:
        value = value[key]
    return value


def _set(value: Json, path: Path, new: Json) -> Json:
    """Return the value with a new part at this path; unchanged if an earlier change removed the path."""
    if not path:
        return value if new is _GONE else new
    parent = value
    for key in path[:-1]:
        if not _has(parent, key):
            return value
        parent = parent[key]
    if not _has(parent, path[-1]):
        return value
    if new is not _GONE:
        parent[path[-1]] = new
    elif isinstance(parent, dict):
        del parent[path[-1]]
    return value


def _with(value: Json, path: Path, new: Json) -> Json:
    """Return the value with a new part at this path, or without it; other parts are shared."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict):
        if not rest and new is _GONE:
            return {name: part for name, part in value.items() if name != key}
        return {name: _with(part, tuple(rest), new) if name == key else part for name, part in value.items()}
    if not rest and new is _GONE:
        return [part for at, part in enumerate(value) if at != key]
    return [_with(part, tuple(rest), new) if at == key else part for at, part in enumerate(value)]


def _has(parent: Json, key: str | int) -> bool:
    if isinstance(parent, dict):
        return key in parent
    return isinstance(parent, list) and isinstance(key, int) and key < len(parent)


# -- valid objects ----------------------------------------------------------------------------------------------------


def _meta(name: str, **more: Json) -> Json:
    meta = {
        "name": name,
        "namespace": "shop",
        "uid": f"uid-{name}",
        "resourceVersion": "7",
        "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return meta | more


def _owner(kind: str, name: str, version: str = "apps/v1") -> Json:
    return {"apiVersion": version, "kind": kind, "name": name, "uid": f"uid-{name}", "controller": True}


_SELECTOR = {
    "matchLabels": {"app": "web"},
    "matchExpressions": [
        {"key": "tier", "operator": "In", "values": ["a", "b"]},
        {"key": "app", "operator": "Exists"},
    ],
}
_NODE_TERMS = {
    "nodeSelectorTerms": [
        {
            "matchExpressions": [
                {"key": "disk", "operator": "In", "values": ["ssd"]},
                {"key": "cores", "operator": "Gt", "values": ["4"]},
            ],
            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}],
        }
    ]
}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_POD_TERM = {
    "labelSelector": _SELECTOR,
    "topologyKey": "kubernetes.io/hostname",
    "namespaces": ["shop"],
    "namespaceSelector": {"matchLabels": {"team": "a"}},
}
POD_SPEC: Json = {
    "nodeName": "n1",
    "nodeSelector": {"disk": "ssd"},
    "priority": 0,
    "priorityClassName": "high",
    "terminationGracePeriodSeconds": 30,
    "schedulerName": "default-scheduler",
    "hostNetwork": False,
    "affinity": {
        "nodeAffinity": {_REQUIRED: _NODE_TERMS},
        "podAffinity": {_REQUIRED: [_POD_TERM]},
        "podAntiAffinity": {_REQUIRED: [_POD_TERM]},
    },
    "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "a", "effect": "NoSchedule"}],
    "topologySpreadConstraints": [
        {
            "topologyKey": "topology.kubernetes.io/zone",
            "maxSkew": 1,
            "minDomains": 2,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": _SELECTOR,
            "matchLabelKeys": ["pod-template-hash"],
            "nodeAffinityPolicy": "Honor",
            "nodeTaintsPolicy": "Honor",
        }
    ],
    "containers": [
        {
            "name": "main",
            "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}},
            "ports": [{"hostPort": 80, "hostIP": "10.0.0.1", "protocol": "TCP"}],
            "volumeMounts": [{"name": "data"}],
        }
    ],
    "initContainers": [
        {"name": "first", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
        {"name": "second", "restartPolicyRules": [{"action": "Restart"}]},
    ],
    "overhead": {"cpu": "10m"},
    "resources": {"requests": {"memory": "2Gi"}},
    "volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "own", "ephemeral": {}},
    ],
}
POD: Json = {
    "metadata": _meta(
        "web-1",
        labels={"app": "web", "tier": "a", "pod-template-hash": "h", "rescheduler.dev/pool": "blue"},
        annotations={
            "rescheduler.dev/move": MOVES[0],
            "rescheduler.dev/do-not-disrupt": "1h",
            "karpenter.sh/do-not-disrupt": "1h",
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            "descheduler.alpha.kubernetes.io/prefer-no-eviction": "",
            "descheduler.alpha.kubernetes.io/request-evict-only": "",
            "rescheduler.dev/replacement": "Required",
            "controller.kubernetes.io/pod-deletion-cost": "5",
        },
        ownerReferences=[_owner("ReplicaSet", "web-h")],
        finalizers=["example.com/hold"],
    ),
    "spec": POD_SPEC,
    "status": {
        "phase": "Running",
        "startTime": "2026-01-01T00:00:00Z",
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},
        ],
        "containerStatuses": [
            {"name": "main", "allocatedResources": {"cpu": "1"}, "resources": {"requests": {"cpu": "2"}}}
        ],
    },
}
RELEASED_POD: Json = {**POD, "metadata": {**POD["metadata"], "ownerReferences": [_owner("Deployment", "web")]}}
DELETED_POD: Json = {**POD, "metadata": {**POD["metadata"], "deletionTimestamp": "2026-01-01T00:01:00Z"}}
NODE: Json = {
    "metadata": _meta(
        "n1",
        namespace="",
        labels={"disk": "ssd", "topology.kubernetes.io/zone": "a", "kubernetes.io/hostname": "n1"},
        annotations={
            "rescheduler.dev/maintenance": "swap disk",
            "rescheduler.dev/cancelled": '{"Maintenance":"swap disk"}',
            "rescheduler.dev/fenced": '{"nodeUID":"uid-n1","bootID":"boot","method":"off","time":"2026-01-01T00:10:00Z"}',
            "cluster.x-k8s.io/machine": "m1",
            "cluster.x-k8s.io/cluster-namespace": "capi",
            "karpenter.sh/do-not-disrupt": "true",
            "cluster-autoscaler.kubernetes.io/scale-down-disabled": "true",
        },
    ),
    "spec": {
        "unschedulable": False,
        "taints": [
            {"key": "dedicated", "value": "a", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"},
            {"key": "node.cloudprovider.kubernetes.io/shutdown", "effect": "NoSchedule"},
        ],
    },
    "status": {
        "nodeInfo": {"bootID": "boot"},
        "allocatable": {"cpu": "4", "memory": "16Gi", "pods": "110", "example.com/gpu": "2"},
        "conditions": [
            {
                "type": "Ready",
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "lastTransitionTime": "2026-01-01T00:05:00Z",
                "lastHeartbeatTime": "2026-01-01T00:04:00Z",
            },
            {
                "type": "KernelDeadlock",
                "status": "True",
                "reason": "DockerHung",
                "lastTransitionTime": "2026-01-01T00:05:00Z",
                "lastHeartbeatTime": "2026-01-01T00:06:00Z",
            },
        ],
    },
}
BUDGET: Json = {
    "metadata": _meta("web"),
    "spec": {"selector": _SELECTOR, "minAvailable": "50%", "unhealthyPodEvictionPolicy": "AlwaysAllow"},
    "status": {
        "disruptionsAllowed": 0,
        "currentHealthy": 2,
        "desiredHealthy": 2,
        "expectedPods": 3,
        "observedGeneration": 2,
    },
}
DEPLOYMENT: Json = {
    "metadata": _meta("web", annotations={"deployment.kubernetes.io/revision": "3"}),
    "spec": {
        "replicas": 3,
        "minReadySeconds": 5,
        "paused": False,
        "selector": _SELECTOR,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
    },
    "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3},
}
REPLICA_SET: Json = {
    "metadata": _meta(
        "web-h",
        labels={"pod-template-hash": "h"},
        annotations={"deployment.kubernetes.io/revision": "3"},
        ownerReferences=[_owner("Deployment", "web")],
    ),
    "spec": {
        "replicas": 3,
        "minReadySeconds": 5,
        "selector": _SELECTOR,
        "template": {"metadata": {"labels": {"app": "web", "pod-template-hash": "h"}}, "spec": POD_SPEC},
    },
    "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "quota"}]},
}
STATEFUL_SET: Json = {
    "metadata": _meta("db"),
    "spec": {"template": {"metadata": {"labels": {"app": "db"}}, "spec": POD_SPEC}},
    "status": {"currentRevision": "db-1", "updateRevision": "db-1"},
}
JOB: Json = {
    "metadata": _meta("job"),
    "spec": {"podReplacementPolicy": "Failed", "podFailurePolicy": {}, "managedBy": "kubernetes.io/job-controller"},
}
DAEMON_SET: Json = {"metadata": _meta("agent"), "spec": {"template": {"spec": POD_SPEC}}}
ADMISSION_BINDING: Json = {"metadata": _meta("binding"), "spec": {"policyName": "policy"}}
CLAIM: Json = {"metadata": _meta("data"), "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv"}}
VOLUME: Json = {
    "metadata": _meta("pv", labels={"topology.kubernetes.io/zone": "a__b"}),
    "spec": {"nodeAffinity": {"required": _NODE_TERMS}, "csi": {"driver": "csi.example.com"}},
}
ATTACHMENT: Json = {
    "metadata": _meta("va"),
    "spec": {"nodeName": "n1", "attacher": "csi.example.com", "source": {"persistentVolumeName": "pv"}},
}
DEVICE_CLASS: Json = {"metadata": _meta("gpu"), "spec": {"extendedResourceName": "example.com/gpu"}}
LEASE: Json = {
    "metadata": _meta("n1"),
    "spec": {"holderIdentity": "n1", "renewTime": "2026-01-01T00:00:00.000000Z", "leaseDurationSeconds": 40},
}
NAMESPACE: Json = {"metadata": _meta("shop", labels={"rescheduler.dev/pool": "blue", "team": "a"})}
MACHINE: Json = {"metadata": _meta("m1", annotations={"cluster.x-k8s.io/delete-machine": "yes"})}
USAGE: Json = {
    "metadata": {"name": "n1"},
    "timestamp": "2026-01-01T00:00:00Z",
    "usage": {"cpu": "100m", "memory": "1Gi"},
}
POLICY: Json = {
    "metadata": _meta("default"),
    "spec": {
        "nodeSelector": _SELECTOR,
        "priority": 5,
        "mode": "Enforce",
        "suspend": "None",
        "maintenance": {
            "enabled": True,
            "conditions": [{"type": "KernelDeadlock", "status": ["True"], "for": "5m"}],
            "maxConcurrent": 1,
            "maxUnavailable": "10%",
            "topologyKey": "topology.kubernetes.io/zone",
            "windows": [{"schedule": "0 22 * * SAT", "duration": "4h", "timeZone": "Europe/Berlin"}],
            "onWindowClose": "Pause",
        },
        "failure": {
            "enabled": True,
            "conditions": [{"type": "Ready", "status": ["Unknown"], "for": "60s"}],
            "startupGrace": "10m",
            "leaseTimeout": "20s",
            "recoverAfter": "2m",
            "flapping": {"changes": 3, "within": "15m"},
            "maxUnhealthy": "20%",
            "force": "WithProof",
        },
        "drain": {
            "replacement": "Preferred",
            "replacementTimeout": "5m",
            "timeout": "1h",
            "onTimeout": "Delete",
            "gracePeriodSeconds": 30,
            "gates": ["example.com/ok"],
            "maxEvictionsPerSecond": 20,
            "rules": [
                {
                    "namespaceSelector": _SELECTOR,
                    "podSelector": _SELECTOR,
                    "action": "Evict",
                    "order": 1,
                    "timeout": "4h",
                }
            ],
        },
        "rebalance": {"enabled": True, "high": "80%", "low": "50%"},
    },
}
POOL: Json = {
    "metadata": _meta("blue", labels={"rescheduler.dev/admission-skip": "true"}),
    "spec": {
        "namespaces": ["shop"],
        "namespaceSelector": _SELECTOR,
        "nodeSelector": _SELECTOR,
        "exclusive": True,
        "mode": "Enforce",
        "existingPods": "Move",
        "maxUnavailable": "20%",
    },
    "status": {"observedGeneration": 2, "nodes": 1},
}
DRAIN: Json = {
    "metadata": _meta(
        "n1",
        finalizers=["rescheduler.dev/restore"],
        annotations={"rescheduler.dev/stepped-back": "n2/uid-n2"},
        deletionTimestamp="2026-01-01T01:00:00Z",
    ),
    "spec": {
        "nodeName": "n1",
        "requests": [{"reason": "Maintenance", "message": "swap disk"}, {"reason": "Failure", "message": ""}],
        "drain": {"timeout": "2h", "gates": ["example.com/ok"], "gracePeriodSeconds": 60},
    },
    "status": {
        "observedGeneration": 2,
        "phase": "Draining",
        "reasons": "Maintenance",
        "node": {"uid": "uid-n1", "bootID": "boot", "cordonedByUs": True, "addedTaints": [{"key": "a", "effect": "b"}]},
        "policy": {"name": "default", "uid": "p", "generation": 1},
        "startedAt": "2026-01-01T00:00:00Z",
        "pausedAt": "2026-01-01T00:05:00Z",
        "pausedSeconds": 5,
        "estimatedCompletion": "2026-01-01T01:00:00Z",
        "progress": "1/2",
        "pods": {"total": 2, "moved": 1, "remaining": 1},
        "blockers": [
            {
                "namespace": "shop",
                "pod": "web-1",
                "class": "BudgetExhausted",
                "message": "no",
                "since": "2026-01-01T00:00:00Z",
                "pdb": "web",
                "healthy": 1,
                "needed": 1,
            }
        ],
        "conditions": [
            {"type": "example.com/ok", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {
                "type": "Progressing",
                "status": "False",
                "reason": "Window",
                "message": "w",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            },
        ],
    },
}
VALID: Mapping[str, Json] = {
    "pods": POD,
    "nodes": NODE,
    "poddisruptionbudgets": BUDGET,
    "deployments": DEPLOYMENT,
    "replicasets": REPLICA_SET,
    "statefulsets": STATEFUL_SET,
    "jobs": JOB,
    "daemonsets": DAEMON_SET,
    "persistentvolumeclaims": CLAIM,
    "persistentvolumes": VOLUME,
    "volumeattachments": ATTACHMENT,
    "deviceclasses": DEVICE_CLASS,
    "leases": LEASE,
    "namespaces": NAMESPACE,
    "machines": MACHINE,
    "reschedulepolicies": POLICY,
    "namespacepools": POOL,
    "nodedrains": DRAIN,
}
"""A valid object of each kind that the operator reads, by resource."""


def either(valid: Json) -> st.SearchStrategy[Json]:
    """Any hostile copy of a valid object."""
    return st.one_of(mutated(valid), forged(valid))


def projected(valid: Json, project: Callable[[Json], Any]) -> st.SearchStrategy[Any]:
    """The projection's results for hostile copies; refused copies are left out."""

    def attempt(raw: Json) -> Any:
        try:
            return project(raw)
        except ValueError:
            return _GONE

    return either(valid).map(attempt).filter(lambda found: found is not _GONE)
