"""Faults of the connection to the API server by name, for `harness.proxy`; each heals when it is no longer set."""

import itertools
import json
from collections.abc import Callable

from harness.proxy import Asked, Edit, Fault


def watches(asked: Asked) -> bool:
    return asked.is_watch


def requests(asked: Asked) -> bool:
    return not asked.is_watch


def evictions(asked: Asked) -> bool:
    return asked.path.endswith("/eviction") and "dryRun" not in asked.query


def writes(asked: Asked) -> bool:
    return asked.writes


def _instead(line: bytes) -> Callable[[], Edit]:
    """Return a maker of an edit that sends this line in place of each event."""
    return lambda: lambda _: [line]


def _error(code: int, reason: str) -> bytes:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return json.dumps({"type": "ERROR", "object": {**status, "message": "a fault of the test"}}).encode()


def _lose() -> Edit:
    """Return an edit that loses each third event."""
    count = itertools.count(1)
    return lambda line: [] if next(count) % 3 == 0 else [line]


def _swap() -> Edit:
    """Return an edit that delivers each second event before the first one."""
    held: list[bytes] = []

    def edited(line: bytes) -> list[bytes]:
        if held:
            return [line, held.pop()]
        held.append(line)
        return []

    return edited


_ODD_TYPE = b'{"type":"TELEPORTED","object":{"metadata":{"resourceVersion":"1"}}}'
_LONG = b'{"type":"MODIFIED","object":{"kind":"Node","metadata":{"name":"' + b"x" * 2**20 + b'"}}}'
FAULTS: dict[str, Fault] = {
    "latency": Fault(requests, delay=0.4),
    "reset": Fault(share=0.4, reset=True),
    "lost answers": Fault(writes, share=0.4, loses_answer=True),
    "half-open streams": Fault(watches, hangs=True),
    "half-open requests": Fault(requests, share=0.3, hangs=True),
    "truncated watches": Fault(watches, breaks_after=3000),
    "slow watches": Fault(watches, delay=2.0),
    "429 with Retry-After": Fault(share=0.5, code=429, retry_after=1),
    "429 for all": Fault(code=429, retry_after=2),
    "500": Fault(share=0.5, code=500),
    "503 for all": Fault(code=503),
    "410 to watches": Fault(watches, code=410),
    "410 in watches": Fault(watches, edit=_instead(_error(410, "Expired"))),
    "500 in watches": Fault(watches, edit=_instead(_error(500, "InternalError"))),
    "504 in watches": Fault(watches, edit=_instead(_error(504, "Timeout"))),
    "half a line": Fault(watches, edit=lambda: lambda line: [line[: len(line) // 2]]),
    "unknown event": Fault(watches, edit=_instead(_ODD_TYPE)),
    "line of 1 MB": Fault(watches, edit=_instead(_LONG)),
    "no JSON": Fault(watches, edit=_instead(b"<html>bad gateway</html>")),
    "lost events": Fault(watches, edit=_lose),
    "repeated events": Fault(watches, edit=lambda: lambda line: [line, line]),
    "reordered events": Fault(watches, edit=_swap),
    "evictions 429": Fault(evictions, code=429, retry_after=2),
    "evictions 409": Fault(evictions, code=409),
    "evictions 403": Fault(evictions, code=403),
    "evictions 500": Fault(evictions, code=500),
    "evictions 503": Fault(evictions, code=503),
    "lost evictions": Fault(evictions, loses_answer=True),
    "401": Fault(share=0.5, code=401),
    "partition": Fault(hangs=True),
}
