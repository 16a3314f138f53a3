"""Findings about pods, by the rules of the drain."""

from collections.abc import Mapping, Sequence
from typing import Any

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import DrainSettings
from rescheduler.cli.check.findings import Finding, Level, Topic
from rescheduler.cli.check.pod_findings import PodFacts, find_in_pods
from rescheduler.core.drain.preview import preview_node
from rescheduler.core.model.disruption_budgets import DisruptionBudget, parse_budget
from rescheduler.core.model.pods import Owner, Pod
from rescheduler.core.model.workloads import Deployment
from unit.builders import NOW, node, pod, raw_budget
from unit.core.drain.preview_inputs import WEB, limit, pod_of_kind, world

OWNER = Owner("ReplicaSet", "web-1", "r1")
LABELS = {"app": "a", "pod-template-hash": "1"}
NOTHING_ALLOWED = {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}


def web(name: str = "p", **fields: Any) -> Pod:
    """Return a pod of the Deployment web."""
    return pod(name, node="n", labels=LABELS, **{"owner": OWNER} | fields)


def budget(name: str = "b", **status: int) -> DisruptionBudget:
    return parse_budget(raw_budget(name, app="a", **NOTHING_ALLOWED | status))


def found_in(*pods: Pod, budgets: Sequence[DisruptionBudget] = (), **facts: Any) -> Mapping[Topic, list[Finding]]:
    deployments = {("s", "web"): facts.pop("deployment", Deployment("s", "web", "d1", replicas=3))}
    found = find_in_pods(PodFacts(NOW, pods, {"n": node("n")}, {"s": budgets}, deployments, **facts))
    by_topic: dict[Topic, list[Finding]] = {}
    for row in found:
        by_topic.setdefault(row.topic, []).append(row)
    return by_topic


def test_a_budget_that_never_allows_is_a_problem_without_replacement_first() -> None:
    owner = Owner("StatefulSet", "db", "s1")
    (problem,) = found_in(web(owner=owner), budgets=[budget()])[Topic.BUDGETS]
    assert (problem.level, "BudgetMisconfigured" in problem.state) == (Level.PROBLEM, True)
    assert problem.objects[0].startswith("s/b: ")
    assert "PodDisruptionBudget b" in problem.next_step


def test_the_same_budget_is_a_note_if_the_pod_is_replaced_first() -> None:
    (note,) = found_in(web(), budgets=[budget()])[Topic.BUDGETS]
    assert (note.level, list(note.objects)) == (Level.NOTE, ["s/p"])


def test_a_budget_that_waits_for_ready_pods_is_a_warning() -> None:
    owner = Owner("StatefulSet", "db", "s1")
    exhausted = budget(expectedPods=2, currentHealthy=1, desiredHealthy=1)
    (warning,) = found_in(web(owner=owner), budgets=[exhausted])[Topic.BUDGETS]
    assert (warning.level, "BudgetExhausted" in warning.state) == (Level.WARNING, True)


def test_two_budgets_of_one_pod_are_a_problem_even_with_replacement_first() -> None:
    (problem,) = found_in(web(), budgets=[budget("a"), budget("b")])[Topic.BUDGETS]
    assert (problem.level, "SeveralBudgets" in problem.state) == (Level.PROBLEM, True)
    assert problem.objects[0].startswith("s/a + b: ")


def test_a_budget_without_pods_is_a_note() -> None:
    rows = found_in(pod("p", node="n"), budgets=[budget()])[Topic.BUDGETS]
    assert [(row.level, list(row.objects)) for row in rows] == [(Level.OK, []), (Level.NOTE, ["s/b"])]


def test_a_pod_that_nothing_recreates_would_block() -> None:
    (problem,) = found_in(web(owner=None))[Topic.PODS]
    assert (problem.level, list(problem.objects)) == (Level.PROBLEM, ["s/p on n"])
    assert "Unmanaged" in problem.state


def test_a_pod_that_only_its_node_can_have_is_a_note() -> None:
    rows = found_in(web(pinned_to_node=True))[Topic.PODS]
    assert [row.level for row in rows] == [Level.OK, Level.NOTE]
    assert list(rows[1].objects) == ["s/p on n"]


def test_a_pod_with_data_in_a_host_path_is_a_note() -> None:
    rows = found_in(web(host_paths=("/data",), has_host_data=True))[Topic.PODS]
    assert [(row.level, "hostPath" in row.state) for row in rows] == [(Level.OK, False), (Level.NOTE, True)]


def test_a_pod_that_asks_other_tools_not_to_disrupt_it_is_a_note() -> None:
    rows = found_in(web(annotations={"karpenter.sh/do-not-disrupt": "true"}))[Topic.PODS]
    assert [list(row.objects) for row in rows if row.level is Level.NOTE] == [["s/p: karpenter.sh/do-not-disrupt"]]


def test_a_template_that_names_a_node_is_a_warning() -> None:
    rows = found_in(web(), workloads_with_node_name=["Deployment s/web"])[Topic.PODS]
    assert [list(row.objects) for row in rows if row.level is Level.WARNING] == [["Deployment s/web"]]


def test_daemon_set_pods_and_finished_pods_are_no_findings() -> None:
    daemon = web("d", owner=Owner("DaemonSet", "agent", "d"))
    finished = web("f", owner=None, phase="Succeeded")
    found = found_in(daemon, finished, budgets=[budget()])
    assert {row.level for rows in found.values() for row in rows} == {Level.OK}


def test_single_replicas_are_away_unless_they_are_replaced_first() -> None:
    single = Deployment("s", "web", "d1", replicas=1)
    (note,) = found_in(web(), deployment=single)[Topic.REPLICAS]
    assert (note.level, list(note.objects)) == (Level.NOTE, ["s/p"])
    recreate = Deployment("s", "web", "d1", replicas=1, allows_surge=False)
    (warning,) = found_in(web(), deployment=recreate)[Topic.REPLICAS]
    assert warning.level is Level.WARNING
    assert list(warning.objects) == ["s/p: its Deployment allows no additional pod"]


def test_a_stateful_set_of_one_replica_is_away() -> None:
    owner = Owner("StatefulSet", "db", "s1")
    (warning,) = found_in(web(owner=owner), single_stateful_sets=frozenset({"s1"}))[Topic.REPLICAS]
    assert (warning.level, len(warning.objects)) == (Level.WARNING, 1)


def test_the_classes_of_blockers_are_those_of_a_plan_of_the_node() -> None:
    labels = {"app": "a", "pod-template-hash": "1"}
    seen = world(
        [
            pod_of_kind("web", labels=labels),
            pod_of_kind("db", kind="StatefulSet", labels=labels),
            pod_of_kind("bare", kind=""),
            pod_of_kind("kept", notes={"rescheduler.dev/do-not-disrupt": "true"}),
            pod_of_kind("daemon", kind="DaemonSet", labels=labels),
        ],
        limit("b"),
    )
    planned = preview_node(seen.placement_input.nodes["old"], DrainSettings(), seen)
    facts = PodFacts(
        seen.now,
        seen.pods_by_node["old"],
        nodes=seen.placement_input.nodes,
        budgets=seen.budgets,
        deployments={("s", "web"): WEB},
    )
    problems = [row.state for row in find_in_pods(facts) if row.level is Level.PROBLEM]
    classes = {blocker.blocker_class for blocker in planned.blockers}
    assert {name for name in BlockerClass if any(f"({name})" in state for state in problems)} == classes
    assert len(classes) == 3


def test_a_hint_for_one_of_several_pods_names_it() -> None:
    (problem,) = found_in(web("a", owner=None), web("b", owner=None))[Topic.PODS]
    assert problem.next_step.startswith("for s/a: ")
