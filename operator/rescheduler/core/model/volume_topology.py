"""Where the volumes of a pod can be used: a bound claim ties its pod to the nodes that its volume reaches.

Rules: kube-scheduler, volumebinding, volumezone, nodevolumelimits.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rescheduler.api import names
from rescheduler.core.model import object_schemas
from rescheduler.core.model.node_affinity import selects
from rescheduler.core.model.nodes import Node

_REGION = "topology.kubernetes.io/region"
_OLD = {"failure-domain.beta.kubernetes.io/zone": names.ZONE, "failure-domain.beta.kubernetes.io/region": _REGION}
_MIGRATED = {
    "awsElasticBlockStore": "ebs.csi.aws.com",
    "azureDisk": "disk.csi.azure.com",
    "cinder": "cinder.csi.openstack.org",
    "gcePersistentDisk": "pd.csi.storage.gke.io",
    "portworxVolume": "pxd.portworx.com",
    "vsphereVolume": "csi.vsphere.vmware.com",
}
"""The CSI drivers that stand in for the kinds of old."""
_ZONED = (names.ZONE, _REGION, *_OLD)


@dataclass(frozen=True)
class Reach:
    """Where one volume can be used.

    Attributes:
        terms: its node affinity, as in its raw spec.
        zones: by label of nodes, the values of which one is needed.
        driver: of CSI; it may attach only so many to one node.
    """

    volume: str
    terms: tuple[Mapping[str, Any], ...] | None = field(default=None, compare=False)
    zones: tuple[tuple[str, frozenset[str]], ...] = field(default=(), compare=False)
    driver: str = field(default="", compare=False)

    def reaches(self, node: Node) -> bool:
        """Whether it can be used on the node."""
        required = {"nodeSelectorTerms": self.terms}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
        if self.terms is not None and not selects({"affinity": affinity}, node):
            return False
        if not any(label in node.labels for label in _ZONED):
            return True
        return all(node.labels.get(key, node.labels.get(_OLD.get(key, key))) in values for key, values in self.zones)


def reach(raw: Mapping[str, Any]) -> Reach:
    """Of a raw PersistentVolume."""
    raw = object_schemas.volume(raw)
    meta, spec = raw["metadata"], raw["spec"]
    required = (spec.get("nodeAffinity") or {}).get("required")
    labels = meta.get("labels") or {}
    return Reach(
        meta["name"],
        tuple(required.get("nodeSelectorTerms") or ()) if required else None,
        tuple((key, frozenset(labels[key].split("__"))) for key in _ZONED if key in labels),
        (spec.get("csi") or {}).get("driver") or next((d for kind, d in _MIGRATED.items() if kind in spec), ""),
    )


@dataclass(frozen=True, slots=True)
class Storage:
    """Claims and volumes of the pods that need a place.

    Attributes:
        claims: name of the volume that each claim is bound to, by namespace and claim; empty: none yet.
        reaches: by name of the volume.
        limits: how many more volumes of a CSI driver can surely be attached to a node, by node and driver; None: that
            is not known of any.
    """

    claims: Mapping[tuple[str, str], str] = field(default_factory=dict)
    reaches: Mapping[str, Reach] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, int]] | None = field(default_factory=dict)

    def of(self, namespace: str, claims: Iterable[str]) -> tuple[frozenset[Reach], str]:
        """Where the volumes of these claims can be used, and why only the scheduler can say, or nothing."""
        found: set[Reach] = set()
        for name in claims:
            volume = self.claims.get((namespace, name), "")
            if volume not in self.reaches:
                return frozenset(found), f"its claim {name} is not bound to a volume that is known"
            found.add(self.reaches[volume])
        return frozenset(found), ""

    def crowded(self, reaches: Iterable[Reach], node: str, coming: Counter[str]) -> bool:
        """Whether the node may have too many volumes attached; `coming`: how many of each driver need a place."""
        if self.limits is None:
            return any(reach.driver for reach in reaches)
        limits = self.limits.get(node)
        return limits is not None and any(limits.get(r.driver, coming[r.driver]) < coming[r.driver] for r in reaches)
