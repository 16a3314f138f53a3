"""The fields that the operator reads of each kind, with their types: one table for each kind.

The API server guarantees these types for built-in kinds only. Custom resources and aggregated API servers may return
any type. A value of another type counts as absent.
"""

from rescheduler.api.untrusted import (
    LABELS,
    METADATA,
    QUANTITIES,
    SanitizedObject,
    ValueSchema,
    anything,
    list_of,
    number_or_text,
    object_of,
    pod_count,
    sanitize,
)
from rescheduler.core.model.raw import REQUIRED_AFFINITY, RawObject

_NAME_NAMESPACE_UID = ("name", "namespace", "uid")

_EXPRESSIONS = list_of(object_of("key", "operator", key=str, operator=str, values=list_of(str)))
SELECTOR = object_of(matchLabels=LABELS, matchExpressions=_EXPRESSIONS)
_NODE_SELECTOR = object_of(
    nodeSelectorTerms=list_of(object_of(matchExpressions=_EXPRESSIONS, matchFields=_EXPRESSIONS))
)
_POD_TERMS = list_of(
    object_of(
        "topologyKey", topologyKey=str, labelSelector=SELECTOR, namespaceSelector=SELECTOR, namespaces=list_of(str)
    )
)
_RESOURCES = object_of(requests=QUANTITIES, limits=QUANTITIES)
_CONTAINER_STATE = object_of(waiting=object_of(reason=str, message=str), terminated=object_of(reason=str, exitCode=int))
_CONTAINER_STATUSES = list_of(
    object_of(
        "name",
        name=str,
        allocatedResources=QUANTITIES,
        resources=_RESOURCES,
        state=_CONTAINER_STATE,
        lastState=_CONTAINER_STATE,
    )
)
_CONTAINERS = list_of(
    object_of(
        name=str,
        resources=_RESOURCES,
        restartPolicy=str,
        restartPolicyRules=list_of(object_of(action=str)),
        ports=list_of(object_of(hostPort=int, hostIP=str, protocol=str)),
        volumeMounts=list_of(object_of(name=str, readOnly=bool, bindMountOptions=anything)),
    )
)
_TOLERATIONS = list_of(object_of(key=str, operator=str, value=str, effect=str))
_VOLUMES = list_of(object_of(name=str, persistentVolumeClaim=object_of("claimName", claimName=str)))
_POD_SPEC = object_of(
    nodeName=str,
    nodeSelector=LABELS,
    affinity=object_of(
        nodeAffinity=object_of(**{REQUIRED_AFFINITY: _NODE_SELECTOR}),
        podAffinity=object_of(**{REQUIRED_AFFINITY: _POD_TERMS}),
        podAntiAffinity=object_of(**{REQUIRED_AFFINITY: _POD_TERMS}),
    ),
    tolerations=_TOLERATIONS,
    schedulingGates=list_of(object_of("name", name=str)),
    topologySpreadConstraints=list_of(
        object_of(
            "topologyKey",
            "maxSkew",
            topologyKey=str,
            maxSkew=int,
            whenUnsatisfiable=str,
            labelSelector=SELECTOR,
            minDomains=int,
            matchLabelKeys=list_of(str),
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
    ephemeralContainers=_CONTAINERS,
    volumes=_VOLUMES,
    resources=_RESOURCES,
    overhead=QUANTITIES,
)
_CONDITIONS = list_of(
    object_of(
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
_WORKLOAD_SPEC: dict[str, ValueSchema] = {"replicas": int, "minReadySeconds": int, "selector": SELECTOR}
_REPLICA_COUNTS: dict[str, ValueSchema] = dict.fromkeys(
    ("observedGeneration", "replicas", "updatedReplicas", "readyReplicas"), int
)

_NODE = object_of(
    metadata=METADATA,
    spec=object_of(
        unschedulable=bool,
        taints=list_of(object_of("key", "effect", key=str, value=str, effect=str, timeAdded=str)),
    ),
    status=object_of(nodeInfo=object_of(bootID=str), conditions=_CONDITIONS, allocatable=QUANTITIES),
)
_POD = object_of(
    metadata=METADATA,
    spec=_POD_SPEC,
    status=object_of(
        phase=str,
        conditions=_CONDITIONS,
        containerStatuses=_CONTAINER_STATUSES,
        initContainerStatuses=_CONTAINER_STATUSES,
    ),
)
_DAEMON_SET = object_of(metadata=METADATA, spec=object_of(template=object_of(spec=_POD_SPEC)))
_DEPLOYMENT = object_of(
    metadata=METADATA,
    spec=object_of(
        paused=bool, strategy=object_of(type=str, rollingUpdate=object_of(maxSurge=number_or_text)), **_WORKLOAD_SPEC
    ),
    status=object_of(**_REPLICA_COUNTS),
)
_UPGRADE_PLAN = object_of(metadata=METADATA, status=object_of(applying=list_of(str)))
_POD_TEMPLATE = object_of(metadata=METADATA, spec=_POD_SPEC)
_REPLICA_SET = object_of(
    metadata=METADATA,
    spec=object_of(template=_POD_TEMPLATE, **_WORKLOAD_SPEC),
    status=object_of(conditions=_CONDITIONS),
)
_STATEFUL_SET = object_of(
    metadata=METADATA,
    spec=object_of(template=_POD_TEMPLATE),
    status=object_of(currentRevision=str, updateRevision=str),
)
_JOB = object_of(metadata=METADATA, spec=object_of(podReplacementPolicy=str, podFailurePolicy=anything, managedBy=str))
_DISRUPTION_BUDGET = object_of(
    metadata=METADATA,
    spec=object_of(
        selector=SELECTOR, minAvailable=number_or_text, maxUnavailable=number_or_text, unhealthyPodEvictionPolicy=str
    ),
    status=object_of(
        disruptionsAllowed=pod_count,
        currentHealthy=pod_count,
        desiredHealthy=pod_count,
        expectedPods=pod_count,
        observedGeneration=int,
        disruptedPods=LABELS,
        conditions=_CONDITIONS,
    ),
)
_VOLUME_CLAIM = object_of(metadata=METADATA, spec=object_of(accessModes=list_of(str), volumeName=str))
_VOLUME = object_of(
    metadata=METADATA,
    spec=object_of(nodeAffinity=object_of(required=_NODE_SELECTOR), csi=object_of(driver=str)),
)
_VOLUME_ATTACHMENT = object_of(
    metadata=METADATA,
    spec=object_of(nodeName=str, attacher=str, source=object_of(persistentVolumeName=str)),
)
_CSI_NODE = object_of(
    metadata=METADATA,
    spec=object_of(drivers=list_of(object_of("name", name=str, allocatable=object_of(count=int)))),
)
_DEVICE_CLASS = object_of(metadata=METADATA, spec=object_of(extendedResourceName=str))
_LEASE = object_of(metadata=METADATA, spec=object_of(holderIdentity=str, renewTime=anything, leaseDurationSeconds=int))
_ADMISSION_OBJECT = object_of(metadata=METADATA, spec=object_of(policyName=str))
_METADATA_ONLY = object_of(metadata=METADATA)
_NODE_METRICS = object_of(metadata=METADATA, timestamp=str, usage=QUANTITIES)


def sanitize_node(raw: RawObject) -> SanitizedObject:
    """Return a Node with checked types. Raises UnreadableError without a name."""
    return sanitize(raw, _NODE)


def sanitize_pod(raw: RawObject) -> SanitizedObject:
    """Return a Pod with checked types. Raises UnreadableError without name or namespace."""
    return sanitize(raw, _POD, required=("name", "namespace"))


def sanitize_unnamed_pod(raw: RawObject) -> SanitizedObject:
    """Return a Pod, or a pod template, with checked types. The name may be absent."""
    return sanitize(raw, _POD, required=())


def sanitize_daemon_set(raw: RawObject) -> SanitizedObject:
    """Return a DaemonSet with checked types. Raises UnreadableError without name or namespace."""
    return sanitize(raw, _DAEMON_SET, required=("name", "namespace"))


def sanitize_deployment(raw: RawObject) -> SanitizedObject:
    """Return a Deployment with checked types. Raises UnreadableError without name, namespace or UID."""
    return sanitize(raw, _DEPLOYMENT, required=_NAME_NAMESPACE_UID)


def sanitize_replica_set(raw: RawObject) -> SanitizedObject:
    """Return a ReplicaSet with checked types. Raises UnreadableError without name, namespace or UID."""
    return sanitize(raw, _REPLICA_SET, required=_NAME_NAMESPACE_UID)


def sanitize_stateful_set(raw: RawObject) -> SanitizedObject:
    """Return a StatefulSet with checked types. Raises UnreadableError without name, namespace or UID."""
    return sanitize(raw, _STATEFUL_SET, required=_NAME_NAMESPACE_UID)


def sanitize_job(raw: RawObject) -> SanitizedObject:
    """Return a Job with checked types. The name may be absent."""
    return sanitize(raw, _JOB, required=())


def sanitize_upgrade_plan(raw: RawObject) -> SanitizedObject:
    """Return a Plan of the system-upgrade-controller with checked types. Raises UnreadableError without a name."""
    return sanitize(raw, _UPGRADE_PLAN, required=("name", "namespace"))


def sanitize_budget(raw: RawObject) -> SanitizedObject:
    """Return a PodDisruptionBudget with checked types. Raises UnreadableError without name, namespace or UID."""
    return sanitize(raw, _DISRUPTION_BUDGET, required=_NAME_NAMESPACE_UID)


def sanitize_volume_claim(raw: RawObject) -> SanitizedObject:
    """Return a PersistentVolumeClaim with checked types. Raises UnreadableError without name or namespace."""
    return sanitize(raw, _VOLUME_CLAIM, required=("name", "namespace"))


def sanitize_volume(raw: RawObject) -> SanitizedObject:
    """Return a PersistentVolume with checked types. Raises UnreadableError without a name."""
    return sanitize(raw, _VOLUME)


def sanitize_volume_attachment(raw: RawObject) -> SanitizedObject:
    """Return a VolumeAttachment with checked types. The name may be absent."""
    return sanitize(raw, _VOLUME_ATTACHMENT, required=())


def sanitize_csi_node(raw: RawObject) -> SanitizedObject:
    """Return a CSINode with checked types. Raises UnreadableError without a name."""
    return sanitize(raw, _CSI_NODE)


def sanitize_device_class(raw: RawObject) -> SanitizedObject:
    """Return a DeviceClass with checked types. Raises UnreadableError without a name."""
    return sanitize(raw, _DEVICE_CLASS)


def sanitize_lease(raw: RawObject) -> SanitizedObject:
    """Return a Lease with checked types. The name may be absent."""
    return sanitize(raw, _LEASE, required=())


def sanitize_admission_object(raw: RawObject) -> SanitizedObject:
    """Return a policy or binding of admission with checked types. The name may be absent."""
    return sanitize(raw, _ADMISSION_OBJECT, required=())


def sanitize_metadata(raw: RawObject) -> SanitizedObject:
    """Return the metadata of any object with checked types. Raises UnreadableError without a name."""
    return sanitize(raw, _METADATA_ONLY)


def sanitize_node_metrics(raw: RawObject) -> SanitizedObject:
    """Return a NodeMetrics of the aggregated metrics API with checked types. Raises UnreadableError without a name."""
    return sanitize(raw, _NODE_METRICS)
