"""Texts about what the cleanup could not undo: item, cause and command, logged as `cleanup.left`."""

from enum import StrEnum

from rescheduler.api import names


class CleanupStep(StrEnum):
    """Steps of the cleanup, in order."""

    LEASE = "it waits for the Lease of the operator"
    DRAINS = "NodeDrains are ended"
    RELEASED_PODS = "released pods are returned"
    NODES = "nodes and namespaces are cleaned"


def drain_leftover(node: str) -> tuple[str, str]:
    """Return item and command of a NodeDrain that could not be ended; its `status.node` lists what it added."""
    finalizers = """--type=merge -p '{"metadata":{"finalizers":null}}'"""
    return f"NodeDrain {node}", (
        f"kubectl get nodedrain {node} -o jsonpath='{{.status.node}}' shows what to remove from the node; "
        f"kubectl uncordon {node}; kubectl delete nodedrain {node} --wait=false; "
        f"kubectl patch nodedrain {node} {finalizers}"
    )


def drain_state_unknown() -> str:
    """Return the cause for a NodeDrain without the condition Progressing."""
    return "its status has no condition Progressing"


def deployment_leftover(namespace: str, name: str) -> tuple[str, str]:
    """Return item and command of an operator that could not be stopped."""
    return f"the Deployment {name}", f"kubectl scale deployment {name} -n {namespace} --replicas=0"


def node_leftover(node: str) -> tuple[str, str]:
    """Return item and command of a node whose annotation or taint could not be removed."""
    return (
        f"node {node}",
        f"kubectl annotate node {node} {names.CANCELLED}-; kubectl taint node {node} {names.WAITING_TAINT_KEY}-",
    )


def cordon_leftover(node: str) -> tuple[str, str, str]:
    """Return item, cause and command of a cordon that nobody can attribute."""
    return (
        f"the cordon of node {node}",
        "its NodeDrain is gone, and metadata.managedFields of the node does not name who set the cordon",
        f"kubectl uncordon {node}, unless somebody else needs the cordon",
    )


def out_of_service_leftover(node: str) -> tuple[str, str, str]:
    """Return item, cause and command of an out-of-service taint whose NodeDrain is gone."""
    return (
        f"the out-of-service taint of node {node}",
        "its NodeDrain is gone, so it is unknown who set the taint and for which boot",
        f"kubectl taint node {node} {names.OUT_OF_SERVICE_TAINT_KEY}:NoSchedule- after a reboot of the node",
    )


def node_pool_leftover(node: str) -> tuple[str, str]:
    """Return item and command of a node that could not be removed from its pool."""
    return (
        f"the pool of node {node}",
        f"kubectl taint node {node} {names.POOL}-; kubectl label node {node} {names.NODE_POOL}-",
    )


def pool_leftover(pool: str) -> tuple[str, str]:
    """Return item and command of a NamespacePool whose label could not be removed."""
    return f"NamespacePool {pool}", f"kubectl label nsp {pool} {names.ADMISSION_SKIP}-"


def namespace_leftover(namespace: str) -> tuple[str, str]:
    """Return item and command of a namespace whose pool label could not be removed."""
    return f"namespace {namespace}", f"kubectl label namespace {namespace} {names.POOL}-"


def released_pod_leftover(pod: str, reason: str) -> tuple[str, str, str]:
    """Return item, cause and command of a released pod (namespace/name); `reason`: empty if unknown.

    The command is safe only after another pod of the workload is Ready.
    """
    namespace, _, name = pod.partition("/")
    return (
        f"pod {pod}",
        f"the pod is released and still runs under its Deployment: {reason or 'it was not returned in time'}",
        f"kubectl delete pod {name} -n {namespace} once another one is Ready",
    )


def released_pods_unknown() -> tuple[str, str, str]:
    """Return item, cause and command if the cleanup has not found out whether released pods are left."""
    return (
        "released pods",
        "the cleanup could not check in time whether released pods are left",
        "see the log above, then run rescheduler cleanup again",
    )


def timeout_leftover(seconds: float, step: CleanupStep) -> tuple[str, str, str]:
    """Return item, cause and command of a cleanup that ran out of time in this step."""
    return (
        "the cleanup",
        f"not done within {seconds:.0f} s: {step}",
        "see the log above, then run rescheduler cleanup again",
    )
