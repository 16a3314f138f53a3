"""Volumes of the pods on one node: which tie a pod to the node, and which have to be detached before the next.

Attaching elsewhere waits for detaching here; a burst of both is what cloud APIs answer with throttling and minutes
of delay. So pods with volumes that one node alone can have leave one after another.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from rescheduler.core.model import object_schemas
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.volume_topology import VolumeTopology, parse_volume_topology

_HOSTNAME = "kubernetes.io/hostname"
_SINGLE_NODE_ACCESS_MODES = ("ReadWriteOnce", "ReadWriteOncePod")
DETACH_STUCK_AFTER = timedelta(minutes=2)
"""A volume still attached so long after its pod has gone holds nothing up any more; it is said."""


@dataclass(frozen=True, slots=True)
class VolumeClaim:
    """A PersistentVolumeClaim: the volume that it is bound to (empty: none), and whether one node alone can have it."""

    namespace: str
    name: str
    volume: str = ""
    single_node: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """A PersistentVolume; `local`: its data is on one node; `reach`: where it can be used."""

    name: str
    local: bool = False
    topology: VolumeTopology = field(default=VolumeTopology(""), compare=False)


@dataclass(frozen=True, slots=True)
class VolumeAttachment:
    """A VolumeAttachment."""

    node: str
    volume: str


def parse_volume_claim(raw: Mapping[str, Any]) -> VolumeClaim:
    """Project a raw PersistentVolumeClaim."""
    raw = object_schemas.sanitize_volume_claim(raw)
    meta, spec = raw["metadata"], raw["spec"]
    exclusive = any(mode in _SINGLE_NODE_ACCESS_MODES for mode in spec.get("accessModes") or ())
    return VolumeClaim(meta["namespace"], meta["name"], spec.get("volumeName", ""), exclusive)


def parse_volume(raw: Mapping[str, Any]) -> Volume:
    """Project a raw PersistentVolume."""
    raw = object_schemas.sanitize_volume(raw)
    spec = raw["spec"]
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    pinned = any(e.get("key") == _HOSTNAME for term in terms for e in term.get("matchExpressions") or ())
    return Volume(raw["metadata"]["name"], pinned or "local" in spec or "hostPath" in spec, parse_volume_topology(raw))


def parse_volume_attachment(raw: Mapping[str, Any]) -> VolumeAttachment:
    """Project a raw VolumeAttachment."""
    spec = object_schemas.sanitize_volume_attachment(raw)["spec"]
    return VolumeAttachment(spec.get("nodeName", ""), (spec.get("source") or {}).get("persistentVolumeName", ""))


@dataclass(frozen=True, slots=True)
class NodeVolumes:
    """What is known of volumes around one node.

    Attributes:
        claims: by namespace and name.
        local: names of volumes whose data is on one node.
        attached: names of volumes attached to this node.
        reaches: where those that pods here mount can be used, by name.
    """

    claims: Mapping[tuple[str, str], VolumeClaim] = field(default_factory=dict)
    local_volumes: frozenset[str] = frozenset()
    attached_volumes: frozenset[str] = frozenset()
    topologies: Mapping[str, VolumeTopology] = field(default_factory=dict)

    def mounted_by(self, pod: Pod) -> frozenset[str]:
        """Names of the volumes that the pod mounts."""
        found = (self.claims.get((pod.namespace, name)) for name in pod.all_claims)
        return frozenset(claim.volume for claim in found if claim and claim.volume)

    def has_local_volume(self, pod: Pod) -> bool:
        """Whether the pod's data is on its node and nowhere else."""
        return bool(self.mounted_by(pod) & self.local_volumes)

    def has_single_node_volume(self, pod: Pod) -> bool:
        """Whether the pod has a volume that one node alone can have, and that its successor needs too.

        A claim that is not known counts as one. Those of ephemeral volumes are made anew for each pod.
        """
        found = (self.claims.get((pod.namespace, name)) for name in pod.claims)
        return pod.has_inline_disk or any(claim is None or claim.single_node for claim in found)

    def has_volume_to_detach(self, pod: Pod) -> bool:
        """Whether the pod has a volume here that only one node can have, and takes it along."""
        found = (self.claims.get((pod.namespace, name)) for name in pod.claims)
        return any(claim and claim.single_node and claim.volume in self.attached_volumes for claim in found)

    def awaiting_detach(self, pods: Iterable[Pod]) -> frozenset[str]:
        """Volumes still attached to the node though no pod here uses them any more."""
        used = {name for pod in pods if not pod.finished for name in self.mounted_by(pod)}
        return self.attached_volumes - used
