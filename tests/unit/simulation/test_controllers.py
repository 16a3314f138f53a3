"""The simulated controllers treat pods as those of Kubernetes do."""

import random
from datetime import UTC, datetime
from functools import partial
from typing import Any

from harness import workloads
from invariants.objects import annotations, condition, controller, name, set_condition, uid
from rescheduler.core.model.raw import RawObject
from simulation.clusters import SPACE
from simulation.controllers import (
    VERSION,
    Budgets,
    Controller,
    DaemonSets,
    Deployments,
    Garbage,
    ReplicaSets,
    reference,
)
from simulation.server import Server

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)


class Stage:
    """A server with controllers that reconcile on request."""

    def __init__(self, *objects: RawObject) -> None:
        self.server = Server(lambda: NOW)
        self._all = [make(self.server, random.Random(1)) for make in (Deployments, ReplicaSets, DaemonSets, Budgets)]
        self.server.make("nodes", {"metadata": {"name": "n1"}, "spec": {}})
        for body in objects:
            self.server.make(f"{body['kind'].lower()}s", body)
        self.look()

    def look(self, *more: type[Controller]) -> None:
        """Reconcile all controllers twice; each new pod is Ready on the node."""
        for controller_ in [*self._all, *(make(self.server, random.Random(1)) for make in more)] * 2:
            controller_.reconcile()
            for pod in self.pods():
                if "nodeName" not in pod["spec"]:
                    self.server.edit("pods", pod, self._started)

    @staticmethod
    def _started(raw: dict[str, Any]) -> None:
        raw["spec"] = {**raw["spec"], "nodeName": "n1"}
        set_condition(raw, "Ready", "True", "", NOW)

    def pods(self) -> list[RawObject]:
        return self.server.all("pods", SPACE)

    def alive(self) -> list[RawObject]:
        return [pod for pod in self.pods() if "deletionTimestamp" not in pod["metadata"]]

    def edit(self, pod: RawObject, **meta: Any) -> None:
        self.server.edit("pods", pod, lambda raw: raw["metadata"].update(meta))

    def hand_over(self, pod: RawObject) -> None:
        (deployment,) = self.server.all("deployments")
        self.edit(pod, ownerReferences=[reference("Deployment", deployment)])

    def budget(self) -> RawObject:
        return dict(self.server.all("poddisruptionbudgets")[0]["status"])


def _set_template(raw: RawObject, template: RawObject) -> None:
    raw["spec"]["template"] = template


def web(replicas: int = 1) -> RawObject:
    made = workloads.deployment("web", replicas, SPACE)
    made["spec"]["template"]["metadata"]["labels"]["team"] = "shop"
    return made


def neighbour(make: Any, *replicas: int) -> RawObject:
    """Return a workload of the same team whose selector also matches the pods of web."""
    made: RawObject = make("neighbour", *replicas, SPACE)
    made["spec"]["selector"] = {"matchLabels": {"team": "shop"}}
    made["spec"]["template"]["metadata"]["labels"]["team"] = "shop"
    return made


def test_a_pod_handed_to_its_deployment_is_replaced_and_touched_by_nobody() -> None:
    stage = Stage(web(), neighbour(workloads.daemon_set), neighbour(workloads.replica_set, 1))
    (pod,) = [p for p in stage.pods() if name(p).startswith("web")]
    stage.hand_over(pod)
    stage.look(Garbage)
    assert len([p for p in stage.alive() if name(p).startswith("web")]) == 2
    assert controller(stage.server.find("pods", name(pod), SPACE) or {})["kind"] == "Deployment"


def test_a_pod_that_is_returned_stays_and_its_replacement_goes() -> None:
    stage = Stage(web())
    (pod,) = stage.pods()
    stage.hand_over(pod)
    stage.look()
    cost = {"controller.kubernetes.io/pod-deletion-cost": "2147483647"}
    (above,) = stage.server.all("replicasets")
    stage.edit(pod, ownerReferences=[reference("ReplicaSet", above)], annotations={**annotations(pod), **cost})
    stage.look()
    assert [uid(p) for p in stage.alive()] == [uid(pod)]


def test_a_pod_that_its_set_let_go_is_adopted_by_whoever_selects_it() -> None:
    stage = Stage(web(), neighbour(workloads.daemon_set))
    (pod,) = [p for p in stage.pods() if name(p).startswith("web")]
    stage.edit(pod, labels={**pod["metadata"]["labels"], "pod-template-hash": "another"})
    stage.look()
    found = stage.server.find("pods", name(pod), SPACE) or {}
    assert controller(found)["kind"] == "DaemonSet"
    assert len([p for p in stage.alive() if controller(p)["kind"] == "DaemonSet"]) == 1


def test_what_has_ended_is_not_adopted() -> None:
    stage = Stage(web())
    (pod,) = stage.pods()
    stage.edit(pod, ownerReferences=[])
    stage.server.edit("pods", pod, lambda raw: raw["status"].update(phase="Failed"))
    stage.look()
    assert controller(stage.server.find("pods", name(pod), SPACE) or {}) == {}


def test_a_pod_handed_over_goes_with_its_deployment() -> None:
    stage = Stage(web())
    stage.hand_over(stage.pods()[0])
    stage.look()
    stage.server.remove("deployments", stage.server.all("deployments")[0])
    stage.look(Garbage, Garbage)
    assert stage.alive() == []


def test_a_budget_counts_the_deployment_once_whoever_of_the_two_controls_a_pod() -> None:
    stage = Stage(web(), workloads.budget("web", SPACE, maxUnavailable=0) | {"kind": "PodDisruptionBudget"})
    assert stage.budget()["disruptionsAllowed"] == 0
    stage.hand_over(stage.pods()[0])
    stage.look()
    assert (stage.budget()["expectedPods"], stage.budget()["currentHealthy"]) == (1, 2)
    assert stage.budget()["disruptionsAllowed"] == 1


def test_a_budget_over_a_pod_that_nothing_scales_is_not_synced() -> None:
    stage = Stage(web(2), workloads.budget("web", SPACE, maxUnavailable=1), workloads.daemon_set("log", SPACE))
    (daemon,) = [p for p in stage.pods() if controller(p)["kind"] == "DaemonSet"]
    assert stage.budget()["disruptionsAllowed"] == 1
    stage.edit(daemon, labels={"app": "web"})
    stage.look()
    assert stage.budget()["disruptionsAllowed"] == 0
    assert condition({"status": stage.budget()}, "DisruptionAllowed")["reason"] == "SyncFailed"


def test_a_rollout_goes_on_beside_a_pod_handed_over_and_back_again() -> None:
    stage = Stage(web(4))
    stage.hand_over(stage.pods()[0])
    for version in ("2", ""):
        (raw,) = stage.server.all("deployments")
        template = {**raw["spec"]["template"]}
        template["metadata"] = {**template["metadata"], "annotations": {VERSION: version} if version else {}}
        stage.server.edit("deployments", raw, partial(_set_template, template=template))
        for _ in range(8):
            stage.look()
            for gone in stage.pods():
                if "deletionTimestamp" in gone["metadata"]:
                    stage.server.remove("pods", gone, grace=0)
        sets = {rs["metadata"]["name"]: rs["spec"]["replicas"] for rs in stage.server.all("replicasets")}
        assert sets == {"web-rs": 0 if version else 4, "web-rs2": 4 if version else 0}
        assert len(stage.alive()) == 5
