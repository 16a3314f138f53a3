"""What a pod asks of its node in resources, and what a running one holds.

Rules: kubernetes/component-helpers resource (PodRequests); the plan must never count less than the scheduler does.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rescheduler.core.model import object_schemas
from rescheduler.core.model.quantities import CPU, MEMORY, MOST, amount

Amounts = Mapping[str, int]
"""By resource: CPU in thousandths, everything else in units."""


def amounts(raw: Mapping[str, Any] | None, *, otherwise: int = MOST) -> dict[str, int]:
    """A ResourceList; `otherwise`: what no quantity counts as."""
    return {name: amount(name, text, otherwise) for name, text in (raw or {}).items()}


def asked(spec: Mapping[str, Any]) -> dict[str, int]:
    """What a pod of this raw spec asks for when it is placed."""
    return _whole(spec, lambda container: amounts((container.get("resources") or {}).get("requests")))


def held(raw: Mapping[str, Any]) -> dict[str, int]:
    """What a raw pod with a node counts for: while it is resized in place, the larger of what it has and asks."""
    raw = object_schemas.any_pod(raw)
    spec, status = raw["spec"], raw["status"]
    known = {
        found["name"]: (found.get("allocatedResources"), (found.get("resources") or {}).get("requests"))
        for kind in ("containerStatuses", "initContainerStatuses")
        for found in status.get(kind) or ()
        if "allocatedResources" in found or "resources" in found
    }
    if not known:
        return asked(spec)

    def largest(container: Mapping[str, Any]) -> dict[str, int]:
        lists = ((container.get("resources") or {}).get("requests"), *known.get(container.get("name", ""), ()))
        return _most(amounts(each) for each in lists)

    return _whole(spec, largest)


def _whole(spec: Mapping[str, Any], of: Any) -> dict[str, int]:
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
            start = _most((start, beside))
        else:
            start = _most((start, Counter(beside) + Counter(mine)))
    found = _most((total, start))
    # Requests of the pod as a whole stand instead of the sum of its containers'.
    for name, text in ((spec.get("resources") or {}).get("requests") or {}).items():
        if name in (CPU, MEMORY) or name.startswith("hugepages-"):
            found[name] = amount(name, text)
    for name, value in amounts(spec.get("overhead")).items():
        found[name] = found.get(name, 0) + value
    return {name: value for name, value in found.items() if value > 0}


def _most(lists: Iterable[Amounts]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in lists:
        for name, value in each.items():
            found[name] = max(found.get(name, 0), value)
    return found
