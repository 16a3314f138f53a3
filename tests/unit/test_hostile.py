"""What others write may be anything: it costs its own object at most, and no decision ever fails on what was taken in."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import hostile
from hostile import Json, either, projected
from rescheduler.api import drains, untrusted
from rescheduler.api.drains import NodeDrain, NodeDrainStatus, RequestReason
from rescheduler.api.policies import ReschedulePolicy
from rescheduler.api.pools import NamespacePool
from rescheduler.api.scalars import dump
from rescheduler.api.untrusted import UnreadableError
from rescheduler.core.drain import deadlocks, eta, node_patches, pod_summary, requests, triggers
from rescheduler.core.drain import status as drain_status
from rescheduler.core.drain.state_machine import Report
from rescheduler.core.eligibility import cluster_state, concurrency, decision
from rescheduler.core.eligibility.windows import window_state
from rescheduler.core.eviction import pod_actions
from rescheduler.core.failure import condition_history, fencing, health
from rescheduler.core.model import (
    admission,
    disruption_budgets,
    external_owners,
    listed_pods,
    namespaces,
    object_schemas,
    pods,
    resource_requests,
    volume_topology,
    volumes,
    workloads,
)
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model.policy_selection import PolicySelector
from rescheduler.core.model.release_record import ReleaseRecord
from rescheduler.core.placement import planner, successors
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot
from rescheduler.core.placement.problem import PlacementInput
from rescheduler.core.placement.successors import successor
from rescheduler.core.pools import labels_and_taints, misplaced_pods, taint_safety
from rescheduler.core.pools.membership import PoolMemberships
from rescheduler.core.rebalance import candidates, utilization
from rescheduler.core.replacement import decisions, move_history

NOW = datetime(2026, 1, 1, 0, 20, tzinfo=UTC)
few = settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
)

pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # of arguments that are long
Project = Callable[[Json], Any]
CHANGED = object_schemas.sanitize_pod({**hostile.POD, "metadata": {**hostile.POD["metadata"], "generation": 2}})
KUBERNETES: dict[str, tuple[Json, Project]] = {
    "node": (hostile.NODE, model_nodes.parse_node),
    "pod": (hostile.POD, pods.parse_pod),
    "released pod": (hostile.RELEASED_POD, pods.parse_pod),
    "Terminating pod": (hostile.DELETED_POD, pods.parse_pod),
    "budget": (hostile.BUDGET, disruption_budgets.parse_budget),
    "Deployment": (hostile.DEPLOYMENT, workloads.parse_deployment),
    "ReplicaSet": (hostile.REPLICA_SET, workloads.parse_replica_set),
    "StatefulSet": (hostile.STATEFUL_SET, lambda raw: successor(CHANGED, successors.stateful_set_template(raw))),
    "changed pod": (
        {**hostile.POD, "metadata": {**hostile.POD["metadata"], "generation": 2}},
        lambda raw: successor(object_schemas.sanitize_pod(raw), successors.stateful_set_template(hostile.STATEFUL_SET)),
    ),
    "Job": (hostile.JOB, workloads.replaces_terminating_pods),
    "DeviceClass": (
        hostile.DEVICE_CLASS,
        lambda raw: resource_requests.device_resources([object_schemas.sanitize_device_class(raw)]),
    ),
    "claim": (hostile.CLAIM, volumes.parse_volume_claim),
    "volume": (hostile.VOLUME, volumes.parse_volume),
    "reach": (hostile.VOLUME, volume_topology.parse_volume_topology),
    "attachment": (hostile.ATTACHMENT, volumes.parse_volume_attachment),
    "namespace": (hostile.NAMESPACE, namespaces.parse_namespace),
    "Machine": (hostile.MACHINE, external_owners.machine_owner_reason),
    "medik8s Lease": (hostile.LEASE, lambda raw: external_owners.lease_holder_reason(raw, NOW)),
    "DaemonSet": (hostile.DAEMON_SET, workloads.parse_daemon_set),
    "binding of admission": (hostile.ADMISSION_BINDING, admission.parse_admission_object),
    "listed pod": (hostile.POD, listed_pods.parse_listed_pod),
    "requests": (hostile.POD, resource_requests.allocated_resources),
}
OURS: dict[str, tuple[Json, Project]] = {
    "ReschedulePolicy": (hostile.POLICY, ReschedulePolicy.from_object),
    "NamespacePool": (hostile.POOL, NamespacePool.from_object),
    "NodeDrain": (hostile.DRAIN, NodeDrain.from_object),
}
OWNERS = [ReschedulePolicy.from_object(hostile.POLICY)]


@pytest.mark.parametrize("kind", [*KUBERNETES, *OURS])
def test_a_valid_object_is_read(kind: str) -> None:
    valid, project = (KUBERNETES | OURS)[kind]
    project(valid)


@pytest.mark.parametrize("kind", [*KUBERNETES, *OURS])
def test_any_json_in_any_place_is_read_or_refused(kind: str) -> None:
    valid, project = (KUBERNETES | OURS)[kind]
    for raw in (*hostile.one_mutated(valid), *hostile.ANYTHING):
        with contextlib.suppress(ValueError):
            project(raw)


@pytest.mark.parametrize("kind", OURS)
def test_any_value_in_an_object_of_ours_is_read_or_refused(kind: str) -> None:
    valid, project = OURS[kind]
    for raw in hostile.one_forged(valid):
        with contextlib.suppress(ValueError):
            project(raw)


@pytest.mark.parametrize("kind", KUBERNETES)
def test_an_object_that_the_api_server_lets_in_is_read(kind: str) -> None:
    """Whatever stands in it, but for an operator of a selector that nobody knows yet."""
    valid, project = KUBERNETES[kind]
    known = _operators(valid)
    for raw in hostile.one_forged(valid):
        if _operators(raw) == known:
            project(raw)


def _operators(raw: Json) -> list[Json]:
    """The operators of all selectors."""
    if isinstance(raw, dict):
        return (
            [raw["operator"]]
            if "operator" in raw and "effect" not in raw
            else [found for part in raw.values() for found in _operators(part)]
        )
    return [found for part in raw for found in _operators(part)] if isinstance(raw, list) else []


# -- records ----------------------------------------------------------------------------------------------------------


def some_nodes() -> st.SearchStrategy[model_nodes.Node]:
    return projected(hostile.NODE, model_nodes.parse_node)


def some_pods() -> st.SearchStrategy[pods.Pod]:
    return st.one_of(
        projected(hostile.POD, pods.parse_pod),
        projected(hostile.RELEASED_POD, pods.parse_pod),
        projected(hostile.DELETED_POD, pods.parse_pod),
    )


def policies() -> st.SearchStrategy[ReschedulePolicy]:
    return st.just(OWNERS[0]) | projected(hostile.POLICY, ReschedulePolicy.from_object)


def ask(
    one: model_nodes.Node, then: model_nodes.Node, policy: ReschedulePolicy, standing: set[RequestReason], odd: bool
) -> None:
    seen = None
    for minutes, node in enumerate((one, then, then, one, then)):
        now = NOW + timedelta(minutes=minutes)
        seen = condition_history.observe(seen, node, policy, now, suspected=odd)
        view = triggers.TriggerContext(dict.fromkeys(standing, ""), suspected=odd)
        wants = triggers.wanted_requests(node, policy, seen, now, view)
        health.diagnose(node, policy, seen, now, failure_known=odd, suspected=odd)
        health.unhealthy_cause_names(node, policy, seen, now, suspected=odd, lease_renewed=odd)
        stale = triggers.stale_cancellations(node, wants, seen)
        node_patches.drop_cancelled_patch(node, stale)
        created = requests.required_change(node, None, wants)
        # Every text of ours fits where it goes: a status or spec that is refused would be refused for ever.
        assert created is None or len(json.dumps(created.body)) < 30_000  # type: ignore[union-attr]
    condition_history.restart_timers(seen, NOW)  # type: ignore[arg-type]
    condition_history.with_flapping(seen, 3, NOW)  # type: ignore[arg-type]


@few
@given(some_nodes(), some_nodes(), policies(), st.sets(st.sampled_from(RequestReason)), st.booleans())
def test_no_node_stops_what_is_asked_of_it(
    one: model_nodes.Node, then: model_nodes.Node, policy: ReschedulePolicy, standing: set[RequestReason], odd: bool
) -> None:
    ask(one, then, policy, standing, odd)


def prove(node: model_nodes.Node, then: model_nodes.Node, drain: NodeDrain, odd: bool) -> None:
    seen = fencing.observe_boot(fencing.observe_boot(None, node), then)
    for each in (node, then):
        found = fencing.find_proof(each, seen, own_taint=odd, known_method="", now=NOW)
        assert len(found.attestation_error or "") < 1000
        fencing.proof_hint(each)
        fencing.taint_action(each, drain.status.node, taint_due=odd, node_in_use=odd)
        adds = node_patches.additions(each, set(RequestReason), exclude_from_load_balancers=True)
        record = node_patches.cordon_record(each, drain.status.node, adds)
        assert len(json.dumps(dump(node_patches.cordon_record(each, None, adds)))) < 5000
        for patch in (
            node_patches.cordon_patch(each, record),
            node_patches.restore_patch(each, record, {"Maintenance": each.maintenance_annotation or ""}),
            node_patches.cleanup_patch(each),
            node_patches.waiting_taint_patch(each, node_patches.waiting_record(each, record)),
            node_patches.out_of_service_patch(each),
            node_patches.in_service_patch(each),
            labels_and_taints.node_patch(each, labels_and_taints.PoolAssignment("blue", tainted=True)),
        ):
            json.dumps(patch).encode()
        external_owners.node_owner_reason(each)
        external_owners.machine_of(each)
        utilization.imbalance([utilization.node_load(each, {"cpu": 5}), utilization.node_load(node, {})])


@few
@given(some_nodes(), some_nodes(), projected(hostile.DRAIN, NodeDrain.from_object), st.booleans())
def test_no_node_stops_what_is_proven_or_written_of_it(
    node: model_nodes.Node, then: model_nodes.Node, drain: NodeDrain, odd: bool
) -> None:
    prove(node, then, drain, odd)


def decide(
    one: pods.Pod,
    other: pods.Pod,
    policy: ReschedulePolicy,
    budget: disruption_budgets.DisruptionBudget,
    owner: workloads.ReplicaSet,
    behind: workloads.Deployment,
    odd: bool,
) -> None:
    drain, rows = policy.spec.drain, []
    for pod in (one, other):
        disruption_budgets.budgets_for(pod, [budget])
        budget.allows_eviction_of(pod)
        for unreachable in (False, True):
            seen = pod_actions.EvictionContext(
                NOW, NOW - timedelta(hours=2), node_unreachable=unreachable, node_failing=True, boot_dead=odd
            )
            verdict = pod_actions.decide_action(pod, drain, seen)
            pod_actions.bypass_budget(pod, verdict, seen)
            assert verdict.grace_seconds is None or 1 <= verdict.grace_seconds < 2**31
            assert len(verdict.owner_message or "") < 3000
        rows.append((pod, verdict))
    tally = pod_summary.summarize(rows, {}, {}, {}, NOW, unreachable=odd)
    assert len(json.dumps([dump(blocker) for blocker in tally.blockers])) < 20_000
    lines = eta.EvictionRates().group_pods(rows, {one.uid: budget}, timedelta(minutes=5))
    eta.completion(lines, active_time=timedelta(minutes=5), moved=1, now=NOW, rate=20)
    eta.min_duration(lines, 20)
    known = move_history.MoveHistory()
    for pod in (one, other):
        known.record_move(pod, NOW)
        known.is_replacement(pod, NOW)
    workload = workloads.Workload(behind, (owner,), (one, other))
    for pod in (one, other):
        setting = decisions.ReplacementInput(drain, NOW, (budget,), has_single_node_volume=odd, release_only=odd)
        for each in (workload, workloads.Workload(None, (owner,), (pod,)), None):
            decisions.decide(pod, each, setting)
            decisions.decide_return(pod, each, NOW)
            decisions.ineligible_reason(pod, each, setting)
            if each:
                decisions.is_surplus(pod, each)
                decisions.ready_before_release(each)


@few
@given(
    some_pods(),
    some_pods(),
    policies(),
    projected(hostile.BUDGET, disruption_budgets.parse_budget),
    projected(hostile.REPLICA_SET, workloads.parse_replica_set),
    projected(hostile.DEPLOYMENT, workloads.parse_deployment),
    st.booleans(),
)
def test_no_pod_stops_a_verdict_on_it(
    one: pods.Pod,
    other: pods.Pod,
    policy: ReschedulePolicy,
    budget: disruption_budgets.DisruptionBudget,
    owner: workloads.ReplicaSet,
    behind: workloads.Deployment,
    odd: bool,
) -> None:
    decide(one, other, policy, budget, owner, behind, odd)


def memberships(pool: NamespacePool) -> PoolMemberships:
    found = PoolMemberships()
    found.put_pool(NamespacePool.from_object(hostile.POOL))
    found.put_pool(pool)
    found.put_namespace(namespaces.parse_namespace(hostile.NAMESPACE))
    found.put_node(model_nodes.parse_node(hostile.NODE))
    return found


def count(
    raws: list[Json], node: model_nodes.Node, pool: NamespacePool, reach: volume_topology.VolumeTopology, random: Random
) -> None:
    raws = [raw for raw in raws if is_pod(raw)]
    census, sums, view = (
        PodSnapshot(PodRequirementsParser({"shop": "blue"}), {"n1"}),
        misplaced_pods.PodTotals(NOW, frozenset()),
        misplaced_pods.MembershipSnapshot.of(memberships(pool)),
    )
    for raw in raws:
        census.add(raw)
    listed = [listed_pods.parse_listed_pod(raw) for raw in raws]
    for pod in listed:
        sums.add(pod, view)
        candidates.candidate_from_pod(pod, OWNERS[0].spec.drain, pod_actions.EvictionContext(NOW))
        deadlocks.would_fit(pod, node, listed)
        deadlocks.would_count_toward_budget(pod, [disruption_budgets.parse_budget(hostile.BUDGET)], node, listed)
        pod.node_constraints.requires_pool("blue")
    other = model_nodes.parse_node({**hostile.NODE, "metadata": {**hostile.NODE["metadata"], "name": "n2"}})
    around = {"n1": node, "n2": other, "n3": node}
    storage = volume_topology.ClusterVolumes({("shop", "data"): reach.volume}, {reach.volume: reach})
    residents = census.pods_by_node["n1"]
    if residents:
        ground = PlacementInput(
            around, census, excluded_nodes={"n1"}, competing_pods=census.pending, cluster_volumes=storage
        )
        planner.plan(residents, ground, random)
    found = taint_safety.plan_taint("blue", {"n1"}, {"n1"}, around.values(), lambda _: True)
    taint_safety.unschedulable_pods(listed, found)
    taint_safety.claims_of_affected_pods(listed, found)


@few
@given(
    st.lists(either(hostile.POD), min_size=1, max_size=3),
    some_nodes(),
    projected(hostile.POOL, NamespacePool.from_object),
    projected(hostile.VOLUME, volume_topology.parse_volume_topology),
    st.randoms(use_true_random=False),
)
def test_no_raw_pod_stops_a_plan_or_a_count(
    raws: list[Json], node: model_nodes.Node, pool: NamespacePool, reach: volume_topology.VolumeTopology, random: Random
) -> None:
    count(raws, node, pool, reach, random)


def is_pod(raw: Json) -> bool:
    try:
        pods.parse_pod(raw)
    except ValueError:
        return False
    return True


@few
@given(either(hostile.DAEMON_SET), some_nodes())
def test_no_daemon_set_stops_an_exclusion(raw: Json, node: model_nodes.Node) -> None:
    found = taint_safety.plan_taint("blue", {node.name}, {node.name}, [node], lambda _: True)
    with contextlib.suppress(UnreadableError):
        taint_safety.unschedulable_daemon_sets([workloads.parse_daemon_set(raw)], found)


def report(
    drain: NodeDrain, policy: ReschedulePolicy, node: model_nodes.Node, kind: Report, phase: drains.Phase
) -> None:
    seen = condition_history.observe(None, node, policy, NOW)
    there = {node.name: node, drain.spec.node_name: node}
    world = cluster_state.ClusterState(
        there, PolicySelector([policy]), {drain.name: drain}, NOW, NOW, {node.name: seen}
    )
    held = decision.wait_reason(drain, world, NOW)
    decision.is_only_suspected(drain, world, NOW)
    concurrency.is_blocked_for_long(drain, NOW)
    deadlocks.deadlock_candidates(drain, [drain], NOW)
    settings_ = drain.spec.drain.apply_to(policy.spec.drain)
    scene = drain_status.StatusInput(
        drain=drain,
        node=node,
        policy=policy,
        phase=phase,
        report=kind,
        wait=held,
        node_record=drain.status.node,
        started_at=drain.status.started_at,
        pod_summary=pod_summary.PodSummary(),
        moved=1,
        now=NOW,
        settings=settings_,
    )
    status = drain_status.build(scene)
    json.dumps(dump(status)).encode()
    NodeDrainStatus.model_validate(dump(status))
    drain_status.deadline(scene)


@few
@given(
    projected(hostile.DRAIN, NodeDrain.from_object),
    policies(),
    some_nodes(),
    st.sampled_from(Report),
    st.sampled_from(drains.Phase),
)
def test_no_drain_stops_its_turn_or_its_report(
    drain: NodeDrain, policy: ReschedulePolicy, node: model_nodes.Node, kind: Report, phase: drains.Phase
) -> None:
    report(drain, policy, node, kind, phase)


@few
@given(policies())
def test_no_policy_stops_its_windows(policy: ReschedulePolicy) -> None:
    window_state(policy.spec.maintenance.windows, NOW)
    json.dumps(dump(policy.spec)).encode()


@few
@given(some_nodes(), either(hostile.POD))
def test_no_spec_stops_the_question_whether_a_node_may_run_it(node: model_nodes.Node, raw: Json) -> None:
    if is_pod(raw):
        constraints = listed_pods.parse_listed_pod(raw).node_constraints
        constraints.allows_node(node)
        assert isinstance(constraints.referenced_node_labels, frozenset)


# -- each value by itself ---------------------------------------------------------------------------------------------


SOME = 3
"""Of so many forgeries one is decided on: each place has many values, and each value many places."""


def each_record(valid: Json, project: Project) -> list[Any]:
    """What a projection makes of a valid object with one hostile value in it; what it cannot see is there once."""
    found: dict[str, Any] = {}
    for raw in islice(hostile.one_forged(valid), 0, None, SOME):
        with contextlib.suppress(ValueError):
            record = project(raw)
            found.setdefault(repr(record), record)
    return list(found.values())


NODE, POD = model_nodes.parse_node(hostile.NODE), pods.parse_pod(hostile.POD)
POLICY, DRAIN = OWNERS[0], NodeDrain.from_object(hostile.DRAIN)
BUDGET = disruption_budgets.parse_budget(hostile.BUDGET)
REPLICA_SET, DEPLOYMENT = (
    workloads.parse_replica_set(hostile.REPLICA_SET),
    workloads.parse_deployment(hostile.DEPLOYMENT),
)


def test_no_value_on_a_node_stops_anything() -> None:
    for node in each_record(hostile.NODE, model_nodes.parse_node):
        ask(node, NODE, POLICY, set(RequestReason), True)
        prove(NODE, node, DRAIN, False)


def test_no_value_on_a_pod_stops_a_verdict() -> None:
    for valid in (hostile.POD, hostile.RELEASED_POD, hostile.DELETED_POD):
        for pod in each_record(valid, pods.parse_pod):
            decide(pod, POD, POLICY, BUDGET, REPLICA_SET, DEPLOYMENT, True)


@pytest.mark.parametrize("text", [*hostile.MOVES, *hostile.TEXTS], ids=range(len(hostile.MOVES) + len(hostile.TEXTS)))
def test_a_move_can_be_counted_with_or_is_none(text: str) -> None:
    if move := ReleaseRecord.from_annotation(text):
        assert type(move.ready_pods) is type(move.attempt) is int
        assert min(move.ready_pods, move.attempt) >= 0
        assert untrusted.EARLIEST_TIME <= move.released_at <= untrusted.LATEST_TIME
        assert ReleaseRecord.from_annotation(move.to_annotation()) == move


def test_no_value_on_an_owner_or_a_budget_stops_a_verdict() -> None:
    for budget in each_record(hostile.BUDGET, disruption_budgets.parse_budget):
        decide(POD, POD, POLICY, budget, REPLICA_SET, DEPLOYMENT, False)
    for owner in each_record(hostile.REPLICA_SET, workloads.parse_replica_set):
        decide(POD, POD, POLICY, BUDGET, owner, DEPLOYMENT, False)
    for behind in each_record(hostile.DEPLOYMENT, workloads.parse_deployment):
        decide(POD, POD, POLICY, BUDGET, REPLICA_SET, behind, False)


def test_no_value_in_a_drain_stops_it() -> None:
    for drain in each_record(hostile.DRAIN, NodeDrain.from_object):
        report(drain, POLICY, NODE, Report.PHASE, drains.Phase.DRAINING)
        prove(NODE, NODE, drain, True)


def test_no_value_in_a_policy_stops_anything() -> None:
    for policy in each_record(hostile.POLICY, ReschedulePolicy.from_object):
        window_state(policy.spec.maintenance.windows, NOW)
        ask(NODE, NODE, policy, set(), True)
        decide(POD, POD, policy, BUDGET, REPLICA_SET, DEPLOYMENT, False)
        report(DRAIN, policy, NODE, Report.PAUSED, drains.Phase.WAITING)


def test_no_value_in_a_raw_pod_stops_a_plan() -> None:
    reach, pool = volume_topology.parse_volume_topology(hostile.VOLUME), NamespacePool.from_object(hostile.POOL)
    seen = set()
    rows = (*hostile.one_forged(hostile.POD), *hostile.one_mutated(hostile.POD))
    for raw in filter(is_pod, islice(rows, 0, None, SOME)):
        if (text := repr(raw.get("spec"))) not in seen:
            seen.add(text)
            count([raw], NODE, pool, reach, Random(0))
