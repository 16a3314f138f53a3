"""Where the volumes of a pod can be used: a bound claim ties its pod to the nodes that its volume reaches.

Rules: kube-scheduler, volumebinding, volumezone, nodevolumelimits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rescheduler.api import names
from rescheduler.core.model import object_schemas
from rescheduler.core.model.node_affinity import selects_node
from rescheduler.core.model.nodes import Node

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
"""The CSI drivers that stand in for the kinds of old."""
_TOPOLOGY_LABELS = (names.ZONE, _REGION, *_DEPRECATED_LABELS)


@dataclass(frozen=True)
class VolumeTopology:
    """Where one volume can be used.

    Attributes:
        terms: its node affinity, as in its raw spec.
        zones: by label of nodes, the values of which one is needed.
        driver: of CSI; it may attach only so many to one node.
    """

    volume: str
    node_selector_terms: tuple[Mapping[str, Any], ...] | None = field(default=None, compare=False)
    zones: tuple[tuple[str, frozenset[str]], ...] = field(default=(), compare=False)
    csi_driver: str = field(default="", compare=False)

    def is_accessible_from(self, node: Node) -> bool:
        """Whether it can be used on the node."""
        required = {"nodeSelectorTerms": self.node_selector_terms}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
        if self.node_selector_terms is not None and not selects_node({"affinity": affinity}, node):
            return False
        if not any(label in node.labels for label in _TOPOLOGY_LABELS):
            return True
        return all(
            node.labels.get(key, node.labels.get(_DEPRECATED_LABELS.get(key, key))) in values
            for key, values in self.zones
        )


def parse_volume_topology(raw: Mapping[str, Any]) -> VolumeTopology:
    """Of a raw PersistentVolume."""
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
    """Claims and volumes of the pods that need a place.

    Attributes:
        claims: name of the volume that each claim is bound to, by namespace and claim; empty: none yet.
        reaches: by name of the volume.
        limits: how many more volumes of a CSI driver can surely be attached to a node, by node and driver; None: that
            is not known of any.
    """

    volume_by_claim: Mapping[tuple[str, str], str] = field(default_factory=dict)
    topologies: Mapping[str, VolumeTopology] = field(default_factory=dict)
    free_attachments: Mapping[str, Mapping[str, int]] | None = field(default_factory=dict)

    def topologies_of(self, namespace: str, claims: Iterable[str]) -> tuple[frozenset[VolumeTopology], str]:
        """Where the volumes of these claims can be used, and why only the scheduler can say, or nothing."""
        found: set[VolumeTopology] = set()
        for name in claims:
            volume = self.volume_by_claim.get((namespace, name), "")
            if volume not in self.topologies:
                return frozenset(found), f"its claim {name} is not bound to a volume that is known"
            found.add(self.topologies[volume])
        return frozenset(found), ""

    def exceeds_attach_limit(self, topologies: Iterable[VolumeTopology], node: str, needed: Counter[str]) -> bool:
        """Whether the node may have too many volumes attached; `coming`: how many of each driver need a place."""
        if self.free_attachments is None:
            return any(reach.csi_driver for reach in topologies)
        limits = self.free_attachments.get(node)
        return limits is not None and any(
            limits.get(r.csi_driver, needed[r.csi_driver]) < needed[r.csi_driver] for r in topologies
        )
