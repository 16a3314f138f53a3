"""Policies and webhooks that others have installed: each looks at a write before it is stored, and may refuse it."""

from collections.abc import Callable
from dataclasses import dataclass

from invariants.objects import Json, controller, labels
from invariants.records import Call
from simulation.refusals import RefusedError

Policy = Callable[[Call, Json | None, Json | None], None]
"""Looks at a request, the object before it and after it. Raises RefusedError."""
TEAM = {"team": "shop"}
"""The label of all that one team runs, which is what neighbours select by."""


def pods_have_a_controller(call: Call, before: Json | None, after: Json | None) -> None:
    """A policy against pods that nobody would recreate, minded by everybody but kubelets."""
    ours = call.place.resource == "pods" and after is not None and call.user != "kubelet"
    if ours and before and TEAM.items() <= labels(before).items() and not controller(after or {"metadata": {}}):
        raise _denied(call, "pods must have a controller")


def labels_stay(call: Call, before: Json | None, after: Json | None) -> None:
    """A policy that labels of pods are set at creation and never again."""
    if call.place.resource == "pods" and before and after and labels(before) != labels(after):
        raise _denied(call, "labels of pods must not change")


def _denied(call: Call, words: str) -> RefusedError:
    policy = f"ValidatingAdmissionPolicy 'x' with binding 'x' denied request: {words}"
    return RefusedError(403, f'{call.place.resource} "{call.place.name}" is forbidden: {policy}')


@dataclass(frozen=True, slots=True)
class Refuses:
    """Something that refuses one kind of request with one code; of everybody's, or of the operator's only."""

    what: str
    verb: str
    code: int
    everybody: bool = False

    def __call__(self, call: Call, before: Json | None, after: Json | None) -> None:
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
)
"""What the operator writes, but for its Lease."""


@dataclass(frozen=True, slots=True)
class TakesOver:
    """Takes the evictions of an app's pods over: it refuses them, and moves the pods itself, some time later.

    Attributes:
        move: told of each pod whose eviction was really asked for.
        strict: dry runs are refused, too, and nothing follows from them.
    """

    app: str
    move: Callable[[Json], None]
    strict: bool

    def __call__(self, call: Call, before: Json | None, after: Json | None) -> None:
        """Raise RefusedError."""
        if call.verb != "evict" or before is None or labels(before).get("app") != self.app:
            return
        if call.dry and not self.strict:
            return
        if not call.dry:
            self.move(before)
        words = 'admission webhook "mover.example.com" denied the request: the workload will be moved'
        raise RefusedError(429, words)
