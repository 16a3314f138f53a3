"""Pools on an API server that is too old to enforce them: this is reported, and no pod moves without end."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.test_plans import reschedule
from harness import ControlPlane, version_matrix, workloads
from harness.observer import Observer
from harness.operators import Operator, install, serves_pools
from harness.waiting import until
from rescheduler.api import names

SPACE = "old"


def _older_than_1_36() -> dict[str, dict[str, str]]:
    """Return arguments with which a newer control plane emulates an older one."""
    programs = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
    emulated = {"emulated-version": "1.35"} if version_matrix.is_selected("1.36") else {}
    return dict.fromkeys(programs, emulated)


@pytest.mark.every_version("reports of what is off")
def test_before_kubernetes_1_36_pools_say_so_and_no_pod_is_moved_for_them(tmp_path: Path) -> None:
    with ControlPlane.start(extra_args=_older_than_1_36()) as plane:
        assert not serves_pools(plane)
        observer, identity = Observer(plane.kubeconfig), install(plane)
        away, home = (plane.add_nodes(1, prefix=role, labels={"role": role})[0] for role in ("away", "home"))
        plane.kubectl("cordon", home)
        plane.apply(workloads.namespace(SPACE), workloads.policy(), workloads.deployment("web", 2, SPACE))
        until(lambda: observer.ready(SPACE, "web") == 2, "the pods to run")
        plane.kubectl("uncordon", home)

        def uids() -> set[str]:
            return {pod["metadata"]["uid"] for pod in observer.pods(SPACE)}

        before = uids()
        with Operator(identity, tmp_path / "operator.log"):
            selector = {"matchLabels": {"role": "home"}}
            plane.apply(
                workloads.pool("old", namespaces=[SPACE], nodeSelector=selector, existingPods="Move", exclusive=True)
            )

            def status() -> dict[str, Any]:
                return observer.pool("old") or {}

            until(lambda: status().get("podsOutside") == 2, lambda: f"both to be counted ({json.dumps(status())})")
            said = {("Enforced", "False", "NotServed"), ("TaintHeldBack", "True", "NotEnforced")}
            until(
                lambda: said <= {(c["type"], c["status"], c["reason"]) for c in status()["conditions"]},
                lambda: f"it to be said that nothing is enforced ({json.dumps(status())})",
            )
            check = reschedule(plane.kubeconfig, "check")
            assert "the API server does not serve MutatingAdmissionPolicy v1" in check.stdout
            assert "use Kubernetes 1.36 or newer for NamespacePools" in check.stdout
            # New pods start outside the pool too: each move would cause one more.
            plane.kubectl("cordon", home)
            plane.kubectl("scale", "deployment", "web", "--replicas=3", "-n", SPACE)
            until(lambda: status()["podsOutside"] == 3, lambda: f"the third to be counted ({json.dumps(status())})")
            three = uids()
            assert three > before
            plane.kubectl("uncordon", home)
            plane.kubectl("scale", "deployment", "web", "--replicas=2", "-n", SPACE)
            until(lambda: status()["podsOutside"] == 2, lambda: f"two to be left ({json.dumps(status())})")
        assert uids() <= three, "which one goes is the ReplicaSet's choice: all are equal to it"
        assert observer.namespace(SPACE)["metadata"]["labels"][names.POOL] == "old"
        assert observer.node(home)["metadata"]["labels"][names.NODE_POOL] == "old"
        # The node controller removes the taint of the cordon a moment later.
        until(lambda: "taints" not in observer.node(home)["spec"], "no taint to be left")
        assert "taints" not in observer.node(away)["spec"]
