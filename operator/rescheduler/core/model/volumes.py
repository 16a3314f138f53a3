"""Volumes of the pods on one node: volumes with data on the node, and volumes that the node must detach.

A volume that only one node can attach is detached first, then attached to the next node. Cloud APIs throttle many
such calls at once, for minutes. Therefore pods with such volumes leave one after another.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from rescheduler.core.model import object_schemas
from rescheduler.core.model.pods import Pod
from rescheduler.core.model.raw import HOSTNAME_LABEL, RawObject
from rescheduler.core.model.volume_topology import VolumeTopology, parse_volume_topology

_SINGLE_NODE_ACCESS_MODES = ("ReadWriteOnce", "ReadWriteOncePod")
DETACH_STUCK_AFTER = timedelta(minutes=2)
"""After this time without its pod, an attached volume no longer delays other pods, and the status reports it."""


@dataclass(frozen=True, slots=True)
class VolumeClaim:
    """A PersistentVolumeClaim.

    Attributes:
        volume: name of the bound volume; empty if the claim is not bound.
        single_node: whether only one node at a time can attach the volume.
    """

    namespace: str
    name: str
    volume: str = ""
    single_node: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """A PersistentVolume.

    Attributes:
        local: whether its data is on one node only.
        required_values: the label values that each term of its node affinity requires. Drivers for disks of a node have
            a label of their own, whose value is the name of the node.
        topology: the nodes that can access it.
    """

    name: str
    local: bool = False
    required_values: frozenset[str] = field(default=frozenset(), compare=False)
    topology: VolumeTopology = field(default=VolumeTopology(""), compare=False)

    def is_local_to(self, node_names: Collection[str]) -> bool:
        """Whether its data is on one of these nodes only."""
        return self.local or any(value in node_names for value in self.required_values)


@dataclass(frozen=True, slots=True)
class VolumeAttachment:
    """A VolumeAttachment: names of the node and of the volume; empty if absent."""

    node: str
    volume: str


def parse_volume_claim(raw: RawObject) -> VolumeClaim:
    """Parse a raw PersistentVolumeClaim. Raises UnreadableError without name or namespace."""
    raw = object_schemas.sanitize_volume_claim(raw)
    meta, spec = raw["metadata"], raw["spec"]
    exclusive = any(mode in _SINGLE_NODE_ACCESS_MODES for mode in spec.get("accessModes") or ())
    return VolumeClaim(meta["namespace"], meta["name"], spec.get("volumeName", ""), exclusive)


def parse_volume(raw: RawObject) -> Volume:
    """Parse a raw PersistentVolume. Raises UnreadableError without a name."""
    raw = object_schemas.sanitize_volume(raw)
    spec = raw["spec"]
    required = _required_labels(((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ())
    return Volume(
        raw["metadata"]["name"],
        HOSTNAME_LABEL in required or "local" in spec or "hostPath" in spec,
        frozenset(required.values()),
        parse_volume_topology(raw),
    )


def _required_labels(terms: Iterable[RawObject]) -> dict[str, str]:
    """Return the labels that each of these terms requires with the same single value."""
    by_term = [
        {
            (e["key"], e["values"][0])
            for e in term.get("matchExpressions") or ()
            if e.get("operator") == "In" and len(e.get("values") or ()) == 1
        }
        for term in terms
    ]
    return dict(set.intersection(*by_term)) if by_term else {}


def parse_volume_attachment(raw: RawObject) -> VolumeAttachment:
    """Parse a raw VolumeAttachment."""
    spec = object_schemas.sanitize_volume_attachment(raw)["spec"]
    return VolumeAttachment(spec.get("nodeName", ""), (spec.get("source") or {}).get("persistentVolumeName", ""))


@dataclass(frozen=True, slots=True)
class NodeVolumes:
    """Claims and volumes of the pods on one node.

    Attributes:
        claims: by namespace and name.
        local_volumes: names of volumes with data on one node only.
        attached_volumes: names of the volumes that are attached to this node.
        topologies: topology of each volume that pods of this node mount, by its name.
    """

    claims: Mapping[tuple[str, str], VolumeClaim] = field(default_factory=dict)
    local_volumes: frozenset[str] = frozenset()
    attached_volumes: frozenset[str] = frozenset()
    topologies: Mapping[str, VolumeTopology] = field(default_factory=dict)

    def mounted_by(self, pod: Pod) -> frozenset[str]:
        """Return the names of the volumes that the pod mounts."""
        claims = (self.claims.get((pod.namespace, name)) for name in pod.all_claims)
        return frozenset(claim.volume for claim in claims if claim and claim.volume)

    def has_local_volume(self, pod: Pod) -> bool:
        """Whether the pod has data on this node only."""
        return bool(self.mounted_by(pod) & self.local_volumes)

    def needs_local_volume(self, pod: Pod) -> bool:
        """Whether a successor of the pod needs a volume of this node; an ephemeral claim is new for each pod."""
        claims = (self.claims.get((pod.namespace, name)) for name in pod.claims)
        return any(claim is not None and claim.volume in self.local_volumes for claim in claims)

    def has_single_node_volume(self, pod: Pod) -> bool:
        """Whether the pod has a single-node volume that its successor needs too.

        An unknown claim counts as such a volume. Ephemeral claims do not count: each pod gets new ones.
        """
        claims = (self.claims.get((pod.namespace, name)) for name in pod.claims)
        return pod.has_inline_disk or any(claim is None or claim.single_node for claim in claims)

    def has_volume_to_detach(self, pod: Pod) -> bool:
        """Whether the node must detach a single-node volume before a successor of the pod can use it."""
        claims = (self.claims.get((pod.namespace, name)) for name in pod.claims)
        return any(claim and claim.single_node and claim.volume in self.attached_volumes for claim in claims)

    def awaiting_detach(self, pods: Iterable[Pod]) -> frozenset[str]:
        """Return the volumes that are attached to the node and that none of these pods uses."""
        used = {name for pod in pods if not pod.finished for name in self.mounted_by(pod)}
        return self.attached_volumes - used
