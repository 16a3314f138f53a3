"""Pods of a list: the fields that decisions about many pods use.

A list may have all pods of a cluster, and most decisions read few fields of most pods. Therefore a listed pod parses
its larger fields when they are read. It holds the raw pod, so drop it with the page of its list.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rescheduler.api import names
from rescheduler.api.selectors import LabelSelector
from rescheduler.api.untrusted import parse_time
from rescheduler.core.model import object_schemas
from rescheduler.core.model.node_affinity import NodeConstraints, parse_node_constraints
from rescheduler.core.model.pods import TERMINAL_PHASES, Pod, parse_pod
from rescheduler.core.model.raw import (
    DEFAULT_SCHEDULER,
    HOSTNAME_LABEL,
    REQUIRED_AFFINITY,
    RawObject,
    RawPod,
    claim_names,
    controller_reference,
)
from rescheduler.core.model.release_record import read_record
from rescheduler.core.model.resource_requests import allocated_resources, allocated_with_pod, requested_resources


@dataclass(frozen=True, slots=True)
class ListedPod:
    """A pod of a list.

    Attributes:
        uid: empty if absent.
        node: name of its node; empty before the scheduler places the pod.
        finished: whether all containers have ended for good.
        terminating: whether the pod has a deletionTimestamp.
        controller_kind: kind of its controller, without the group; None if no controller would create it again.
        raw: the raw pod, which only parsers read.
    """

    namespace: str
    name: str
    uid: str
    node: str
    finished: bool
    terminating: bool
    is_mirror: bool
    controller_kind: str | None
    labels: Mapping[str, str]
    raw: RawPod = field(repr=False)

    @property
    def key(self) -> str:
        """Return `namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def created(self) -> datetime | None:
        """Return its creationTimestamp; None if unreadable."""
        return parse_time(self.raw["metadata"].get("creationTimestamp"))

    @property
    def owner_uid(self) -> str:
        """Return the UID of its controller, or its own UID without a controller.

        For a released or returned pod: the UID of the ReplicaSet in its release record.
        """
        meta = self.raw["metadata"]
        record, _ = read_record(meta)
        return record.replica_set_uid if record else (controller_reference(meta) or meta).get("uid", "")

    @property
    def released(self) -> bool:
        """Whether its controller is the Deployment of its release record."""
        return read_record(self.raw["metadata"])[1]

    @property
    def claims(self) -> tuple[str, ...]:
        """Return the names of the claims that the pod mounts."""
        return claim_names(self.raw["spec"])

    @property
    def is_unschedulable(self) -> bool:
        """Whether the scheduler has found no node for the pod."""
        conditions = self.raw["status"].get("conditions") or ()
        return not self.node and any(
            c["type"] == "PodScheduled" and c.get("reason") == "Unschedulable" for c in conditions
        )

    @property
    def node_constraints(self) -> NodeConstraints:
        """Return the node constraints of its spec."""
        return parse_node_constraints(self.raw["spec"])

    @property
    def requested(self) -> dict[str, int]:
        """Return its requests, as the scheduler counts them before it places the pod."""
        return requested_resources(self.raw["spec"])

    @property
    def allocated(self) -> dict[str, int]:
        """Return its requests on its node; during an in-place resize, the larger of old and new requests."""
        return allocated_resources(self.raw)

    @property
    def allocated_with_pod(self) -> dict[str, int]:
        """Return what the pod takes of its node: `allocated`, and one of the resource `pods`."""
        return allocated_with_pod(self.raw)

    @property
    def has_constraints_beyond_nodes(self) -> bool:
        """Whether its possible nodes depend on more than labels, taints and requests."""
        spec = self.raw["spec"]
        affinity = spec.get("affinity") or {}
        return bool(
            (affinity.get("podAffinity") or {}).get(REQUIRED_AFFINITY)
            or (affinity.get("podAntiAffinity") or {}).get(REQUIRED_AFFINITY)
            or any(c.get("whenUnsatisfiable") == "DoNotSchedule" for c in spec.get("topologySpreadConstraints") or ())
            or any(
                port.get("hostPort")
                for container in spec.get("containers") or ()
                for port in container.get("ports") or ()
            )
            or spec.get("hostNetwork")
            or spec.get("resourceClaims")
            or spec.get("schedulerName", DEFAULT_SCHEDULER) != DEFAULT_SCHEDULER
        )

    def to_pod(self) -> Pod:
        """Return the pod with all fields that a drain uses. Raises UnreadableError without a UID."""
        return parse_pod(self.raw)

    def has_anti_affinity_to(self, other: "ListedPod") -> bool:
        """Whether required anti-affinity by hostname keeps the pod off the node of the other pod."""
        affinity = (self.raw["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
        return any(
            term.get("topologyKey") == HOSTNAME_LABEL
            and other.namespace in (term.get("namespaces") or [self.namespace])
            and _matches_selector(term, other.labels)
            for term in affinity.get(REQUIRED_AFFINITY) or ()
            if term.get("labelSelector") is not None
        )


def _matches_selector(term: RawObject, labels: Mapping[str, str]) -> bool:
    """Whether the selector of an affinity term may select a pod with these labels; an unknown operator counts as yes."""
    try:
        selector = LabelSelector.model_validate(term.get("labelSelector") or {})
    except ValueError:
        return True
    return selector.matches(labels)


def parse_listed_pod(raw: RawPod) -> ListedPod:
    """Parse a raw Pod. Raises UnreadableError without name or namespace."""
    raw = object_schemas.sanitize_pod(raw)
    meta = raw["metadata"]
    controller = controller_reference(meta)
    return ListedPod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta.get("uid", ""),
        node=raw["spec"].get("nodeName", ""),
        finished=raw["status"].get("phase") in TERMINAL_PHASES,
        terminating="deletionTimestamp" in meta,
        is_mirror=names.MIRROR_POD in (meta.get("annotations") or {}),
        controller_kind=controller["kind"] if controller else None,
        labels=meta.get("labels") or {},
        raw=raw,
    )
