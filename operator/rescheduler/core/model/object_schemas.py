"""What is read of each kind of object, with its types: one table a kind.

The API server gives the built-in kinds these types already. Kinds of others and aggregated API servers promise nothing.
"""

from collections.abc import Mapping
from typing import Any

from rescheduler.api.untrusted import (
    LABELS,
    METADATA,
    QUANTITIES,
    Fit,
    Shaped,
    anything,
    count,
    each,
    fields,
    measure,
    shaped,
)

_NAMESPACED = ("name", "namespace", "uid")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

_EXPRESSIONS = each(fields("key", "operator", key=str, operator=str, values=each(str)))
SELECTOR = fields(matchLabels=LABELS, matchExpressions=_EXPRESSIONS)
_NODE_SELECTOR = fields(nodeSelectorTerms=each(fields(matchExpressions=_EXPRESSIONS, matchFields=_EXPRESSIONS)))
_POD_TERMS = each(
    fields("topologyKey", topologyKey=str, labelSelector=SELECTOR, namespaceSelector=SELECTOR, namespaces=each(str))
)
_RESOURCES = fields(requests=QUANTITIES)
_STATUSES = each(fields("name", name=str, allocatedResources=QUANTITIES, resources=_RESOURCES))
_CONTAINERS = each(
    fields(
        name=str,
        resources=_RESOURCES,
        restartPolicy=str,
        restartPolicyRules=each(fields(action=str)),
        ports=each(fields(hostPort=int, hostIP=str, protocol=str)),
        volumeMounts=each(fields(bindMountOptions=anything)),
    )
)
_TOLERATIONS = each(fields(key=str, operator=str, value=str, effect=str))
_VOLUMES = each(fields(name=str, persistentVolumeClaim=fields("claimName", claimName=str)))
_POD_SPEC = fields(
    nodeName=str,
    nodeSelector=LABELS,
    affinity=fields(
        nodeAffinity=fields(**{_REQUIRED: _NODE_SELECTOR}),
        podAffinity=fields(**{_REQUIRED: _POD_TERMS}),
        podAntiAffinity=fields(**{_REQUIRED: _POD_TERMS}),
    ),
    tolerations=_TOLERATIONS,
    topologySpreadConstraints=each(
        fields(
            "topologyKey",
            "maxSkew",
            topologyKey=str,
            maxSkew=int,
            whenUnsatisfiable=str,
            labelSelector=SELECTOR,
            minDomains=int,
            matchLabelKeys=each(str),
            nodeAffinityPolicy=str,
            nodeTaintsPolicy=str,
        )
    ),
    priority=int,
    priorityClassName=str,
    terminationGracePeriodSeconds=int,
    schedulerName=str,
    containers=_CONTAINERS,
    initContainers=_CONTAINERS,
    volumes=_VOLUMES,
    resources=_RESOURCES,
    overhead=QUANTITIES,
)
_CONDITIONS = each(
    fields(
        "type",
        "status",
        type=str,
        status=str,
        reason=str,
        message=str,
        lastTransitionTime=anything,
        lastHeartbeatTime=anything,
    )
)
_WORKLOAD_SPEC: dict[str, Fit] = {"replicas": int, "minReadySeconds": int, "selector": SELECTOR}
_COUNTS: dict[str, Fit] = dict.fromkeys(("observedGeneration", "replicas", "updatedReplicas", "readyReplicas"), int)

_NODE = fields(
    metadata=METADATA,
    spec=fields(
        unschedulable=bool,
        taints=each(fields("key", "effect", key=str, value=str, effect=str, timeAdded=str)),
    ),
    status=fields(nodeInfo=fields(bootID=str), conditions=_CONDITIONS, allocatable=QUANTITIES),
)
_POD = fields(
    metadata=METADATA,
    spec=_POD_SPEC,
    status=fields(
        phase=str,
        conditions=_CONDITIONS,
        containerStatuses=_STATUSES,
        initContainerStatuses=_STATUSES,
    ),
)
_DAEMON_SET = fields(metadata=METADATA, spec=fields(template=fields(spec=_POD_SPEC)))
_DEPLOYMENT = fields(
    metadata=METADATA,
    spec=fields(paused=bool, strategy=fields(type=str, rollingUpdate=fields(maxSurge=measure)), **_WORKLOAD_SPEC),
    status=fields(**_COUNTS),
)
_REPLICA_SET = fields(metadata=METADATA, spec=fields(**_WORKLOAD_SPEC), status=fields(conditions=_CONDITIONS))
_JOB = fields(metadata=METADATA, spec=fields(podReplacementPolicy=str, podFailurePolicy=anything, managedBy=str))
_BUDGET = fields(
    metadata=METADATA,
    spec=fields(selector=SELECTOR, minAvailable=measure, maxUnavailable=measure, unhealthyPodEvictionPolicy=str),
    status=fields(
        disruptionsAllowed=count,
        currentHealthy=count,
        desiredHealthy=count,
        expectedPods=count,
        observedGeneration=int,
        disruptedPods=LABELS,
        conditions=_CONDITIONS,
    ),
)
_CLAIM = fields(metadata=METADATA, spec=fields(accessModes=each(str), volumeName=str))
_VOLUME = fields(
    metadata=METADATA,
    spec=fields(nodeAffinity=fields(required=_NODE_SELECTOR), csi=fields(driver=str)),
)
_ATTACHMENT = fields(
    metadata=METADATA,
    spec=fields(nodeName=str, attacher=str, source=fields(persistentVolumeName=str)),
)
_CSI_NODE = fields(
    metadata=METADATA,
    spec=fields(drivers=each(fields("name", name=str, allocatable=fields(count=int)))),
)
_LEASE = fields(metadata=METADATA, spec=fields(holderIdentity=str, renewTime=anything, leaseDurationSeconds=int))
_PLAIN = fields(metadata=METADATA)
_USAGE = fields(metadata=METADATA, timestamp=str, usage=QUANTITIES)


def node(raw: Mapping[str, Any]) -> Shaped:
    """Return a Node with the types that are relied on. Raises UnreadableError without a name."""
    return shaped(raw, _NODE)


def pod(raw: Mapping[str, Any]) -> Shaped:
    """Return a Pod so. Raises UnreadableError without name or namespace."""
    return shaped(raw, _POD, required=("name", "namespace"))


def any_pod(raw: Mapping[str, Any]) -> Shaped:
    """Return a Pod so, if nobody asks for its name."""
    return shaped(raw, _POD, required=())


def daemon_set(raw: Mapping[str, Any]) -> Shaped:
    """Return a DaemonSet so."""
    return shaped(raw, _DAEMON_SET, required=("name", "namespace"))


def deployment(raw: Mapping[str, Any]) -> Shaped:
    """Return a Deployment so."""
    return shaped(raw, _DEPLOYMENT, required=_NAMESPACED)


def replica_set(raw: Mapping[str, Any]) -> Shaped:
    """Return a ReplicaSet so."""
    return shaped(raw, _REPLICA_SET, required=_NAMESPACED)


def job(raw: Mapping[str, Any]) -> Shaped:
    """Return a Job so."""
    return shaped(raw, _JOB, required=())


def budget(raw: Mapping[str, Any]) -> Shaped:
    """Return a PodDisruptionBudget so."""
    return shaped(raw, _BUDGET, required=_NAMESPACED)


def claim(raw: Mapping[str, Any]) -> Shaped:
    """Return a PersistentVolumeClaim so."""
    return shaped(raw, _CLAIM, required=("name", "namespace"))


def volume(raw: Mapping[str, Any]) -> Shaped:
    """Return a PersistentVolume so."""
    return shaped(raw, _VOLUME)


def attachment(raw: Mapping[str, Any]) -> Shaped:
    """Return a VolumeAttachment so."""
    return shaped(raw, _ATTACHMENT, required=())


def csi_node(raw: Mapping[str, Any]) -> Shaped:
    """Return a CSINode so."""
    return shaped(raw, _CSI_NODE)


def lease(raw: Mapping[str, Any]) -> Shaped:
    """Return a Lease so."""
    return shaped(raw, _LEASE, required=())


def plain(raw: Mapping[str, Any]) -> Shaped:
    """Return an object of which only the metadata is read."""
    return shaped(raw, _PLAIN)


def usage(raw: Mapping[str, Any]) -> Shaped:
    """Return a NodeMetrics, which an aggregated API server gives."""
    return shaped(raw, _USAGE)
