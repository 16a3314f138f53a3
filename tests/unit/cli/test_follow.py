"""Drains are followed until each has ended. If nothing changes, the operator is looked at."""

from collections.abc import Iterator
from typing import Any

import pytest

from rescheduler.cli.cluster_api import ApiUnavailableError
from rescheduler.cli.follow import Outcome, follow
from rescheduler.core.model.raw import RawObject
from unit.builders import raw_drain


def drain(name: str, phase: str = "Draining", version: str = "1", **meta: Any) -> RawObject:
    found = raw_drain(status={"phase": phase, "observedGeneration": 9})
    return {**found, "metadata": {**found["metadata"], "name": name, "uid": name, "resourceVersion": version, **meta}}


class Api:
    """Returns these lists in turn, then these watches; an exception is raised."""

    def __init__(self, lists: list[Any], watches: list[Any]) -> None:
        self.lists, self.watches, self.leases = lists, watches, [{"holderIdentity": "a", "renewTime": "1"}]
        self.queries: list[dict[str, Any]] = []

    def list_with_version(self, *_: str) -> tuple[list[RawObject], str]:
        found = self.lists.pop(0)
        if isinstance(found, Exception):
            raise found
        return found, "7"

    def get(self, _: str, path: str) -> RawObject | None:
        found = self.lists.pop(0)
        return found[0] if found else None

    def watch(self, *_: str, **query: Any) -> Iterator[tuple[str, RawObject]]:
        self.queries.append(query)
        yield from self.watches.pop(0)

    def send(self, *_: str, **__: Any) -> Any:
        leases = [{"spec": lease} for lease in self.leases]

        class Answer:
            ok = True

            def json(self) -> Any:
                return {"items": leases}

        return Answer()


class Shown:
    """A screen that records."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def show(self, found: RawObject) -> None:
        self.lines.append(f"{found['metadata']['name']} {found['status']['phase']}")

    def remove(self, name: str) -> None:
        self.lines.append(f"{name} removed")

    def warn(self, text: str) -> None:
        self.lines.append(f"warned: {text}")

    def clear_warning(self) -> None:
        self.lines.append("cleared")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rescheduler.cli.follow.time.sleep", lambda _: None)


def run(api: Api, *names: str, timeout: float | None = None) -> tuple[dict[str, Outcome], list[str]]:
    shown = Shown()
    outcomes = follow(api, [drain(name) for name in names], shown, timeout)  # type: ignore[arg-type]
    return outcomes, shown.lines


def test_several_drains_are_followed_by_one_watch_until_each_has_ended() -> None:
    api = Api(
        [[drain("a"), drain("b"), drain("other")], [drain("b", "Drained", "3")]],
        [[("MODIFIED", drain("other", "Drained")), ("MODIFIED", drain("a", "Drained", "2")), ("DELETED", drain("b"))]],
    )
    outcomes, lines = run(api, "a", "b")
    assert outcomes == {"a": Outcome.DRAINED, "b": Outcome.DRAINED}
    assert lines == ["a Draining", "b Draining", "a Drained", "b Drained"]
    assert [query["resourceVersion"] for query in api.queries] == ["7"]
    assert "fieldSelector" not in api.queries[0]


def test_one_drain_needs_no_right_to_list() -> None:
    api = Api([[drain("a")]], [[("MODIFIED", drain("a", "Drained", "2"))]])
    assert run(api, "a")[0] == {"a": Outcome.DRAINED}
    assert api.queries[0]["fieldSelector"] == "metadata.name=a"


@pytest.mark.parametrize("found", [[], [drain("a", uid="another")]])
def test_a_drain_that_is_gone_or_another_was_withdrawn(found: list[RawObject]) -> None:
    outcomes, lines = run(Api([[*found, drain("b", "Drained")]], []), "a", "b")
    assert outcomes == {"a": Outcome.WITHDRAWN, "b": Outcome.DRAINED}
    assert "a removed" in lines


def test_after_the_timeout_the_open_drains_are_named() -> None:
    assert run(Api([], []), "a", "b", timeout=0)[0] == {"a": Outcome.TIMED_OUT, "b": Outcome.TIMED_OUT}


def test_an_api_server_that_is_away_is_asked_again() -> None:
    both = [drain("a", "Drained"), drain("b", "Drained")]
    outcomes, lines = run(Api([ApiUnavailableError("away"), both], []), "a", "b")
    assert lines[0] == "warned: a, b: away; the drain continues, retrying the connection"
    assert set(outcomes.values()) == {Outcome.DRAINED}


def test_without_any_change_a_lease_that_is_not_renewed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 1000, 6))
    monkeypatch.setattr("rescheduler.cli.follow.time.monotonic", lambda: float(next(ticks)))
    both = [drain("a"), drain("b")]
    ended = [drain("a", "Drained"), drain("b", "Drained")]
    _, lines = run(Api([both, both, ended], [[], []]), "a", "b")
    assert lines[2] == "cleared"  # the first look
    assert lines[5].startswith("warned: a, b: no operator is running")
