"""Results of the drains of one application, and the table of all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Drained:
    """The drain of one node.

    Attributes:
        pods: pods that had to leave.
        blockers: `owner: class` of each blocker at the end; empty if the drain ended.
        unexplained: pods that are left without a blocker, or although the drain reported its end.
        waiting: owners of pods that only this node can have: they leave, and their new pods wait for the node.
    """

    node: str
    finished: bool
    seconds: float
    pods: int
    blockers: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


@dataclass
class Result:
    """Results of one application.

    Attributes:
        notes: what was left out or simulated, and pods that never ran.
        below: Deployments that had fewer Ready pods than their count at some moment, without a report.
        below_reported: the same, but the Event `NotReplacedFirst` or `waitsForNode` named the Deployment.
        past_budget: pods that were deleted although a budget required them.
        left: what is left behind after the last drain.
        trouble: why the application could not be run; the other values then mean nothing.
    """

    name: str
    objects: int = 0
    pods: int = 0
    deployments: int = 0
    notes: list[str] = field(default_factory=list)
    drains: list[Drained] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    below_reported: list[str] = field(default_factory=list)
    past_budget: int = 0
    left: list[str] = field(default_factory=list)
    trouble: str = ""

    @property
    def failures(self) -> list[str]:
        """Return what must not be."""
        found = [f"cannot be run: {self.trouble}"] if self.trouble else []
        found += [f"{d.node}: no blocker for {', '.join(d.unexplained)}" for d in self.drains if d.unexplained]
        found += [f"{each} fell below its count" for each in self.below]
        found += [f"{self.past_budget} pods were deleted past a budget"] if self.past_budget else []
        return [*found, *(f"left behind: {each}" for each in self.left)]


def below(start: Mapping[str, int], least: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, str]:
    """Return the Deployments that had all their pods Ready at the start, and fewer later, with both numbers."""
    complete = {owner: count for owner, count in counts.items() if start.get(owner, 0) >= count > 0}
    return {
        owner: f"{owner} ({least.get(owner, 0)} of {count})"
        for owner, count in sorted(complete.items())
        if least.get(owner, 0) < count
    }


def table(results: Iterable[Result]) -> str:
    """Return the results as a table of Markdown."""
    titles = (
        "application",
        "objects",
        "pods",
        "drains that ended",
        "blockers of the others",
        "wait for their node",
        "Deployments below their count",
        "pods past a budget",
        "left behind",
    )
    return "\n".join((f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}", *map(_row, results)))


def _row(result: Result) -> str:
    if result.trouble:
        return f"| {result.name} | cannot be run: {_cell([result.trouble])} | | | | | | | |"
    finished = sum(drain.finished for drain in result.drains)
    blockers = sorted({each for drain in result.drains for each in drain.blockers})
    slowest = max((drain.seconds for drain in result.drains), default=0.0)
    cells = (
        result.name,
        str(result.objects),
        str(result.pods),
        f"{finished} of {len(result.drains)}, slowest {slowest:.0f} s",
        _cell(blockers),
        _cell(sorted({each for drain in result.drains for each in drain.waiting})),
        _cell([*result.below, *(f"{each}, reported" for each in result.below_reported)])
        if result.below or result.below_reported
        else f"0 of {result.deployments}",
        str(result.past_budget),
        _cell(result.left),
    )
    return f"| {' | '.join(cells)} |"


def _cell(found: Sequence[str]) -> str:
    return "; ".join(each.replace("|", "/").replace("\n", " ") for each in found) or "none"
