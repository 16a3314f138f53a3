"""The API server refuses every bad value, with a message that names the field."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import ControlPlane
from harness.clients import ControlPlaneError
from harness.operators import ROOT
from rescheduler.api import GROUP, SERVED_VERSIONS
from rescheduler.api.policies import ReschedulePolicySpec
from rescheduler.api.scalars import dump

POLICY = {"apiVersion": "rescheduler.dev/v1alpha1", "kind": "ReschedulePolicy", "metadata": {"name": "p"}, "spec": {}}
POOL = {
    "apiVersion": "rescheduler.dev/v1alpha1",
    "kind": "NamespacePool",
    "metadata": {"name": "p"},
    "spec": {"namespaces": ["shop"], "nodeSelector": {"matchLabels": {"disk": "ssd"}}},
}
DRAIN = {
    "apiVersion": "rescheduler.dev/v1alpha1",
    "kind": "NodeDrain",
    "metadata": {"name": "n"},
    "spec": {"nodeName": "n", "requests": [{"reason": "Manual"}]},
}
WINDOW = {"schedule": "0 22 * * SAT", "duration": "4h"}

BAD: list[tuple[dict[str, Any], str, Any, str]] = [
    (POLICY, "spec.mode", "Maybe", "spec.mode"),
    (POLICY, "spec.suspend", "Some", "spec.suspend"),
    (POLICY, "spec.priority", "high", "spec.priority"),
    (POLICY, "spec.maintenance.maxConcurrent", "101%", "spec.maintenance.maxConcurrent"),
    (POLICY, "spec.maintenance.maxConcurrent", -1, "spec.maintenance.maxConcurrent"),
    (POLICY, "spec.maintenance.maxConcurrent", "many", "spec.maintenance.maxConcurrent"),
    (POLICY, "spec.maintenance.maxConcurrent", 1.5, "spec.maintenance.maxConcurrent"),
    (POLICY, "spec.maintenance.maxUnavailable", "-5%", "spec.maintenance.maxUnavailable"),
    (POLICY, "spec.maintenance.topologyKey", "", "spec.maintenance.topologyKey"),
    (POLICY, "spec.maintenance.topologyKey", "a zone", "spec.maintenance.topologyKey"),
    (POLICY, "spec.maintenance.maxUnavailable", "5", "spec.maintenance.maxUnavailable"),
    (POLICY, "spec.failure.leaseTimeout", "0s", "spec.failure.leaseTimeout"),
    (POLICY, "spec.maintenance.windows", [{**WINDOW, "schedule": "*/61 * * * *"}], "five-field cron"),
    (POLICY, "spec.maintenance.windows", [{**WINDOW, "timeZone": "Local"}], "windows[0].timeZone"),
    (POLICY, "spec.drain.gates", ["a..b/c"], "spec.drain.gates[0]"),
    (POLICY, "spec.nodeSelector.matchLabels", {"x" * 64: "a"}, "spec.nodeSelector.matchLabels"),
    (POLICY, "spec.maintenance.onWindowClose", "Stop", "spec.maintenance.onWindowClose"),
    *(
        (POLICY, "spec.maintenance.windows", [{**WINDOW, "schedule": cron}], "spec.maintenance.windows[0].schedule")
        for cron in (
            "@daily",
            "0 22 * *",
            "61 * * * *",
            "0 25 * * *",
            "0 0 32 * *",
            "0 0 * 13 *",
            "0 0 * * FUN",
            "",
            "* * * * * *",
        )
    ),
    (POLICY, "spec.maintenance.windows", [{**WINDOW, "duration": "4"}], "windows[0].duration"),
    (POLICY, "spec.maintenance.windows", [{**WINDOW, "duration": "0s"}], "windows[0].duration"),
    (POLICY, "spec.maintenance.windows", [{**WINDOW, "timeZone": "not a zone"}], "windows[0].timeZone"),
    (POLICY, "spec.maintenance.windows", [{"schedule": "0 0 * * *"}], "windows[0].duration"),
    (POLICY, "spec.maintenance.conditions", [{"type": "", "status": ["True"]}], "conditions[0].type"),
    (POLICY, "spec.failure.conditions", [{"type": "", "status": ["True"]}], "conditions[0].type"),
    (POLICY, "spec.failure.conditions", [{"type": "Ready", "status": []}], "conditions[0].status"),
    (POLICY, "spec.failure.conditions", [{"type": "Ready", "status": ["Bad"]}], "conditions[0].status"),
    (POLICY, "spec.failure.conditions", [{"type": "Ready", "status": ["False"], "for": "soon"}], "conditions[0].for"),
    (POLICY, "spec.failure.startupGrace", "10", "spec.failure.startupGrace"),
    (POLICY, "spec.failure.leaseTimeout", "-1s", "spec.failure.leaseTimeout"),
    (POLICY, "spec.failure.recoverAfter", "2 m", "spec.failure.recoverAfter"),
    (POLICY, "spec.failure.flapping.changes", 0, "spec.failure.flapping.changes"),
    (POLICY, "spec.failure.flapping.within", "x", "spec.failure.flapping.within"),
    (POLICY, "spec.failure.maxUnhealthy", "120%", "spec.failure.maxUnhealthy"),
    *((POLICY, "spec.failure.maxConcurrent", value, "spec.failure.maxConcurrent") for value in (0, "0%", "101%")),
    (POLICY, "spec.failure.force", "Always", "spec.failure.force"),
    (POLICY, "spec.drain.replacement", "Sometimes", "spec.drain.replacement"),
    (POLICY, "spec.drain.replacementTimeout", "5", "spec.drain.replacementTimeout"),
    (POLICY, "spec.drain.timeout", "1d", "spec.drain.timeout"),
    (POLICY, "spec.drain.timeout", "99999h1ms", "must be at most 99999h"),
    (POLICY, "spec.maintenance.windows", [{**WINDOW, "duration": "99999h99999h"}], "windows[0].duration"),
    (POLICY, "spec.failure.flapping.within", "99999h99999h", "spec.failure.flapping.within"),
    (POLICY, "spec.drain.onTimeout", "Kill", "spec.drain.onTimeout"),
    (POLICY, "spec.drain.gracePeriodSeconds", 0, "spec.drain.gracePeriodSeconds"),
    (POLICY, "spec.drain.gracePeriodSeconds", -1, "spec.drain.gracePeriodSeconds"),
    (POLICY, "spec.drain.emptyDir", "Keep", "spec.drain.emptyDir"),
    (POLICY, "spec.drain.unmanaged", "Keep", "spec.drain.unmanaged"),
    (POLICY, "spec.drain.chainMoves", 17, "spec.drain.chainMoves"),
    (POLICY, "spec.drain.noRoom", "Wait", "spec.drain.noRoom"),
    (POLICY, "spec.drain.gates", [""], "spec.drain.gates[0]"),
    (POLICY, "spec.drain.gates", ["Drained"], "spec.drain.gates"),
    (POLICY, "spec.drain.maxEvictionsPerSecond", 0, "spec.drain.maxEvictionsPerSecond"),
    (POLICY, "spec.drain.rules", [{"action": "Kill"}], "spec.drain.rules[0].action"),
    (POLICY, "spec.drain.rules", [{"timeout": "later"}], "spec.drain.rules[0].timeout"),
    (POLICY, "spec.rebalance", {"high": "40%", "low": "50%"}, "spec.rebalance"),
    (POLICY, "spec.rebalance.high", "101%", "spec.rebalance.high"),
    (POLICY, "spec.nodeSelector.matchLabels", {"a b": "c"}, "spec.nodeSelector.matchLabels"),
    (POLICY, "spec.nodeSelector.matchExpressions", [{"key": "a", "operator": "Is"}], "matchExpressions[0].operator"),
    (POLICY, "spec.nodeSelector.matchExpressions", [{"key": "a", "operator": "In"}], "matchExpressions[0]"),
    (POOL, "spec.nodeSelector", {}, "nodeSelector"),
    (POOL, "spec.nodeSelector", None, "nodeSelector"),
    (POOL, "spec.namespaces", [], "namespaces"),
    (POOL, "spec.namespaces", ["Not_A_Name"], "spec.namespaces[0]"),
    (POOL, "spec.namespaceSelector", {}, "namespaceSelector"),
    (POOL, "spec.existingPods", "Kill", "spec.existingPods"),
    (POOL, "spec.mode", "Try", "spec.mode"),
    (POOL, "spec.maxUnavailable", "200%", "spec.maxUnavailable"),
    (POOL, "metadata.name", "a" * 64, "metadata.name"),
    (POOL, "metadata.name", "a.b", "metadata.name"),
    (DRAIN, "metadata.name", "other", "metadata.name"),
    (DRAIN, "spec.requests", [], "spec.requests"),
    (DRAIN, "spec.requests", [{"reason": "Boredom"}], "spec.requests[0].reason"),
    (DRAIN, "spec.requests", [{"reason": "Manual"}, {"reason": "Manual"}], "spec.requests[1]"),
    (DRAIN, "spec.drain", {"timeout": "long"}, "spec.drain.timeout"),
    (DRAIN, "spec.drain", {"timeout": "99999h99999h"}, "spec.drain.timeout"),
    (DRAIN, "spec.drain", {"onTimeout": "Kill"}, "spec.drain.onTimeout"),
]


def with_value(base: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    body = copy.deepcopy(base)
    at = body
    *parents, last = path.split(".")
    for key in parents:
        at = at.setdefault(key, {})
    at[last] = value
    return body


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start() as made:
        made.kubectl("apply", "--server-side", "-f", str(ROOT / "manifests" / "crds"))
        made.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield made


def dry_run(plane: ControlPlane, body: dict[str, Any]) -> str:
    arguments = ["create", "--dry-run=server", "--validate=false", "-o", "json", "-f", "-"]
    return plane.kubectl(*arguments, input=json.dumps(body))


@pytest.mark.parametrize(
    ("base", "path", "value", "named"), BAD, ids=[f"{b['kind']}-{p}-{json.dumps(v)[:60]}" for b, p, v, _ in BAD]
)
def test_a_bad_value_is_refused_by_name(plane: ControlPlane, base: Any, path: str, value: Any, named: str) -> None:
    with pytest.raises(ControlPlaneError) as refused:
        dry_run(plane, with_value(base, path, value))
    assert named in str(refused.value)


def test_the_longest_duration_is_accepted(plane: ControlPlane) -> None:
    dry_run(plane, with_value(POLICY, "spec.drain.timeout", "99999h"))
    dry_run(plane, with_value(DRAIN, "spec.drain", {"timeout": "30s99998h59m30s"}))


@pytest.mark.every_version("installation")
def test_the_server_fills_in_the_defaults_that_the_models_have(plane: ControlPlane) -> None:
    made = json.loads(dry_run(plane, POLICY))["spec"]

    def meant(value: Any) -> Any:
        """Return the object without empty fields: absent means the same."""
        if isinstance(value, dict):
            return {k: meant(v) for k, v in value.items() if v not in ({}, [], None) and meant(v) not in ({}, [])}
        return value

    assert meant(made) == meant(dump(ReschedulePolicySpec()))


def test_a_node_drains_node_cannot_be_changed(plane: ControlPlane) -> None:
    plane.apply(DRAIN)
    with pytest.raises(ControlPlaneError, match="nodeName is immutable"):
        plane.kubectl("patch", "nd", "n", "--type=merge", "-p", '{"spec":{"nodeName":"m"}}')
    plane.kubectl("delete", "nd", "n")


@pytest.mark.every_version("installation")
def test_every_sample_is_accepted(plane: ControlPlane) -> None:
    samples = sorted(Path(ROOT / "manifests" / "samples").glob("*.yaml"))
    assert samples
    for sample in samples:
        plane.kubectl("create", "--dry-run=server", "-f", str(sample))


def test_short_names_and_columns(plane: ControlPlane) -> None:
    for name in ("rsp", "nsp", "nd"):
        plane.kubectl("get", name)
    plane.kubectl("get", "rescheduler")
    plane.apply(DRAIN)
    header = plane.kubectl("get", "nd").splitlines()[0].split()
    assert header == ["NAME", "NODE", "REASON", "PHASE", "WAITING", "MOVED", "BLOCKED", "ETA", "AGE"]
    plane.kubectl("delete", "nd", "n")


@pytest.mark.parametrize("version", SERVED_VERSIONS)
def test_each_version_has_the_rules_the_columns_and_the_status_of_the_same_objects(
    plane: ControlPlane, version: str
) -> None:
    api_version = f"{GROUP}/{version}"
    plane.apply(POLICY, POOL, DRAIN)
    bad: list[tuple[str, dict[str, Any], str, Any]] = [
        ("reschedulepolicies", POLICY, "spec.rebalance", {"high": "40%", "low": "50%"}),
        ("namespacepools", POOL, "spec.namespaceSelector", {}),
        ("nodedrains", DRAIN, "metadata.name", "other"),
    ]
    for resource, base, path, value in bad:
        with pytest.raises(ControlPlaneError, match=r"low must be less|must not be empty|must equal spec.nodeName"):
            dry_run(plane, with_value({**base, "apiVersion": api_version}, path, value))
        found = plane.get(f"{resource}.{version}.{GROUP}")["items"]
        assert [(each["apiVersion"], each["metadata"]["name"]) for each in found] == [
            (api_version, base["metadata"]["name"])
        ]
    status = json.dumps({"status": {"phase": "Waiting", "waiting": version}})
    drains = f"nodedrains.{version}.{GROUP}"
    plane.kubectl("patch", drains, "n", "--subresource=status", "--type=merge", "-p", status)
    for other in SERVED_VERSIONS:
        rows = plane.kubectl("get", f"nodedrains.{other}.{GROUP}").splitlines()
        assert rows[0].split() == ["NAME", "NODE", "REASON", "PHASE", "WAITING", "MOVED", "BLOCKED", "ETA", "AGE"]
        assert rows[1].split()[:4] == ["n", "n", "Waiting", version]
    plane.kubectl("delete", "rsp,nsp,nd", "--all")
