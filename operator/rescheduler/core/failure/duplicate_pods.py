"""Find the second copy of a pod that was removed from a node whose boot was reported dead and came back."""

from collections.abc import Iterable

from rescheduler.core.model.pods import Pod

_JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"
_COMPLETION_INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
_POD_TEMPLATE_HASH_LABEL = "pod-template-hash"


def list_params(pod: Pod) -> dict[str, str]:
    """Return the parameters of a list in the pod's namespace that finds its successor and few other pods."""
    kind = pod.owner.kind if pod.owner else ""
    if kind == "Job":
        labels = {key: pod.labels[key] for key in (_JOB_UID_LABEL, _COMPLETION_INDEX_LABEL) if key in pod.labels}
    else:
        labels = (
            {_POD_TEMPLATE_HASH_LABEL: pod.labels[_POD_TEMPLATE_HASH_LABEL]}
            if kind == "ReplicaSet" and _POD_TEMPLATE_HASH_LABEL in pod.labels
            else {}
        )
    if labels:
        return {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}
    return {"fieldSelector": f"metadata.name={pod.name}"}


def running_duplicate(pod: Pod, candidates: Iterable[Pod]) -> Pod | None:
    """Return the pod that runs on another node in place of this pod; None if there is none."""
    for candidate in candidates:
        elsewhere = candidate.uid != pod.uid and candidate.node not in ("", pod.node)
        runs = candidate.phase == "Running" and candidate.deletion_timestamp is None
        later = pod.created is None or candidate.created is None or candidate.created >= pod.created
        same = candidate.name == pod.name or (candidate.owner == pod.owner and pod.owner is not None and later)
        if elsewhere and runs and same:
            return candidate
    return None
