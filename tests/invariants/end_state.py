"""Check the state after every fault has ended: machines, operators and people leave the cluster alone."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from invariants.objects import annotations, controller, deleting, is_ready, labels, move, name, released, uid
from rescheduler.core.model.raw import RawObject


def shape(node: RawObject) -> RawObject:
    """Return the part of a node that must be restored."""
    return {
        "cordoned": bool(node["spec"].get("unschedulable")),
        "taints": node["spec"].get("taints") or [],
        "labels": labels(node),
        "annotations": annotations(node),
        "conditions": sorted(c["type"] for c in node["status"]["conditions"]),
    }


def differences(every: Callable[[str], Iterable[RawObject]], before: Mapping[str, RawObject]) -> Iterator[str]:
    """Yield the objects that are not in their expected state.

    `every`: the objects of a resource. `before`: shapes of nodes by name.
    """
    pods = list(every("pods"))
    above = {uid(rs): controller(rs).get("uid") for rs in every("replicasets")}
    for resource in ("deployments", "statefulsets"):
        for raw in every(resource):
            owners = {uid(raw), *(rs for rs, owner in above.items() if owner == uid(raw))}
            mine = [p for p in pods if controller(p).get("uid") in owners and not deleting(p)]
            ready, wanted = sum(map(is_ready, mine)), raw["spec"]["replicas"]
            if ready != wanted or len(mine) != wanted:
                yield f"{name(raw)} has {len(mine)} pods, {ready} Ready of {wanted}"
    for pod in pods:
        # A record that another client wrote on a pod has no meaning, and stays.
        if released(pod) or (move(pod) and move(pod)["replicaSetUID"] in above):
            yield f"{name(pod)} has annotations of a move"
    for node in every("nodes"):
        if not is_ready(node):
            yield f"{name(node)} is not Ready"
        if name(node) in before and shape(node) != before[name(node)]:
            yield f"{name(node)} is {shape(node)} and was {before[name(node)]}"
    for drain in every("nodedrains"):
        yield f"the NodeDrain {name(drain)} still exists: {json.dumps(drain['spec'])} {json.dumps(drain.get('status'))[:1500]}"
