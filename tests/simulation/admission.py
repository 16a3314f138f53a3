"""Admission policies and webhooks of others: each reads a write before it is stored, and may refuse it."""

from collections.abc import Callable
from dataclasses import dataclass

from invariants.objects import controller, labels
from invariants.records import Call
from rescheduler.core.model.raw import RawObject
from simulation.refusals import RefusedError

Policy = Callable[[Call, RawObject | None, RawObject | None], None]
"""Takes a request, and the object before and after it. Raises RefusedError."""
TEAM = {"team": "shop"}
"""The label of all workloads of a team; neighbours select by it."""


def pods_have_a_controller(call: Call, before: RawObject | None, after: RawObject | None) -> None:
    """Refuse pods that no controller would recreate; kubelets are exempt."""
    ours = call.place.resource == "pods" and after is not None and call.user != "kubelet"
    if ours and before and TEAM.items() <= labels(before).items() and not controller(after or {"metadata": {}}):
        raise _denied(call, "pods must have a controller")


def labels_stay(call: Call, before: RawObject | None, after: RawObject | None) -> None:
    """Refuse a change of a pod's labels after its creation."""
    if call.place.resource == "pods" and before and after and labels(before) != labels(after):
        raise _denied(call, "labels of pods must not change")


def _denied(call: Call, words: str) -> RefusedError:
    policy = f"ValidatingAdmissionPolicy 'x' with binding 'x' denied request: {words}"
    return RefusedError(403, f'{call.place.resource} "{call.place.name}" is forbidden: {policy}')


@dataclass(frozen=True, slots=True)
class Refuses:
    """Refuse one kind of request with one code, for all users or only for the operator."""

    what: str
    verb: str
    code: int
    everybody: bool = False

    def __call__(self, call: Call, before: RawObject | None, after: RawObject | None) -> None:
        """Raise RefusedError."""
        place = call.place.resource + (f"/{call.place.subresource}" if call.place.subresource else "")
        theirs = call.user.startswith("operator") or (self.everybody and call.user not in ("kubelet", "apiserver"))
        if theirs and (place, call.verb) == (self.what, self.verb):
            raise self._error(call)

    def _error(self, call: Call) -> RefusedError:
        called = 'failed calling webhook "x.example.com": failed to call webhook: Post "https://x.example.com"'
        match self.code:
            case 400:
                return RefusedError(400, 'admission webhook "x.example.com" denied the request: no')
            case 409:
                return RefusedError(409, f"Operation cannot be fulfilled on {call.place}: the object has been modified")
            case 422:
                return RefusedError(422, f"{call.place} is invalid: spec: Forbidden: updates may not change fields")
            case 429:
                words = "the server has received too many requests and has asked us to try again later"
                return RefusedError(429, words, retry_after=10.0)
            case 500:
                return RefusedError(500, f"Internal error occurred: {called}: connection refused")
            case 504:
                return RefusedError(504, f"Internal error occurred: {called}: context deadline exceeded", delay=10.0)
        return _denied(call, "not now")


CODES = (400, 403, 409, 422, 429, 500, 504)
TARGETS = (
    ("pods", "patch"),
    ("pods", "delete"),
    ("pods/eviction", "evict"),
    ("nodes", "patch"),
    ("nodes/status", "patch"),
    ("nodedrains", "create"),
    ("nodedrains", "patch"),
    ("nodedrains", "delete"),
    ("nodedrains/status", "patch"),
    ("events", "create"),
    ("configmaps", "patch"),
)
"""Objects that the operator writes, except its Lease."""


@dataclass(frozen=True, slots=True)
class TakesOver:
    """Take over the evictions of an app's pods: refuse each eviction, and move the pod some time later.

    Attributes:
        move: called with each pod after a real eviction request.
        strict: dry runs are refused too, and have no effect.
    """

    app: str
    move: Callable[[RawObject], None]
    strict: bool

    def __call__(self, call: Call, before: RawObject | None, after: RawObject | None) -> None:
        """Raise RefusedError."""
        if call.verb != "evict" or before is None or labels(before).get("app") != self.app:
            return
        if call.dry and not self.strict:
            return
        if not call.dry:
            self.move(before)
        words = 'admission webhook "mover.example.com" denied the request: the workload will be moved'
        raise RefusedError(429, words)
