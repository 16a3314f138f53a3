"""Whether a pod that was taken off a dead node runs elsewhere, should that node turn out to have lived."""

from collections.abc import Iterable

from rescheduler.core.model.pods import Pod

_JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"
_COMPLETION_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
_POD_TEMPLATE_HASH_LABEL = "pod-template-hash"


def list_params(pod: Pod) -> dict[str, str]:
    """Parameters of a list in the pod's namespace that finds its successor, and little else."""
    kind = pod.owner.kind if pod.owner else ""
    if kind == "Job":
        known = {key: pod.labels[key] for key in (_JOB_UID_LABEL, _COMPLETION_INDEX_LABEL) if key in pod.labels}
    else:
        known = (
            {_POD_TEMPLATE_HASH_LABEL: pod.labels[_POD_TEMPLATE_HASH_LABEL]}
            if kind == "ReplicaSet" and _POD_TEMPLATE_HASH_LABEL in pod.labels
            else {}
        )
    if known:
        return {"labelSelector": ",".join(f"{key}={value}" for key, value in known.items())}
    return {"fieldSelector": f"metadata.name={pod.name}"}


def running_duplicate(pod: Pod, candidates: Iterable[Pod]) -> Pod | None:
    """The pod that runs elsewhere in the place of this one; None where none does."""
    for other in candidates:
        elsewhere = other.uid != pod.uid and other.node not in ("", pod.node)
        runs = other.phase == "Running" and other.deletion_timestamp is None
        later = pod.created is None or other.created is None or other.created >= pod.created
        same = other.name == pod.name or (other.owner == pod.owner and pod.owner is not None and later)
        if elsewhere and runs and same:
            return other
    return None
