"""Resource requests of pods, as the scheduler counts them.

A plan must never count less than the scheduler. Source: kubernetes/component-helpers resource (PodRequests).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from rescheduler.core.model import object_schemas
from rescheduler.core.model.quantities import CPU, MAX_QUANTITY, MEMORY, PODS, parse_quantity
from rescheduler.core.model.raw import RawObject, RawPod, RawPodSpec

_IMPLICIT_DEVICE_RESOURCE = "deviceclass.resource.kubernetes.io/"
"""Each DeviceClass serves a resource with this prefix and its own name."""
_NODE_BOUND_OWNERS = ("DaemonSet", "Node")
ResourceList = Mapping[str, int]
"""Amount by resource name: CPU in thousandths of a core, every other resource in units."""
PodSize = tuple[int, int]
"""Requests of a pod: CPU in thousandths of a core, and bytes of memory."""


def parse_resource_list(raw: RawObject | None, *, default: int = MAX_QUANTITY) -> dict[str, int]:
    """Parse a raw resource list; `default` stands for an unreadable quantity."""
    return {name: parse_quantity(name, text, default) for name, text in (raw or {}).items()}


def requested_resources(spec: RawPodSpec) -> dict[str, int]:
    """Return the requests of a pod of this raw spec, as the scheduler counts them before it places the pod."""
    return _sum_containers(
        spec, lambda container: parse_resource_list((container.get("resources") or {}).get("requests"))
    )


def allocated_resources(raw: RawPod) -> dict[str, int]:
    """Return the requests of a raw pod on a node; during an in-place resize, the larger of old and new requests."""
    raw = object_schemas.sanitize_unnamed_pod(raw)
    spec, status = raw["spec"], raw["status"]
    allocated = {
        container["name"]: (container.get("allocatedResources"), (container.get("resources") or {}).get("requests"))
        for kind in ("containerStatuses", "initContainerStatuses")
        for container in status.get(kind) or ()
        if "allocatedResources" in container or "resources" in container
    }
    if not allocated:
        return requested_resources(spec)

    def largest(container: RawObject) -> dict[str, int]:
        lists = ((container.get("resources") or {}).get("requests"), *allocated.get(container.get("name", ""), ()))
        return _maximum(parse_resource_list(resources) for resources in lists)

    return _sum_containers(spec, largest)


def allocated_with_pod(raw: RawPod) -> dict[str, int]:
    """Return what a raw pod takes of its node: `allocated_resources`, and one of the resource `pods`."""
    return {**allocated_resources(raw), PODS: 1}


def sum_by_node(
    raw_pods: Iterable[RawPod], totals: dict[str, Counter[str]], sizes: dict[str, Counter[PodSize]]
) -> None:
    """Add what these raw pods take of their nodes to the totals by node; "" for pods without a node.

    `sizes`: by node, the number of pods of each size. Pods that belong to their node do not count.
    """
    for raw in raw_pods:
        node, allocated = raw["spec"].get("nodeName", ""), allocated_with_pod(raw)
        totals.setdefault(node, Counter()).update(allocated)
        if not any(owner.get("kind") in _NODE_BOUND_OWNERS for owner in raw["metadata"].get("ownerReferences") or ()):
            sizes.setdefault(node, Counter())[allocated.get(CPU, 0), allocated.get(MEMORY, 0)] += 1


def device_resources(raw_classes: Iterable[RawObject]) -> frozenset[str]:
    """Return the extended resources that these raw DeviceClasses serve, besides the nodes' own.

    Source: kubernetes/dynamic-resource-allocation, deviceclass/extendedresourcecache.
    """
    names: set[str] = set()
    for raw in raw_classes:
        names.add(_IMPLICIT_DEVICE_RESOURCE + raw["metadata"]["name"])
        if name := raw["spec"].get("extendedResourceName"):
            names.add(name)
    return frozenset(names)


def _sum_containers(spec: RawPodSpec, requests_of: Callable[[RawObject], dict[str, int]]) -> dict[str, int]:
    """Return the requests of a pod: containers run together, init containers in sequence, sidecars with both."""
    running: Counter[str] = Counter()
    for container in spec.get("containers") or ():
        running.update(requests_of(container))
    sidecars: Counter[str] = Counter()
    starting: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        requests = requests_of(container)
        if container.get("restartPolicy") == "Always":
            running.update(requests)
            sidecars.update(requests)
            starting = _maximum((starting, sidecars))
        else:
            starting = _maximum((starting, Counter(sidecars) + Counter(requests)))
    total = _maximum((running, starting))
    # Pod-level requests replace the sum of the containers' requests.
    for name, text in ((spec.get("resources") or {}).get("requests") or {}).items():
        if name in (CPU, MEMORY) or name.startswith("hugepages-"):
            total[name] = parse_quantity(name, text)
    for name, value in parse_resource_list(spec.get("overhead")).items():
        total[name] = total.get(name, 0) + value
    return {name: value for name, value in total.items() if value > 0}


def _maximum(lists: Iterable[ResourceList]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for resources in lists:
        for name, value in resources.items():
            largest[name] = max(largest.get(name, 0), value)
    return largest
