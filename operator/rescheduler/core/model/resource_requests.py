"""What a pod asks of its node in resources, and what a running one holds.

Rules: kubernetes/component-helpers resource (PodRequests); the plan must never count less than the scheduler does.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rescheduler.core.model import object_schemas
from rescheduler.core.model.quantities import CPU, MAX_QUANTITY, MEMORY, parse_quantity

ResourceList = Mapping[str, int]
"""By resource: CPU in thousandths, everything else in units."""


def parse_resource_list(raw: Mapping[str, Any] | None, *, default: int = MAX_QUANTITY) -> dict[str, int]:
    """A ResourceList; `otherwise`: what no quantity counts as."""
    return {name: parse_quantity(name, text, default) for name, text in (raw or {}).items()}


def requested_resources(spec: Mapping[str, Any]) -> dict[str, int]:
    """What a pod of this raw spec asks for when it is placed."""
    return _sum_containers(
        spec, lambda container: parse_resource_list((container.get("resources") or {}).get("requests"))
    )


def allocated_resources(raw: Mapping[str, Any]) -> dict[str, int]:
    """What a raw pod with a node counts for: while it is resized in place, the larger of what it has and asks."""
    raw = object_schemas.sanitize_unnamed_pod(raw)
    spec, status = raw["spec"], raw["status"]
    known = {
        found["name"]: (found.get("allocatedResources"), (found.get("resources") or {}).get("requests"))
        for kind in ("containerStatuses", "initContainerStatuses")
        for found in status.get(kind) or ()
        if "allocatedResources" in found or "resources" in found
    }
    if not known:
        return requested_resources(spec)

    def largest(container: Mapping[str, Any]) -> dict[str, int]:
        lists = ((container.get("resources") or {}).get("requests"), *known.get(container.get("name", ""), ()))
        return _maximum(parse_resource_list(each) for each in lists)

    return _sum_containers(spec, largest)


def _sum_containers(spec: Mapping[str, Any], of: Any) -> dict[str, int]:
    """Containers side by side, init containers one after another, sidecars beside both."""
    total: Counter[str] = Counter()
    for container in spec.get("containers") or ():
        total.update(of(container))
    beside: Counter[str] = Counter()
    start: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        mine = of(container)
        if container.get("restartPolicy") == "Always":
            total.update(mine)
            beside.update(mine)
            start = _maximum((start, beside))
        else:
            start = _maximum((start, Counter(beside) + Counter(mine)))
    found = _maximum((total, start))
    # Requests of the pod as a whole stand instead of the sum of its containers'.
    for name, text in ((spec.get("resources") or {}).get("requests") or {}).items():
        if name in (CPU, MEMORY) or name.startswith("hugepages-"):
            found[name] = parse_quantity(name, text)
    for name, value in parse_resource_list(spec.get("overhead")).items():
        found[name] = found.get(name, 0) + value
    return {name: value for name, value in found.items() if value > 0}


def _maximum(lists: Iterable[ResourceList]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in lists:
        for name, value in each.items():
            found[name] = max(found.get(name, 0), value)
    return found
