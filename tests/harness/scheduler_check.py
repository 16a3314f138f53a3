"""Compare a plan with the real scheduler's result, for pods of equal spec."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from harness.random_clusters import SPACES, RandomCluster
from harness.scheduler_results import RealScheduler
from rescheduler.core.model import nodes as model_nodes
from rescheduler.core.model import volume_topology
from rescheduler.core.placement.planner import Fit, Forecast, plan
from rescheduler.core.placement.pod_requirements import PodRequirementsParser
from rescheduler.core.placement.pod_snapshot import PodSnapshot, ScheduledPod
from rescheduler.core.placement.problem import PlacementInput


@dataclass(frozen=True)
class Score:
    """Numbers of pods, of results of the plan, and of wrong results."""

    pods: int = 0
    placed: int = 0
    fits: int = 0
    does_not_fit: int = 0
    unknown: int = 0
    wrong_fits: int = 0
    wrong_does_not_fit: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(*(mine + theirs for mine, theirs in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[int, ...]:
        """Return all numbers, in order."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def placement_input_of(random_cluster: RandomCluster) -> tuple[list[ScheduledPod], PlacementInput]:
    """Return the displaced pods, and the input of a plan for them."""
    census = PodSnapshot(PodRequirementsParser(), {random_cluster.drained})
    for raw in (*random_cluster.staying, *random_cluster.leaving):
        census.add({**raw, "metadata": {"uid": raw["metadata"]["name"], **raw["metadata"]}})
    names = {raw["metadata"]["name"] for raw in random_cluster.leaving}
    leaving = [resident for resident in census.pods_by_node[random_cluster.drained] if _name(resident) in names]
    claims = {
        (body["metadata"]["namespace"], body["metadata"]["name"]): body["spec"]["volumeName"]
        for body in random_cluster.volumes
        if body["kind"] == "PersistentVolumeClaim"
    }
    volumes = [
        volume_topology.parse_volume_topology(body)
        for body in random_cluster.volumes
        if body["kind"] == "PersistentVolume"
    ]
    storage = volume_topology.ClusterVolumes(claims, {reach.volume: reach for reach in volumes})
    nodes = [model_nodes.parse_node(raw) for raw in random_cluster.nodes]
    return leaving, PlacementInput(
        {node.name: node for node in nodes}, census, namespace_labels=SPACES, cluster_volumes=storage
    )


def planned(random_cluster: RandomCluster) -> list[tuple[ScheduledPod, Forecast]]:
    """Return the plan's result for each displaced pod, in the order of its requests for a place."""
    leaving, ground = placement_input_of(random_cluster)
    found = zip(leaving, plan(leaving, ground), strict=True)
    return sorted(found, key=lambda pair: pair[1].rank)


def compare_with_scheduler(scheduler: RealScheduler, random_cluster: RandomCluster) -> Score:
    """Let the scheduler place the pods in the order of the plan."""
    forecasts = planned(random_cluster)
    raw = {body["metadata"]["name"]: body for body in random_cluster.leaving}
    # Later pods may have a higher priority: the scheduler would take them first if they came at the same time.
    last_fit = max((n for n, (_, forecast) in enumerate(forecasts) if forecast.fit is Fit.FITS), default=-1)
    order = [raw[_name(pod)] for pod, _ in forecasts]
    first, others = order[: last_fit + 1], order[last_fit + 1 :]
    scheduler.create_cluster(random_cluster)
    try:
        scheduler.schedule(first)
        refused = scheduler.schedule([*first, *others], asked=len(first))
    finally:
        scheduler.clear()
    return score_of(forecasts, {name for name, why in refused.items() if not why})


def score_of(forecasts: Iterable[tuple[ScheduledPod, Forecast]], placed: set[str]) -> Score:
    """Count placed pods by spec, because pods of equal spec are interchangeable; `placed`: names of pods."""
    said: dict[str, Counter[Fit]] = {}
    there: Counter[str] = Counter()
    for pod, forecast in forecasts:
        app = pod.requirements.labels["app"]
        said.setdefault(app, Counter())[forecast.fit] += 1
        there[app] += _name(pod) in placed
    return sum((_row(counts, there[app]) for app, counts in said.items()), Score())


def _row(said: Counter[Fit], placed: int) -> Score:
    fits, unknown, none = said[Fit.FITS], said[Fit.UNKNOWN], said[Fit.DOES_NOT_FIT]
    wrong, missed = max(0, fits - placed), max(0, placed - fits - unknown)
    return Score(fits + unknown + none, placed, fits, none, unknown, wrong, missed)


def _name(pod: ScheduledPod) -> str:
    return pod.key.partition("/")[2]
