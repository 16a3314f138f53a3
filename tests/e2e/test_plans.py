"""Plans compared with the real scheduler, and `kubectl reschedule plan` as people call it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import ControlPlane, version_matrix, workloads
from harness.random_clusters import RandomCluster, random_cluster
from harness.scheduler_check import Score, compare_with_scheduler
from harness.scheduler_results import RealScheduler
from harness.waiting import until

CLUSTER_NUMBERS = range(10)  # every second one is tight; `make bench ONLY=plans` has 300
CRDS = Path(__file__).parents[2] / "manifests" / "crds"


@pytest.fixture(scope="module")
def bare() -> Iterator[ControlPlane]:
    """Yield a control plane without any Rescheduler component."""
    with ControlPlane.start() as plane:
        yield plane


@pytest.fixture(scope="module")
def reader(bare: ControlPlane) -> Path:
    """Return a user that may only list the objects of a plan, as docs/reference/cli.md names them."""
    resources = (
        "nodes,namespaces,pods,persistentvolumeclaims,persistentvolumes,replicasets.apps,deployments.apps,"
        "poddisruptionbudgets.policy,daemonsets.apps,services,networkpolicies.networking.k8s.io,volumeattachments.storage.k8s.io,csinodes.storage.k8s.io"
    )
    bare.apply(workloads.namespace("readers"))
    bare.kubectl("create", "serviceaccount", "reader", "-n", "readers")
    bare.kubectl("create", "clusterrole", "reader", "--verb=list", f"--resource={resources}")
    ours = "reschedulepolicies,namespacepools,nodedrains"
    rule = {"apiGroups": ["rescheduler.dev"], "resources": ours.split(","), "verbs": ["list"]}
    meta = {"name": "reader-ours"}
    bare.apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": meta, "rules": [rule]})
    for role in ("reader", "reader-ours"):
        bare.kubectl("create", "clusterrolebinding", role, f"--clusterrole={role}", "--serviceaccount=readers:reader")
    return bare.identity_kubeconfig("readers", "reader")


def stored_cluster(number: int) -> RandomCluster:
    """Return a random cluster as the API server stores it: before Kubernetes 1.34 it drops resources of whole pods."""
    cluster = random_cluster(number)
    if not version_matrix.is_selected("1.34"):
        for pod in (*cluster.staying, *cluster.leaving):
            pod["spec"].pop("resources", None)
    return cluster


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # the scheduler's own metrics
@pytest.mark.every_version("plans")
def test_what_fits_has_a_place_by_the_real_scheduler(bare: ControlPlane) -> None:
    scheduler = RealScheduler(bare)
    scores = {number: compare_with_scheduler(scheduler, stored_cluster(number)) for number in CLUSTER_NUMBERS}
    total = sum(scores.values(), Score())
    assert {number: score for number, score in scores.items() if score.wrong_fits} == {}
    assert total.wrong_does_not_fit <= 0.01 * total.pods, scores
    assert total.unknown <= 0.1 * total.pods, scores  # 5% of 300 clusters; ten clusters vary
    assert total.placed >= 0.5 * total.pods, scores


def reschedule(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from rescheduler.cli.plugin import main; main()", *arguments]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": "operator"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def planned(reader: Path, *arguments: str) -> tuple[int, Any]:
    """Return the exit code, and the output as JSON."""
    found = reschedule(reader, "plan", *arguments, "-o", "json")
    assert not found.stderr
    return found.returncode, json.loads(found.stdout)


@pytest.fixture(scope="module")
def laid(bare: ControlPlane) -> str:
    """Fill a node with pods that fit elsewhere, one that does not, and two that would hold its drain."""
    first, *others = bare.add_nodes(3, prefix="plan-n")
    bare.kubectl("cordon", *others)
    large = [{"name": "app", "image": "simulated", "resources": {"requests": {"memory": "20Gi"}}}]
    bare.apply(workloads.namespace("plan"))
    bare.kubectl("wait", "-n", "plan", "--for=create", "serviceaccount/default")
    bare.apply(
        *(workloads.bare_pod(f"ballast-{n}", "plan", nodeName=n, containers=large) for n in others),
        workloads.bare_pod("alone", "plan"),
        workloads.deployment("only", 1, "plan", annotations={"karpenter.sh/do-not-disrupt": "true"}),
        workloads.budget("only", "plan", minAvailable=1),
        workloads.stateful_set("store", 1, "plan"),
        workloads.budget("store", "plan", minAvailable=1),
        workloads.deployment("large", 1, "plan", containers=large),
    )
    until(lambda: _healthy(bare) == 2, "the pods of plan to run, and their budgets to have counted them", seconds=90)
    until(lambda: len(bare.get("pods", "-n", "plan", f"--field-selector=spec.nodeName={first}")["items"]) == 4, "large")
    bare.kubectl("uncordon", *others)
    return first


def _healthy(plane: ControlPlane) -> int:
    budgets = plane.get("poddisruptionbudgets", "-n", "plan")["items"]
    return sum(budget.get("status", {}).get("currentHealthy", 0) for budget in budgets)


@pytest.mark.every_version("plans")
def test_a_plan_names_what_does_not_fit_and_what_would_hold_the_drain_up(reader: Path, laid: str) -> None:
    code, found = planned(reader, laid)
    assert code == 1
    assert (found["canBeDrained"], found["policy"], found["fit"]) == ("No", None, 2)
    (large,) = found["doNotFit"]
    assert large["pod"].startswith("plan/large-")
    assert "20Gi requested" in large["reason"]
    assert {(each["pod"], each["class"]) for each in found["blocked"]} == {
        ("plan/alone", "Unmanaged"),
        ("plan/store-0", "BudgetMisconfigured"),
    }
    assert [pod.startswith("plan/only-") for pod in found["replacedFirst"]] == [True]
    assert found["optedOut"] == [{"pod": found["replacedFirst"][0], "annotations": ["karpenter.sh/do-not-disrupt"]}]
    text = reschedule(reader, "plan", laid).stdout
    assert "Pods that ask another tool not to disrupt them (1)." in text
    assert all(name in text for name in (large["pod"], "plan/alone", "plan/store-0", found["replacedFirst"][0]))


def test_a_plan_for_all_nodes_says_which_cannot_be_drained(reader: Path, laid: str) -> None:
    code, found = planned(reader, "--all")
    assert code == 1
    answers = {each["node"]: each["canBeDrained"] for each in found}
    assert answers[laid] == "No"
    assert len(answers) == 3
    text = reschedule(reader, "plan", "--all").stdout
    assert "of 3 nodes cannot be drained" in text
    assert any("plan/only-" in line and line.endswith(laid) for line in text.splitlines())


def test_the_live_policy_that_wins_decides(bare: ControlPlane, reader: Path, laid: str) -> None:
    """The last test of this control plane: afterwards it is no longer bare."""
    bare.kubectl("apply", "-f", str(CRDS))
    bare.kubectl("wait", "--for=condition=Established", "crd", "--all")
    until(lambda: planned(reader, laid)[1]["policy"] is None, "the plan to go on by the defaults")
    bare.apply(workloads.policy("lenient", drain={"unmanaged": "Evict", "replacement": "Never"}))
    bare.apply(workloads.pool("quiet", namespaces=["plan"], nodeSelector={"matchLabels": {"quiet": "yes"}}))
    assert "quiet" in reschedule(reader, "pools").stdout
    _, found = planned(reader, laid)
    assert found["policy"] == "lenient"
    assert {each["class"] for each in found["blocked"]} == {"BudgetMisconfigured"}
    assert len(found["blocked"]) == 2


def test_unusable_kubeconfigs_and_nodes_that_are_not_there_are_one_line_each(
    bare: ControlPlane, tmp_path: Path
) -> None:
    broken, away = tmp_path / "broken", tmp_path / "away"
    broken.write_text("nonsense: [")
    away.write_text(bare.kubeconfig.read_text().replace(bare.server, "https://127.0.0.1:1"))
    for kubeconfig, node, word in (
        (tmp_path / "none", "n1", "kubeconfig"),
        (broken, "n1", "kubeconfig"),
        (away, "n1", "does not answer"),
        (bare.kubeconfig, "no-such-node", "node no-such-node does not exist"),
        (bare.identity_kubeconfig("default", "default"), "n1", "cannot list "),
    ):
        found = reschedule(kubeconfig, "plan", node)
        assert found.returncode == 2, found
        assert word in found.stderr
        assert found.stderr.count("\n") == 1, found.stderr
