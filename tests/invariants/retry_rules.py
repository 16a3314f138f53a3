"""Invariants of retries: no request is sent in a busy loop, and a refused request is retried twice a minute at most."""

from collections import defaultdict, deque
from collections.abc import Iterator

from invariants.records import Answer

_FIRST = 8
"""Refusals of one kind of request for one pod before only the limit of a minute applies; the back-off doubles."""
_PER_MINUTE = 3
"""Two a minute: a minute that begins with a refusal has three."""
_FORGOTTEN = 120.0  # seconds without a refusal, after which the next refusal counts as the first one
_SPAN, _MOST = 10.0, 40
"""Most requests for one object within `_SPAN` seconds, dry runs included."""
_REFUSED, _NOT_FOUND = 400, 404
Violations = Iterator[str]


class RetryLimits:
    """Follow the answers to the operator's requests."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._asked: dict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._hot: set[tuple[str, str]] = set()

    def check(self, answer: Answer) -> Violations:
        """Take the next answer; yield a violation if the request came too early."""
        place = answer.call.place
        key = (answer.call.user, f"{place.resource}/{place.namespace}/{place.name}")
        if place.resource in ("leases", "events") or key in self._hot:  # reported once
            return
        asked = self._asked[key]
        asked.append(answer.at)
        while asked[0] <= answer.at - _SPAN:
            asked.popleft()
        if len(asked) > _MOST:
            self._hot.add(key)
            yield f"is sent {len(asked)} times within {_SPAN:.0f} s"
        if place.resource == "pods" and answer.code >= _REFUSED and answer.code != _NOT_FOUND:
            what = "?" if answer.call.dry else answer.call.verb
            yield from self._again((key[0], f"{key[1]} {what}"), answer)

    def _again(self, key: tuple[str, str], answer: Answer) -> Violations:
        refused = self._refused[key]
        if key in self._hot:
            return
        if refused and answer.at - refused[-1] > _FORGOTTEN:
            refused.clear()
        refused.append(answer.at)
        recent_values = sum(at > answer.at - 60 for at in refused)
        if len(refused) > _FIRST and recent_values > _PER_MINUTE:
            self._hot.add(key)
            yield f"is refused {recent_values} times within a minute, and {len(refused)} times in a row"
