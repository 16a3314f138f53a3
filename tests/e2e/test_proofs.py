"""Pods of a dead node that must not run twice wait for proof; then the node comes back, with a new or the same boot."""

import json
from typing import Any

import pytest

from e2e.conftest import Site
from e2e.test_volumes import attached, disk, with_disk
from harness import workloads
from harness.waiting import until
from rescheduler.core.model.raw import RawObject

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
OURS = {"key": OUT_OF_SERVICE, "effect": "NoSchedule"}


def two_nodes(site: Site, *objects: RawObject) -> tuple[str, str]:
    """Return a node with all pods of these owners and its own kubelet, and a node with room for them."""
    doomed, other = site.nodes(2, own_kwok=True)
    managed = "volumes.kubernetes.io/controller-managed-attach-detach=true"
    site.plane.kubectl("annotate", "node", doomed, other, managed)  # as kubelets do
    site.plane.kubectl("cordon", other)
    site.deploy(*objects)
    site.plane.kubectl("uncordon", other)
    return doomed, other


def stateful(site: Site, name: str, claim: str) -> dict[str, Any]:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
    return workloads.stateful_set(name, 1, site.name, volumes=volumes, **site.here())


def attach(site: Site, node: str, count: int) -> None:
    """Detach as the driver's attacher does: otherwise each volume takes two minutes."""
    until(lambda: len(attached(site, node)) == count, "the volumes to be attached")
    for found in site.plane.get("volumeattachments")["items"]:
        if found["spec"]["nodeName"] == node:
            patch = json.dumps({"status": {"attached": True}})
            command = ("patch", "volumeattachment", found["metadata"]["name"], "--subresource=status", "--type=merge")
            site.plane.kubectl(*command, "-p", patch)


def waiting(site: Site, node: str) -> set[str]:
    """Return owners of the pods that wait for proof, by the names of their pods."""
    blockers = (site.observer.drain(node) or {}).get("status", {}).get("blockers", [])
    return {b["pod"].split("-")[0] for b in blockers if b["class"] == "WaitingForProof"}


def apps(site: Site, node: str) -> set[str]:
    """Return apps with a pod on the node that is not Terminating."""
    there = site.observer.pods(site.name, node=node)
    return {p["metadata"]["labels"]["app"] for p in there if "deletionTimestamp" not in p["metadata"]}


def counted(site: Site, node: str) -> tuple[int, int]:
    """Return the numbers of pods that have left and that must leave; changes of numbers are written a second later."""
    status = (site.observer.drain(node) or {})["status"]
    return status["pods"]["moved"], status["pods"]["remaining"]


def fenced(site: Site, node: str) -> tuple[str, str] | None:
    conditions = (site.observer.drain(node) or {}).get("status", {}).get("conditions", [])
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == "Fenced"), None)


def taints(site: Site, node: str) -> list[dict[str, str]]:
    found = site.observer.node(node)["spec"].get("taints", [])
    return [{k: t[k] for k in ("key", "value", "effect") if k in t} for t in found if t["key"] == OUT_OF_SERVICE]


def events(site: Site, node: str, reason: str) -> list[str]:
    return [e["message"] for e in site.observer.events("Node", node) if e["reason"] == reason]


def job(site: Site, name: str, policy: str) -> dict[str, Any]:
    made = workloads.job(name, site.name, after="600s", **site.here())
    made["spec"]["podReplacementPolicy"] = policy
    made["spec"]["template"]["metadata"]["labels"] = {"app": name}
    return made


@pytest.mark.every_version("failed nodes")
def test_each_kind_of_pod_on_a_dead_node(site: Site) -> None:
    """Pods that may run twice are replaced at once, by order; the others are named, and leave with their volume on
    proof.
    """
    rules = [{"podSelector": {"matchLabels": {"app": app}}, "order": 5} for app in ("critical",)]
    rules += [{"podSelector": {"matchLabels": {"app": app}}, "order": 9} for app in ("db", "own", "patient")]
    site.policy(drain={"rules": rules})
    site.plane.apply(*disk(site, "db"), *disk(site, "own"), *disk(site, "shared", mode="ReadWriteMany"))
    doomed, other = two_nodes(
        site,
        workloads.deployment("web", 2, site.name, **site.here()),
        workloads.deployment("critical", 2, site.name, **site.here()),
        workloads.budget("critical", site.name, maxUnavailable=1),
        with_disk(site, "own"),
        with_disk(site, "shared"),
        stateful(site, "db", "db"),
        job(site, "eager", "TerminatingOrFailed"),
        job(site, "patient", "Failed"),
    )
    until(lambda: len(apps(site, doomed)) == 7, "all pods to be there")
    attach(site, doomed, 3)
    site.plane.fail_node(doomed)

    until(lambda: apps(site, other) == {"web", "critical", "shared", "eager"}, "what may run twice")
    until(lambda: waiting(site, doomed) == {"db", "own", "patient"}, "the others to be named")
    assert apps(site, doomed) == {"db", "own", "patient"}
    assert fenced(site, doomed) == ("False", "WaitingForProof")
    assert not taints(site, doomed)
    until(lambda: counted(site, doomed) == (6, 3), "the others to be counted")
    drain = site.observer.drain(doomed) or {}
    assert next(c["status"] for c in drain["status"]["conditions"] if c["type"] == "Drained") == "False"

    site.plane.kubectl("annotate", "node", doomed, "rescheduler.dev/fenced=yes")
    until(lambda: events(site, doomed, "FencedRefused"), "the Event that says what is wrong")
    assert "not JSON" in events(site, doomed, "FencedRefused")[0]
    hint = drain["status"]["blockers"][0]["hint"]
    said = hint[hint.index("{") : hint.index("}") + 1]
    assert json.loads(said)["nodeUID"] == site.observer.node(doomed)["metadata"]["uid"]
    site.plane.kubectl("annotate", "--overwrite", "node", doomed, f"rescheduler.dev/fenced={said}")

    until(lambda: fenced(site, doomed) == ("True", "Attested"), "the proof to be seen")
    until(lambda: taints(site, doomed) == [OURS], "the taint")
    drain = site.observer.drain(doomed) or {}
    assert OURS.items() <= drain["status"]["node"]["addedTaints"][-1].items()
    assert drain["status"]["node"]["bootID"] == json.loads(said)["bootID"]
    until(lambda: {"db", "own", "patient"} <= apps(site, other), "the others to be replaced")
    until(lambda: not attached(site, doomed), "the volumes to be detached")
    site.phase(doomed, "Drained")

    site.plane.recover_node(doomed)
    site.gone(doomed)
    node = site.observer.node(doomed)
    assert not taints(site, doomed)
    assert "unschedulable" not in node["spec"]
    assert json.loads(node["metadata"]["annotations"]["rescheduler.dev/fenced"]) == json.loads(said)
    assert not events(site, doomed, "ReturnedWithoutReboot")


def test_a_ghost_returns(site: Site) -> None:
    """The provider reported that the machine was off, and the same boot is back: taint and cordon stay while pods are
    left.
    """
    site.policy()
    site.plane.apply(*disk(site, "db"))
    doomed, other = two_nodes(site, stateful(site, "db", "db"))
    attach(site, doomed, 1)
    site.plane.fail_node(doomed)
    until(lambda: waiting(site, doomed) == {"db"}, "it to wait for proof")
    # As the cloud controller does.
    site.plane.kubectl("taint", "node", doomed, "node.cloudprovider.kubernetes.io/shutdown:NoSchedule")
    until(lambda: apps(site, other) == {"db"}, "the pod to be replaced")
    assert fenced(site, doomed) == ("True", "ProviderShutdown")
    assert taints(site, doomed) == [OURS]
    spec = {"attacher": "x.example.com", "nodeName": doomed, "source": {"persistentVolumeName": f"{site.name}-ghost"}}
    kind = {"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": f"{site.name}-ghost"}}
    site.plane.apply(kind | {"spec": spec})

    site.plane.recover_node(doomed, new_boot=False)
    until(lambda: events(site, doomed, "ReturnedWithoutReboot"), "the Event")
    until(lambda: events(site, doomed, "RunningTwice"), "the pod that runs twice to be named")
    assert "db-0" in events(site, doomed, "RunningTwice")[0]
    site.plane.kubectl("delete", "nodedrain", doomed, "--wait=false")  # cancelling waits for it, too
    until(lambda: site.observer.progressing(doomed) == "OutOfService", "the drain to say so")
    assert fenced(site, doomed) == ("False", "ReturnedWithoutReboot")
    assert taints(site, doomed) == [OURS]
    assert site.observer.node(doomed)["spec"]["unschedulable"]
    site.plane.kubectl("delete", "volumeattachment", f"{site.name}-ghost")
    site.gone(doomed)
    assert not taints(site, doomed)
    assert "unschedulable" not in site.observer.node(doomed)["spec"]


def test_a_node_dies_in_the_middle_of_its_maintenance_and_goes_back_to_it(site: Site) -> None:
    """No progress is lost in either direction; a fencer's own out-of-service taint is proof, and stays."""
    site.policy(drain={"replacement": "Never"})
    doomed, other = two_nodes(
        site,
        workloads.deployment("web", 2, site.name, **site.here()),
        *site.stuck(2),
        workloads.stateful_set("db", 1, site.name, **site.here()),
        workloads.budget("db", site.name, maxUnavailable=0),
    )
    site.annotate(doomed)
    until(lambda: apps(site, other) == {"web"}, "what may leave to leave")
    until(lambda: site.classes(doomed) == {"BudgetMisconfigured"}, "the others to be blocked")
    started = (site.observer.drain(doomed) or {})["status"]["startedAt"]
    site.plane.fail_node(doomed)

    until(lambda: apps(site, other) == {"web", "stuck"}, "what may run twice")
    drain = site.observer.drain(doomed) or {}
    assert {r["reason"] for r in drain["spec"]["requests"]} == {"Maintenance", "Failure"}
    assert drain["status"]["startedAt"] == started
    until(lambda: (site.observer.drain(doomed) or {})["status"]["progress"] == "4/5", "the progress")
    assert waiting(site, doomed) == {"db"}
    foreign = {"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}
    site.plane.kubectl("taint", "node", doomed, f"{OUT_OF_SERVICE}=nodeshutdown:NoExecute")
    until(lambda: apps(site, other) == {"web", "stuck", "db"}, "the last to be replaced")
    until(
        lambda: fenced(site, doomed) == ("True", "OutOfService"),
        lambda: f"the proof to be seen ({json.dumps(site.observer.drain(doomed))})",
    )
    assert taints(site, doomed) == [foreign]

    site.plane.recover_node(doomed)
    site.phase(doomed, "Drained")
    until(
        lambda: {r["reason"] for r in (site.observer.drain(doomed) or {})["spec"]["requests"]} == {"Maintenance"},
        "the failure to be over",
    )
    drain = site.observer.drain(doomed) or {}
    assert (drain["status"]["startedAt"], drain["status"]["progress"]) == (started, "5/5")
    until(lambda: fenced(site, doomed) is None, "no proof to be asked for")
    assert taints(site, doomed) == [foreign]
    site.annotate(doomed, None)
    site.gone(doomed)
    assert taints(site, doomed) == [foreign]


def test_on_an_ill_node_that_lives_only_what_serves_nobody_goes_past_its_budget(site: Site) -> None:
    ill, other = site.nodes(2)
    site.policy(drain={"replacement": "Never"})
    site.plane.kubectl("cordon", other)
    never = {"annotations": {"cluster/never-ready": "true"}}
    site.plane.apply(
        workloads.deployment("lost", 2, site.name, **never, **site.here()),
        workloads.deployment("fine", 1, site.name, **site.here()),
        workloads.stateful_set("db", 1, site.name, **never, **site.here()),
        *(workloads.budget(app, site.name, maxUnavailable=0) for app in ("lost", "fine", "db")),
    )
    until(lambda: len(site.left(ill)) == 4, "the pods")
    site.plane.kubectl("uncordon", other)
    site.plane.kubectl("annotate", "node", ill, "cluster/not-ready=true")
    until(lambda: apps(site, ill) == {"fine", "db"}, "the lost ones to leave")
    until(lambda: site.classes(ill) == {"BudgetExhausted", "BudgetMisconfigured"}, "the others to be held")
    assert apps(site, ill) == {"fine", "db"}
    assert apps(site, other) == {"lost"}
    site.plane.kubectl("annotate", "node", ill, "cluster/not-ready-")
    site.gone(ill)
    assert apps(site, ill) == {"fine", "db"}
