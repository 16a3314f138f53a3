"""Entries of the catalogue, parsed from their files."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from harness import workloads

OWNER = "catalogue/owner"
"""Pod label with the name of the workload that created the pod. Selectors of an entry may overlap, this label not."""
SITE = "site"
"""Label of the nodes of one cell, and the nodeSelector of its pods."""
FOLDER = Path(__file__).parent / "entries"
_BUILDERS = {
    build.__name__: build
    for build in (
        workloads.deployment,
        workloads.replica_set,
        workloads.stateful_set,
        workloads.daemon_set,
        workloads.job,
        workloads.bare_pod,
        workloads.budget,
        workloads.service,
    )
}
_CLUSTER_SCOPED = frozenset(
    {
        "DeviceClass",
        "PersistentVolume",
        "PriorityClass",
        "ResourceSlice",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
)


class Way(StrEnum):
    """Tool or setting that drains the nodes of an entry."""

    KUBECTL = "kubectl"
    DEFAULT = "default"
    NEVER = "never"
    PEER = "peer"

    @property
    def heading(self) -> str:
        """Return the words of the table."""
        return {
            Way.KUBECTL: "`kubectl drain`",
            Way.DEFAULT: "Rescheduler",
            Way.NEVER: "Rescheduler, `replacement: Never`",
            Way.PEER: "the other tool",
        }[self]


class Column(StrEnum):
    """Column of the comparison."""

    FINISHED = "finished"
    SECONDS = "seconds"
    READY = "ready"
    PAST_BUDGET = "pastBudget"
    TWICE = "twice"
    REPORTED = "reported"
    OUTCOME = "outcome"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeShape(_Part):
    """A node of an entry."""

    labels: dict[str, str] = {}
    taints: list[dict[str, str]] = []
    cpu: str = "8"


class Outcome(_Part):
    """Result that must hold for Rescheduler with its defaults.

    Attributes:
        least: by owner, the lowest number of Ready pods that is allowed.
        reports: by owner, the class of blocker that must be reported.
    """

    finished: bool = True
    least: dict[str, int] = {}
    reports: dict[str, str] = {}


class Entry(_Part):
    """A kind of cluster.

    Attributes:
        name: of the file.
        drain: the number of nodes to drain, the first ones.
        objects: placed on the first node, unless `anywhere`.
        serve: owners whose first pods are set Ready by hand, because their template never is.
        then: objects that are created once all pods are Ready.
        commands: arguments of kubectl, run after that in the namespace.
        neighbours: what others do; see `neighbours`.
        policy: spec of the ReschedulePolicy.
        seconds: time limit of each way.
        once: owners whose pods must never run twice, in addition to StatefulSets, Jobs, bare pods and Recreate.
        stays: owners whose pods stay on the node by a rule.
        intended: by column, why Rescheduler is worse on purpose.
        known: why the entry fails today.
        alone: it disturbs the control plane, so that nothing else runs at that time.
    """

    name: str
    title: str
    about: str
    nodes: list[NodeShape] = [NodeShape(), NodeShape(), NodeShape()]
    drain: int = 1
    objects: list[dict[str, Any]] = []
    anywhere: bool = False
    serve: list[str] = []
    then: list[dict[str, Any]] = []
    commands: list[str] = []
    neighbours: list[dict[str, Any]] = []
    policy: dict[str, Any] = {}
    seconds: int = 45
    once: list[str] = []
    stays: list[str] = []
    outcome: Outcome = Field(default_factory=Outcome)
    intended: dict[Column, str] = {}
    known: str = ""
    alone: bool = False

    @classmethod
    def load(cls, file: Path, space: str = "space") -> "Entry":
        """Parse a file; `${space}` in it stands for the namespace. Raises ValueError that names the field."""
        text = Template(file.read_text()).substitute(space=space)
        return cls.model_validate({"name": file.stem, **yaml.safe_load(text)})

    def built(self, described: list[dict[str, Any]], space: str) -> list[dict[str, Any]]:
        """Return complete objects of a namespace, whose pods stay on the nodes of this cell."""
        return [mark(_build(each, space), space) for each in described]


def names() -> list[str]:
    """Return names of all entries."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def load(name: str, space: str = "space") -> Entry:
    """Return an entry of the folder."""
    return Entry.load(FOLDER / f"{name}.yaml", space)


def _build(described: Mapping[str, Any], space: str) -> dict[str, Any]:
    """Return an object that is described by a builder of `workloads` and a `merge`, or in full."""
    if "kind" in described:
        return dict(described)
    ((kind, settings),) = [(key, value) for key, value in described.items() if key != "merge"]
    build: Any = _BUILDERS[kind]
    return merged(build(namespace=space, **settings), described.get("merge", {}))


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON merge of two objects; lists and scalars of the second win."""
    both = {key: value for key, value in more.items() if not isinstance(value, dict)}
    nested = {key: merged(base.get(key) or {}, value) for key, value in more.items() if isinstance(value, dict)}
    return {**base, **both, **nested}


def mark(made: dict[str, Any], space: str) -> dict[str, Any]:
    """Return the object with its namespace, and its pods with their owner and the nodes of their cell."""
    name, kind = made["metadata"]["name"], made["kind"]
    if kind not in _CLUSTER_SCOPED:
        made = merged(made, {"metadata": {"namespace": space}})
    if kind == "Pod":
        return _pod(made, name, space)
    if template := made.get("spec", {}).get("template"):
        return merged(made, {"spec": {"template": _pod(template, name, space)}})
    return made


def _pod(made: dict[str, Any], owner: str, space: str) -> dict[str, Any]:
    here = {} if "nodeName" in made["spec"] else {"nodeSelector": {SITE: space}}
    return merged(made, {"metadata": {"labels": {OWNER: owner}}, "spec": here})


def wanted(made: Mapping[str, Any], nodes: int) -> int:
    """Return the number of pods of an object."""
    spec = made.get("spec", {})
    match made["kind"]:
        case "Deployment" | "StatefulSet" | "ReplicaSet":
            return int(spec["replicas"])
        case "Job":
            return int(spec.get("parallelism", 1))
        case "DaemonSet":
            return nodes
        case "Pod":
            return 1
    return 0


def runs_once(made: Mapping[str, Any]) -> bool:
    """Whether no pod of the object may run next to the pod that replaces it."""
    recreated = made.get("spec", {}).get("strategy", {}).get("type") == "Recreate"
    return made["kind"] in ("StatefulSet", "Job", "Pod") or recreated
