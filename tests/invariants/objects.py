"""Raw objects of the API, and the few questions that the simulator and the checkers ask about them."""

import json
from datetime import datetime
from typing import Any

from rescheduler.core.model.raw import RawObject

HASH = "pod-template-hash"
MOVE = "rescheduler.dev/move"
SHUNS = "rescheduler.dev/drain"
OUT_OF_SERVICE, SHUTDOWN = "node.kubernetes.io/out-of-service", "node.cloudprovider.kubernetes.io/shutdown"


def copied(value: Any) -> Any:
    """Return a deep copy of JSON."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if type(value) is list else value


def stamp(time: datetime) -> str:
    """Return a time as the API writes it, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str | None) -> float | None:
    """Return a time of the API in seconds of the epoch; None also for a time that cannot be parsed."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None


def name(raw: RawObject) -> str:
    return str(raw["metadata"]["name"])


def uid(raw: RawObject) -> str:
    return str(raw["metadata"]["uid"])


def labels(raw: RawObject) -> RawObject:
    return raw["metadata"].get("labels") or {}


def annotations(raw: RawObject) -> RawObject:
    return raw["metadata"].get("annotations") or {}


def deleting(raw: RawObject) -> bool:
    return "deletionTimestamp" in raw["metadata"]


def controller(raw: RawObject) -> RawObject:
    """Return the ownerReference of the controller; empty if there is none."""
    return next((o for o in raw["metadata"].get("ownerReferences") or () if o.get("controller")), {})


def condition(raw: RawObject, type_: str) -> RawObject:
    found = (raw.get("status") or {}).get("conditions") or ()
    return next((c for c in found if c["type"] == type_), {})


def is_ready(raw: RawObject) -> bool:
    return condition(raw, "Ready").get("status") == "True"


def finished(pod: RawObject) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def node_of(pod: RawObject) -> str:
    return str(pod["spec"].get("nodeName", ""))


def released(pod: RawObject) -> bool:
    """Whether the pod was released to its Deployment; the record of a move on any other pod has no meaning."""
    found, above = move(pod), controller(pod)
    return bool(found) and above.get("kind") == "Deployment" and above.get("uid") == found["deploymentUID"]


def move(pod: RawObject) -> RawObject:
    """Return the record of the move, by any author; empty if there is none or it cannot be parsed."""
    try:
        found = json.loads(annotations(pod).get(MOVE, ""))
    except (ValueError, TypeError, RecursionError):
        return {}
    fits = isinstance(found, dict) and isinstance(found.get("ready"), int) and "since" in found
    return found if fits and all(isinstance(found.get(key), str) for key in ("deploymentUID", "replicaSetUID")) else {}


def claims(pod: RawObject) -> list[str]:
    """Return names of the pod's PersistentVolumeClaims; in the simulation only one node can have each volume."""
    volumes = pod["spec"].get("volumes") or ()
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def selects(selector: RawObject | None, found: RawObject) -> bool:
    """Whether a selector with only matchLabels selects these labels."""
    wanted = (selector or {}).get("matchLabels") or {}
    return selector is not None and all(found.get(key) == value for key, value in wanted.items())


def required_affinity(pod: RawObject) -> list[RawObject]:
    """Return the label selectors of the required pod affinity by hostname; the simulation has no other topology."""
    affinity = (pod["spec"].get("affinity") or {}).get("podAffinity") or {}
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    return [term.get("labelSelector") or {} for term in terms if term["topologyKey"] == "kubernetes.io/hostname"]


def has_taint(node: RawObject, key: str) -> bool:
    return any(t["key"] == key for t in node["spec"].get("taints") or ())


def set_condition(raw: dict[str, Any], type_: str, status: str, reason: str, now: datetime) -> None:
    """Set a condition in place; its lastTransitionTime changes with its status."""
    found = raw.setdefault("status", {}).setdefault("conditions", [])
    have = next((c for c in found if c["type"] == type_), None)
    if have is None:
        have = {"type": type_, "status": ""}
        found.append(have)
    if have["status"] != status:
        have["lastTransitionTime"] = stamp(now)
    have |= {"status": status, "reason": reason}


def proof(node: RawObject) -> bool:
    """Whether an attestation states that this boot of this machine is dead."""
    try:
        said = json.loads(annotations(node).get("rescheduler.dev/fenced", "{}"))
    except (ValueError, TypeError, RecursionError):
        return False
    boot = node["status"].get("nodeInfo", {}).get("bootID")
    return isinstance(said, dict) and bool(said.get("nodeUID") == uid(node) and said.get("bootID") == boot)
