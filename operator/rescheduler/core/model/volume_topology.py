"""Topology of volumes: a bound claim limits its pod to the nodes that can access the volume.

Source: kube-scheduler, plugins volumebinding, volumezone and nodevolumelimits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rescheduler.api import names
from rescheduler.core.model import messages, object_schemas
from rescheduler.core.model.node_affinity import has_unknown_operator, matches_node_terms
from rescheduler.core.model.nodes import Node
from rescheduler.core.model.raw import RawObject

_REGION = "topology.kubernetes.io/region"
_DEPRECATED_LABELS = {
    "failure-domain.beta.kubernetes.io/zone": names.ZONE,
    "failure-domain.beta.kubernetes.io/region": _REGION,
}
_CSI_MIGRATION_DRIVERS = {
    "awsElasticBlockStore": "ebs.csi.aws.com",
    "azureDisk": "disk.csi.azure.com",
    "cinder": "cinder.csi.openstack.org",
    "gcePersistentDisk": "pd.csi.storage.gke.io",
    "portworxVolume": "pxd.portworx.com",
    "vsphereVolume": "csi.vsphere.vmware.com",
}
"""By in-tree volume type: the CSI driver that Kubernetes uses in its place."""
_TOPOLOGY_LABELS = (names.ZONE, _REGION, *_DEPRECATED_LABELS)


@dataclass(frozen=True)
class VolumeTopology:
    """The nodes that can access a volume.

    Attributes:
        volume: name of the PersistentVolume.
        node_selector_terms: raw terms of its node affinity; None if the volume has none.
        zones: pairs of a topology label and its values; the node must have one of the values.
        csi_driver: name of the CSI driver, which limits the volumes of a node; empty if unknown.
    """

    volume: str
    node_selector_terms: tuple[RawObject, ...] | None = field(default=None, compare=False)
    zones: tuple[tuple[str, frozenset[str]], ...] = field(default=(), compare=False)
    csi_driver: str = field(default="", compare=False)

    def is_accessible_from(self, node: Node) -> bool:
        """Whether pods on the node can use the volume."""
        if not matches_node_terms(self.node_selector_terms, node):
            return False
        if not any(label in node.labels for label in _TOPOLOGY_LABELS):
            return True
        return all(
            node.labels.get(key, node.labels.get(_DEPRECATED_LABELS.get(key, key))) in values
            for key, values in self.zones
        )


def parse_volume_topology(raw: RawObject) -> VolumeTopology:
    """Parse the topology of a raw PersistentVolume. Raises UnreadableError without a name."""
    raw = object_schemas.sanitize_volume(raw)
    meta, spec = raw["metadata"], raw["spec"]
    required = (spec.get("nodeAffinity") or {}).get("required")
    labels = meta.get("labels") or {}
    return VolumeTopology(
        meta["name"],
        tuple(required.get("nodeSelectorTerms") or ()) if required else None,
        tuple((key, frozenset(labels[key].split("__"))) for key in _TOPOLOGY_LABELS if key in labels),
        (spec.get("csi") or {}).get("driver")
        or next((d for kind, d in _CSI_MIGRATION_DRIVERS.items() if kind in spec), ""),
    )


@dataclass(frozen=True, slots=True)
class ClusterVolumes:
    """Claims and volumes of the pods to place.

    Attributes:
        volume_by_claim: name of the bound volume, by namespace and claim; empty if the claim is not bound.
        topologies: topology of each volume, by its name.
        free_attachments: number of volumes that a node can certainly attach, by node and CSI driver; None if no
            limits are known.
    """

    volume_by_claim: Mapping[tuple[str, str], str] = field(default_factory=dict)
    topologies: Mapping[str, VolumeTopology] = field(default_factory=dict)
    free_attachments: Mapping[str, Mapping[str, int]] | None = field(default_factory=dict)

    def topologies_of(self, namespace: str, claims: Iterable[str]) -> tuple[frozenset[VolumeTopology], str | None]:
        """Return the topologies of these claims' volumes, and why only the scheduler can decide; None if known."""
        topologies: set[VolumeTopology] = set()
        for name in claims:
            volume = self.volume_by_claim.get((namespace, name), "")
            if volume not in self.topologies:
                return frozenset(topologies), messages.claim_without_known_volume(name)
            if has_unknown_operator(self.topologies[volume].node_selector_terms):
                return frozenset(topologies), messages.volume_with_unknown_operator(volume)
            topologies.add(self.topologies[volume])
        return frozenset(topologies), None

    def exceeds_attach_limit(self, topologies: Iterable[VolumeTopology], node: str, needed: Counter[str]) -> bool:
        """Whether the node may exceed an attach limit; `needed`: number of volumes to place, by CSI driver."""
        if self.free_attachments is None:
            return any(topology.csi_driver for topology in topologies)
        free = self.free_attachments.get(node)
        return free is not None and any(
            free.get(t.csi_driver, needed[t.csi_driver]) < needed[t.csi_driver] for t in topologies
        )
