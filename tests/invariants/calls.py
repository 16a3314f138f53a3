"""Invariants of the operator's requests, granted or refused."""

from collections.abc import Iterator

from invariants.records import Call

_ALLOWED = {
    "nodes": {"patch"},
    "nodes/status": {"patch"},
    "pods": {"patch", "delete"},
    "pods/status": {"patch"},
    "pods/eviction": {"evict"},
    "nodedrains": {"create", "patch", "delete"},
    "nodedrains/status": {"patch"},
    "events": {"create", "patch"},
    "configmaps": {"patch"},
    "leases": {"create", "update"},
}


def only_what_is_granted(call: Call) -> Iterator[str]:
    what = call.place.resource + (f"/{call.place.subresource}" if call.place.subresource else "")
    if call.verb not in _ALLOWED.get(what, ()):
        yield f"may not {call.verb} {what}"
    if what == "leases" and call.place.namespace == "kube-node-lease":
        yield "touches a kubelet's Lease"


def every_write_has_its_precondition(call: Call) -> Iterator[str]:
    meta = call.body.get("metadata") or {}
    options = call.body.get("deleteOptions", {}) if call.verb == "evict" else call.body
    match call.place.resource, call.verb:
        case _, "evict" | "delete":
            if not (options.get("preconditions") or {}).get("uid"):
                yield "has no UID precondition"
        case "pods" | "configmaps", _:
            if not (meta.get("uid") and meta.get("resourceVersion")):
                yield "has no UID and resourceVersion"
        case "nodes", _ if call.place.subresource != "status":
            if not (meta.get("uid") and meta.get("resourceVersion")):
                yield "has no UID and resourceVersion"
        case ("nodedrains", "patch") | ("leases", "update"):
            if not meta.get("resourceVersion"):
                yield "has no resourceVersion"


def grace_is_never_0(call: Call) -> Iterator[str]:
    options = call.body.get("deleteOptions", {}) if call.verb == "evict" else call.body
    if call.verb in ("evict", "delete") and (options or {}).get("gracePeriodSeconds", 1) < 1:
        yield "has grace 0"
