"""The chart with its defaults on real kubelets: two replicas under Pod Security `restricted`, with probes that work."""

import json
import signal
from pathlib import Path
from typing import Any

from harness.clients import Clients
from harness.operators import NAMESPACE
from harness.processes import kill
from harness.real import applications, dns, maintenance
from harness.real.installation import Installation
from harness.real.lab import Lab
from harness.waiting import until

CREDENTIAL = "authentication.kubernetes.io/credential-id"


def restarts(pod: dict[str, Any]) -> int:
    return sum(status["restartCount"] for status in pod["status"]["containerStatuses"])


def status_of(process: Path) -> dict[str, str]:
    """Return the fields of a process in /proc."""
    lines = (line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return {key: value.strip() for key, value in lines}


def credentials(plane: Clients, pod: str) -> list[str]:
    """Return the IDs of the tokens of all requests of a pod that the server has audited, in their order."""
    log = plane.logs()["audit"]
    users = [json.loads(line)["user"] for line in log.read_text().splitlines() if pod in line]
    mine = [
        user["extra"] for user in users if user.get("extra", {}).get("authentication.kubernetes.io/pod-name") == [pod]
    ]
    return [extra[CREDENTIAL][0] for extra in mine]


def test_both_replicas_are_ready_on_different_nodes_and_one_leads(operator: Installation) -> None:
    leader = operator.settled()
    pods = operator.ready()
    assert leader["metadata"]["name"] in {pod["metadata"]["name"] for pod in pods}
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert [restarts(pod) for pod in pods] == [0, 0]


def test_the_processes_are_restricted_and_the_namespace_admits_no_others(lab: Lab, operator: Installation) -> None:
    other = lab.plane.kubectl("run", "other", "--image=x", "-n", NAMESPACE, "--dry-run=server", check=False)
    assert 'violates PodSecurity "restricted' in other
    for pod in operator.ready():
        (process,) = lab.processes(pod)
        status = status_of(process)
        assert status["Uid"].split() == ["65532"] * 4
        assert status["Gid"].split() == ["65532"] * 4
        assert int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
        (root,) = [options for _, _, _, _, mount, options, *_ in mounts if mount == "/"]
        assert "ro" in root.split(",")


def test_after_a_rollout_the_replicas_are_on_different_nodes(lab: Lab, operator: Installation) -> None:
    lab.plane.kubectl("rollout", "restart", "deploy/rescheduler", "-n", NAMESPACE)
    lab.plane.kubectl("rollout", "status", "deploy/rescheduler", "-n", NAMESPACE, "--timeout=120s")
    operator.settled()
    assert len({pod["spec"]["nodeName"] for pod in operator.ready()}) == 2


def test_a_frozen_leader_is_restarted_and_another_one_leads(lab: Lab, operator: Installation) -> None:
    leader = operator.settled()
    (process,) = lab.processes(leader)
    kill(int(process.name), signal.SIGSTOP)
    name = leader["metadata"]["name"]
    other = until(lambda: (pod := operator.leader()) and pod["metadata"]["name"] != name, "another leader")
    assert other
    until(
        lambda: [restarts(pod) for pod in operator.pods() if pod["metadata"]["name"] == name] == [restarts(leader) + 1],
        lambda: f"the kubelet to restart the frozen process\n{operator.describe()}",
        seconds=180,
    )
    operator.settled()


def test_a_token_that_the_kubelet_rotates_early_is_used(lab: Lab, operator: Installation) -> None:
    leader = operator.settled()
    name, node = leader["metadata"]["name"], leader["spec"]["nodeName"]
    before = set(credentials(lab.plane, name))
    assert before
    lab.kill_services(node)
    lab.start_services(node)  # a kubelet that starts requests new tokens for all pods
    until(
        lambda: set(credentials(lab.plane, name)) - before,
        lambda: f"requests with a new token\n{operator.describe()}",
        seconds=180,
        every=2,
    )
    until(lab.ready, "the node to be Ready")
    assert restarts(operator.settled()) == restarts(leader)


def test_without_dns_the_operator_starts_and_drains(lab: Lab, operator: Installation, space: str) -> None:
    name = "kubernetes.default.svc.cluster.local"
    until(lambda: dns.resolve(lab.network("n1"), name) == "10.96.0.1", "the DNS to work")
    lab.plane.kubectl("scale", "deploy/coredns", "-n", dns.NAMESPACE, "--replicas=0")
    try:
        until(lambda: not dns.resolve(lab.network("n1"), name), "the DNS to be away")
        lab.plane.kubectl("rollout", "restart", "deploy/rescheduler", "-n", NAMESPACE)
        lab.plane.kubectl("rollout", "status", "deploy/rescheduler", "-n", NAMESPACE, "--timeout=120s")
        operator.settled()
        applications.service(lab, space)
        node = applications.fullest(lab, space)
        maintenance.request(lab, node)
        maintenance.drained(lab, node)
        assert applications.fullest(lab, space) != node
    finally:
        lab.plane.kubectl("scale", "deploy/coredns", "-n", dns.NAMESPACE, "--replicas=2")
        lab.plane.kubectl("rollout", "status", "deploy/coredns", "-n", dns.NAMESPACE, "--timeout=90s")
