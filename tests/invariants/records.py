"""What is recorded of a cluster's history: each request that writes, and each object as it was before and after.

The same for the simulated cluster and for a real one, so that both are held to the same invariants.
"""

import json
from dataclasses import dataclass, field

from invariants.objects import Json, released


@dataclass(frozen=True, slots=True)
class Place:
    """What a path names."""

    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @classmethod
    def parse(cls, path: str) -> "Place":
        """From a path of the API, without its query."""
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
    """One request that writes; `verb`: create, update, patch, delete, evict; `dry`: it only asks."""

    user: str
    verb: str
    place: Place
    body: Json = field(default_factory=dict)
    dry: bool = False

    def __str__(self) -> str:
        return f"{self.user} {self.verb} {self.place} {json.dumps(self.body)[:300]}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request, and when (seconds of the epoch)."""

    at: float
    call: Call
    code: int

    def __str__(self) -> str:
        return f"{self.call}: {self.code}"


@dataclass(frozen=True, slots=True)
class Change:
    """One revision of one object.

    Attributes:
        at: seconds of the epoch.
        before, after: None where it was not there, or is not any more.
        call: the request that made it; on a real cluster None where it is not the operator's.
    """

    revision: int
    at: float
    place: Place
    before: Json | None
    after: Json | None
    call: Call | None = None

    @property
    def cordons(self) -> bool:
        """Whether it makes a node unschedulable that was not."""
        if self.place.resource != "nodes" or self.before is None or self.after is None:
            return False
        return bool(self.after["spec"].get("unschedulable")) and not self.before["spec"].get("unschedulable")

    @property
    def lets_go(self) -> bool:
        """Whether it releases a pod."""
        if self.place.resource != "pods" or self.before is None or self.after is None:
            return False
        return released(self.after) and not released(self.before)

    @property
    def ends(self) -> Json | None:
        """The pod that it evicts or deletes."""
        verb = self.call.verb if self.call else ""
        return self.before if self.place.resource == "pods" and verb in ("evict", "delete") else None

    def __str__(self) -> str:
        who = f"{self.call.user} {self.call.verb} " if self.call else ""
        return f"revision {self.revision}: {who}{self.place}"
