"""The comparison of the ways: Rescheduler must be at least as good as `kubectl drain` in each column."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from catalogue.entries import Column, Entry, Way

REPLACEMENT_TIMEOUT = 15
"""Seconds; the default is 5 minutes."""
SLACK = 3 * REPLACEMENT_TIMEOUT
"""Seconds that a drain may take longer than `kubectl drain`."""


@dataclass(frozen=True)
class Result:
    """Result of one way.

    Attributes:
        finished: whether the tool reported the end, and no pod that must leave is on the drained nodes.
        least: by owner, the lowest number of Ready pods.
        start: by owner, Ready pods at the start.
        moved: owners all of whose pods left the drained nodes.
        left: owners of pods that are still on the drained nodes.
        classes: by owner, classes of blockers that were reported at any time.
        unexplained: owners of remaining pods without a blocker.
        reported: messages at the end.
        trouble: why the way could not be run; the other values then mean nothing.
    """

    finished: bool = False
    seconds: float = 0.0
    least: Mapping[str, int] = field(default_factory=dict)
    start: Mapping[str, int] = field(default_factory=dict)
    past_budget: int = 0
    twice: int = 0
    moved: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unexplained: tuple[str, ...] = ()
    reported: tuple[str, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class Finding:
    """A column in which a way is worse than it must be."""

    way: Way
    column: Column
    text: str

    def __str__(self) -> str:
        return f"{self.way.heading}: {self.text}"


class Verdict:
    """The verdict about the results of an entry.

    Attributes:
        failures: findings that nobody intended.
        intended: findings that the entry names.
    """

    def __init__(self, entry: Entry, results: Mapping[Way, Result]) -> None:
        found = compare(entry, results)
        self.intended = [f for f in found if f.column in entry.intended]
        self.failures = [f for f in found if f.column not in entry.intended]
        self._known = entry.known

    @property
    def surprising(self) -> bool:
        """Whether the entry fails and is not known to, or the reverse."""
        return bool(self.failures) != bool(self._known)

    @property
    def word(self) -> str:
        """Return the word of the table."""
        if self.failures:
            return "**fails**"
        return "holds, see the exception" if self.intended else "holds"


def compare(entry: Entry, results: Mapping[Way, Result]) -> list[Finding]:
    """Return each column in which Rescheduler is worse than `kubectl drain`, or misses the outcome of the entry.

    Another tool is measured, and not judged.
    """
    results = {way: result for way, result in results.items() if way is not Way.PEER}
    troubles = [Finding(way, Column.OUTCOME, result.trouble) for way, result in results.items() if result.trouble]
    if troubles:
        return troubles
    theirs = results[Way.KUBECTL]
    found: list[Finding] = []
    for way, ours in results.items():
        if way is not Way.KUBECTL:
            found += [Finding(way, column, text) for column, text in _worse(theirs, ours)]
    return found + [Finding(Way.DEFAULT, Column.OUTCOME, text) for text in _missed(entry, results[Way.DEFAULT])]


def _worse(theirs: Result, ours: Result) -> list[tuple[Column, str]]:
    found: list[tuple[Column, str]] = []
    if theirs.finished and not ours.finished:
        found.append((Column.FINISHED, f"not finished, {', '.join(ours.left) or 'no pod'} left"))
    if theirs.finished and ours.finished and ours.seconds > theirs.seconds + SLACK:
        found.append((Column.SECONDS, f"{ours.seconds:.0f} s, and `kubectl drain` {theirs.seconds:.0f} s"))
    for owner in theirs.moved:
        least, other = ours.least.get(owner, 0), theirs.least.get(owner, 0)
        if least < other:
            found.append((Column.READY, f"{owner} has {least} Ready, and with `kubectl drain` {other}"))
    if ours.past_budget > theirs.past_budget:
        found.append((Column.PAST_BUDGET, f"pods deleted past a budget: {ours.past_budget}"))
    if ours.twice > theirs.twice:
        found.append((Column.TWICE, f"pods that ran twice: {ours.twice}"))
    if ours.unexplained and not ours.finished:
        found.append((Column.REPORTED, f"no blocker for {', '.join(ours.unexplained)}"))
    return found


def _missed(entry: Entry, ours: Result) -> list[str]:
    """Return what differs from the outcome that must hold."""
    wanted, found = entry.outcome, list[str]()
    if ours.finished != wanted.finished:
        found.append(f"{'finished' if ours.finished else 'not finished'}, unlike the entry's outcome")
    for owner, least in wanted.least.items():
        if (had := ours.least.get(owner, 0)) < least:
            found.append(f"{owner} has {had} Ready, and the entry requires {least}")
    for owner, class_ in wanted.reports.items():
        if class_ not in (had_classes := ours.classes.get(owner, ())):
            found.append(f"{owner} has {', '.join(had_classes) or 'no blocker'}, and the entry requires {class_}")
    return found
