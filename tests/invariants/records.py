"""Records of a cluster's history: each request that writes, and each object before and after.

The simulated and the real cluster write the same records, so the same invariants hold for both.
"""

import json
from dataclasses import dataclass, field

from invariants.objects import released
from rescheduler.core.model.raw import RawObject


@dataclass(frozen=True, slots=True)
class Place:
    """The object or the collection that a path names."""

    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @classmethod
    def parse(cls, path: str) -> "Place":
        """Parse a path of the API, without its query."""
        parts = path.strip("/").split("/")
        rest = (parts[2:] if parts[0] == "api" else parts[3:]) or [""]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        return cls(rest[0], namespace, *rest[1:3])

    def __str__(self) -> str:
        parts = (self.resource, self.namespace, self.name, self.subresource)
        return "/".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Call:
    """A request that writes.

    Attributes:
        verb: create, update, patch, delete or evict.
        dry: whether it is a dry run.
    """

    user: str
    verb: str
    place: Place
    body: RawObject = field(default_factory=dict)
    dry: bool = False

    def __str__(self) -> str:
        return f"{self.user} {self.verb} {self.place} {json.dumps(self.body)[:300]}"


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a request, and its time in seconds of the epoch."""

    at: float
    call: Call
    code: int

    def __str__(self) -> str:
        return f"{self.call}: {self.code}"


@dataclass(frozen=True, slots=True)
class Change:
    """A revision of an object.

    Attributes:
        at: seconds of the epoch.
        before, after: the object; None if it does not exist.
        call: the request that made the revision; on a real cluster None if another client sent it.
    """

    revision: int
    at: float
    place: Place
    before: RawObject | None
    after: RawObject | None
    call: Call | None = None

    @property
    def cordons(self) -> bool:
        """Whether it makes a schedulable node unschedulable."""
        if self.place.resource != "nodes" or self.before is None or self.after is None:
            return False
        return bool(self.after["spec"].get("unschedulable")) and not self.before["spec"].get("unschedulable")

    @property
    def releases(self) -> bool:
        """Whether it releases a pod."""
        if self.place.resource != "pods" or self.before is None or self.after is None:
            return False
        return released(self.after) and not released(self.before)

    @property
    def ends(self) -> RawObject | None:
        """Return the pod that it evicts or deletes; None if there is none."""
        verb = self.call.verb if self.call else ""
        return self.before if self.place.resource == "pods" and verb in ("evict", "delete") else None

    def __str__(self) -> str:
        who = f"{self.call.user} {self.call.verb} " if self.call else ""
        return f"revision {self.revision}: {who}{self.place}"
