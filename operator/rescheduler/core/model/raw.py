"""Raw JSON of Kubernetes objects: one name for each type, and the parts that several modules read.

In `core`, only this package and the parsers of `placement` take raw objects. Sanitize a raw object with
`object_schemas` first.
`kube`, the controllers and the command line use the same names. A patch is a raw object too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

RawObject = Mapping[str, Any]
"""Any object, or a part of one."""
RawMetadata = Mapping[str, Any]
RawPod = Mapping[str, Any]
RawPodSpec = Mapping[str, Any]
RawPodTemplate = Mapping[str, Any]
RawOwnerReference = Mapping[str, Any]
RawToleration = Mapping[str, Any]

HOSTNAME_LABEL = "kubernetes.io/hostname"
DEFAULT_SCHEDULER = "default-scheduler"
NAME_FIELD = "metadata.name"
"""The only field that `matchFields` of node affinity may name."""
REQUIRED_AFFINITY = "requiredDuringSchedulingIgnoredDuringExecution"


def controller_reference(meta: RawMetadata) -> RawOwnerReference | None:
    """Return the owner reference of the controller in a raw object's metadata; None if there is none."""
    return next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)


def claim_names(spec: RawPodSpec) -> tuple[str, ...]:
    """Return the names of the claims that a raw pod spec mounts."""
    claims = (volume.get("persistentVolumeClaim") for volume in spec.get("volumes") or ())
    return tuple(claim["claimName"] for claim in claims if claim)


def required_node_terms(spec: RawPodSpec) -> Sequence[RawObject] | None:
    """Return the terms of required node affinity in a raw pod spec; None if the spec has no required node affinity."""
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(REQUIRED_AFFINITY)
    return (required.get("nodeSelectorTerms") or ()) if required else None
