"""What would become of the pods of a node if it were drained now; nothing is written, and nothing kept.

It promises nothing that the drain itself would not find: verdicts, budgets and places are judged by the same rules.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

from rescheduler.api.drains import BlockerClass
from rescheduler.api.policies import Drain
from rescheduler.core.drain import eta
from rescheduler.core.eviction import api_responses
from rescheduler.core.eviction.pod_actions import Circumstances, Fate, Verdict, judge, needs_a_place
from rescheduler.core.model.disruption_budgets import Budget, covering
from rescheduler.core.model.nodes import UNREACHABLE, Node
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volumes import Volumes
from rescheduler.core.model.workloads import Deployment, ReplicaSet, Workload
from rescheduler.core.placement.planner import Fit, Forecast, plan
from rescheduler.core.placement.pod_requirements import Ask
from rescheduler.core.placement.problem import Ground
from rescheduler.core.replacement import decisions


class Answer(StrEnum):
    """Whether a node can be drained now."""

    YES = "Yes"
    UNSURE = "Unsure"  # of some pods only the scheduler can say whether they find a place
    NO = "No"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A pod that a drain would be held up by.

    Attributes:
        message, hint: why, and what would help.
    """

    pod: str
    cause: BlockerClass
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What would become of one node's pods.

    Attributes:
        fits: how many find a place for sure.
        stay: how many are no part of a drain: DaemonSets' and mirror pods, or a rule skips them.
        misfits: those that do not fit, or of which only the scheduler can say, with the forecast.
        singles: pods that are their Deployment's only one: evicted plainly, it is away for a while.
        first: pods whose budget lets none go, and that go once their replacement is Ready.
        takes: how long a drain takes at least.
    """

    node: str
    fits: int
    stay: int
    misfits: tuple[tuple[str, Forecast], ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    singles: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    takes: timedelta = timedelta()

    @property
    def answer(self) -> Answer:
        """Whether the node can be drained."""
        if self.obstacles or any(forecast.fit is Fit.DOES_NOT_FIT for _, forecast in self.misfits):
            return Answer.NO
        return Answer.UNSURE if self.misfits else Answer.YES


@dataclass(frozen=True, slots=True)
class World:
    """What outlooks are made from, as read at one moment.

    Attributes:
        ground: its census knows the pods of `tenants` one by one.
        tenants: pods of the nodes that are asked about or drained now, by node.
        draining: nodes that are being drained now, and how: they take no pods, and theirs need a place too.
        replica_sets: by uid; `deployments`: by uid.
        daemon_sets: uids of those that exist, by namespace.
    """

    now: datetime
    ground: Ground
    tenants: Mapping[str, Sequence[Pod]]
    draining: Mapping[str, Drain] = field(default_factory=dict)
    budgets: Mapping[str, Sequence[Budget]] = field(default_factory=dict)
    replica_sets: Mapping[str, ReplicaSet] = field(default_factory=dict)
    deployments: Mapping[str, Deployment] = field(default_factory=dict)
    volumes: Volumes = field(default_factory=Volumes)
    daemon_sets: Mapping[str, frozenset[str]] = field(default_factory=dict)


Judged = tuple[Pod, Verdict]


def outlook(node: Node, drain: Drain, world: World) -> Outlook:
    """What a drain of this node, with these settings, would come to."""
    judged = _judged(node, drain, world)
    homeless = {pod.uid for pod, verdict in judged if needs_a_place(pod, verdict)}
    residents = [each for each in world.ground.census.residents[node.name] if each.uid in homeless]
    forecasts = plan(residents, _ground(node, world), Random(0)) if residents else []  # noqa: S311 - no secret
    rows = sorted((each.key, forecast) for each, forecast in zip(residents, forecasts, strict=True))
    obstacles, first = _obstacles(judged, drain, world)
    over = {pod.uid: found[0] for pod, _ in judged if (found := _budgets(pod, world))}
    moving = [(pod, verdict) for pod, verdict in judged if verdict.fate is not Fate.STAY]
    lines = eta.Paces().lines(moving, over, timedelta(), grace=drain.grace_period_seconds)
    return Outlook(
        node.name,
        fits=sum(forecast.fit is Fit.FITS for _, forecast in rows),
        stay=len(judged) - len(moving),
        misfits=tuple((key, forecast) for key, forecast in rows if forecast.fit is not Fit.FITS),
        obstacles=tuple(obstacles),
        singles=tuple(sorted(pod.key for pod, _ in moving if _is_single(pod, world))),
        first=tuple(first),
        takes=eta.least(lines, drain.max_evictions_per_second),
    )


def _judged(node: Node, drain: Drain, world: World) -> list[Judged]:
    seen = Circumstances(
        world.now,
        unreachable=node.ready == UNREACHABLE,
        labels=world.ground.spaces,
        daemon_sets=world.daemon_sets,
        volumes=world.volumes,
    )
    return [(pod, judge(pod, drain, seen)) for pod in world.tenants.get(node.name, ())]


def _ground(node: Node, world: World) -> Ground:
    """The ground with what other drains take: their nodes, and places for their pods."""
    others = [name for name in world.draining if name != node.name]
    rivals: dict[Ask, int] = dict(world.ground.census.waiting)
    for name in others:
        if other := world.ground.nodes.get(name):
            moving = {
                pod.uid for pod, verdict in _judged(other, world.draining[name], world) if needs_a_place(pod, verdict)
            }
            for resident in world.ground.census.residents[name]:
                if resident.uid in moving:
                    rivals[resident.ask] = rivals.get(resident.ask, 0) + 1
    return replace(world.ground, closed={*others, node.name}, rivals=rivals)


# -- what holds a drain up --------------------------------------------------------------------------------------------


def _obstacles(judged: Iterable[Judged], drain: Drain, world: World) -> tuple[list[Obstacle], list[str]]:
    """Obstacles by pod, and the pods that only go once their replacement is Ready."""
    found, first = [], []
    for pod, verdict in sorted(judged, key=lambda each: each[0].key):
        if verdict.cause:
            found.append(Obstacle(pod.key, verdict.cause, verdict.message, verdict.hint))
        elif verdict.fate is Fate.EVICT and (held := _held(pod, _budgets(pod, world))):
            if held.cause is not BlockerClass.SEVERAL_BUDGETS and _is_replaced_first(pod, drain, world):
                first.append(pod.key)
            else:
                found.append(held)
    return found, first


def _budgets(pod: Pod, world: World) -> tuple[Budget, ...]:
    return covering(pod, world.budgets.get(pod.namespace, ()))


def _held(pod: Pod, over: Sequence[Budget]) -> Obstacle | None:
    """What its budgets say to an eviction now."""
    refused = api_responses.foresee(pod, over)
    if refused is None or refused.cause is None:
        return None
    return Obstacle(pod.key, refused.cause, refused.message, refused.hint)


def _workload(pod: Pod, world: World) -> Workload | None:
    owner = world.replica_sets.get(pod.owner.uid) if pod.owner else None
    deployment = world.deployments.get(owner.deployment_uid) if owner else None
    return Workload(deployment, (owner,), (pod,)) if owner and deployment else None


def _is_replaced_first(pod: Pod, drain: Drain, world: World) -> bool:
    exclusive = world.volumes.exclusive(pod)
    setting = decisions.Setting(drain, world.now, _budgets(pod, world), exclusive)
    return not decisions.ineligible(pod, _workload(pod, world), setting)


def _is_single(pod: Pod, world: World) -> bool:
    workload = _workload(pod, world)
    return workload is not None and workload.replicas == 1
