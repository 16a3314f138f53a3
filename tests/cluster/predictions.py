"""What the plan says to a puzzle, and how that compares with what the scheduler did."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from cluster.puzzles import SPACES, Object, Puzzle
from cluster.tables import Table
from rescheduler.core import facts
from rescheduler.core.asks import Asks
from rescheduler.core.boards import Ground
from rescheduler.core.censuses import Census
from rescheduler.core.fits import Fit, Forecast, plan
from rescheduler.core.reaches import Storage, reach

_ORDER = list(Fit)


def forecasts(puzzle: Puzzle) -> list[Forecast]:
    """For each of the pods that leave."""
    census = Census(Asks(), {puzzle.drained})
    for pod in (*puzzle.leaving, *puzzle.staying):
        census.add({**pod, "metadata": {**pod["metadata"], "uid": pod["metadata"]["name"]}})
    claims = {
        (body["metadata"]["namespace"], body["metadata"]["name"]): body["spec"]["volumeName"]
        for body in puzzle.volumes
        if body["kind"] == "PersistentVolumeClaim"
    }
    found = [reach(body) for body in puzzle.volumes if body["kind"] == "PersistentVolume"]
    nodes = {node.name: node for node in map(facts.node, puzzle.nodes)}
    storage = Storage(claims, {each.volume: each for each in found})
    ground = Ground(nodes, census, closed={puzzle.drained}, spaces=SPACES, storage=storage)
    leaving = census.residents[puzzle.drained][: len(puzzle.leaving)]
    return plan(leaving, ground, Random(0))


@dataclass
class Score:
    """What the plan said and the scheduler did, over several puzzles.

    Attributes:
        said: pods by forecast.
        broken: pods that fit and had no place, with the scheduler's words: there may be none.
        doubted: pods that do not fit and had one.
        settled: pods of which the plan did not know, and that had one.
    """

    said: Counter[Fit] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    doubted: list[str] = field(default_factory=list)
    settled: int = 0

    def play(self, puzzle: Puzzle, table: Table) -> None:
        """Put a puzzle to both: those that fit ask for a place first, in any order."""
        said = {pod["metadata"]["name"]: each for pod, each in zip(puzzle.leaving, forecasts(puzzle), strict=True)}
        table.lay(puzzle)
        refused = table.play(sorted(self._shuffled(puzzle), key=lambda pod: _ORDER.index(said[_name(pod)].fit)))
        table.clear()
        for name, forecast in said.items():
            self.said[forecast.fit] += 1
            if forecast.fit is Fit.FITS and refused[name]:
                self.broken.append(f"{name}: {refused[name]}")
            elif forecast.fit is Fit.DOES_NOT_FIT and not refused[name]:
                self.doubted.append(name)
            elif forecast.fit is Fit.UNKNOWN and not refused[name]:
                self.settled += 1

    def _shuffled(self, puzzle: Puzzle) -> list[Object]:
        return Random(f"order {puzzle.number}").sample(puzzle.leaving, len(puzzle.leaving))


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])
