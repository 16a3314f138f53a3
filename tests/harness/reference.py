"""Write the generated tables of the reference into the docs: `python -m harness.reference [--check]`.

`make manifests` writes the tables between two markers. `make lint` checks that they are current.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel

from harness.version_matrix import versions_table
from rescheduler.api.history import BlockedPod, DrainRecord, Move, MoveRecord, Requester
from rescheduler.controllers.runtime.metrics import Metrics
from rescheduler.controllers.store import state_metrics

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- generated {}: begin -->", "<!-- generated {}: end -->"


def fields_table(model: type[BaseModel], without: type[BaseModel] | None = None) -> str:
    """Return the fields of a model as a table; `without`: a model whose fields are described elsewhere."""
    known = without.model_fields if without else {}
    rows = (
        f"| `{field.alias or name}` | {field.description} |"
        for name, field in model.model_fields.items()
        if name not in known
    )
    return table(("field", "meaning"), rows)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as `/metrics` has it; `series`: the names of its series."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> tuple[str, ...]:
        """Return the names of its series."""
        return (
            tuple(f"{self.name}_{end}" for end in ("bucket", "sum", "count"))
            if self.type == "histogram"
            else (self.name,)
        )


def metrics() -> list[Metric]:
    """Return the metrics of the operator, sorted by name; those of the process and of Python are not among them."""
    own = [value for value in vars(Metrics()).values() if isinstance(value, MetricWrapperBase)]
    found = [Metric(_series_name(m), str(m._type), tuple(m._labelnames), m._documentation) for m in own]
    found += [
        Metric(family.name, family.type, tuple(family._labelnames), family.documentation)
        for family in state_metrics.families().values()
    ]
    return sorted(found, key=lambda metric: metric.name)


def _series_name(metric: MetricWrapperBase) -> str:
    return f"{metric._name}_total" if metric._type == "counter" else metric._name


def metrics_table(prefixes: tuple[str, ...]) -> str:
    """Return a table of the metrics whose names begin with one of the prefixes."""
    rows = (
        f"| `{m.name}` | {m.type} | {', '.join(f'`{label}`' for label in m.labels)} | {m.meaning} |"
        for m in metrics()
        if m.name.startswith(prefixes)
    )
    return table(("metric", "type", "labels", "meaning"), rows)


def table(titles: Iterable[str], rows: Iterable[str]) -> str:
    """Return a table of Markdown."""
    titles = tuple(titles)
    return "\n".join((f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *rows))


SECTIONS: dict[Path, dict[str, Callable[[], str]]] = {
    DOCS / "reference/audit.md": {
        "drain": lambda: fields_table(DrainRecord),
        "requester": lambda: fields_table(Requester),
        "move": lambda: fields_table(Move),
        "move log": lambda: fields_table(MoveRecord, without=Move),
        "blocked": lambda: fields_table(BlockedPod),
    },
    DOCS / "reference/metrics.md": {
        "own": lambda: metrics_table(("rescheduler_",)),
        "stock": lambda: metrics_table(("controller_runtime_", "workqueue_", "rest_client_", "leader_election_")),
    },
    DOCS / "reference/support-matrix.md": {"kubernetes": versions_table},
}
"""The sections of each page, by the name in their markers."""


def current(page: Path) -> str:
    """Return the text of a page with its generated sections as they should be."""
    text = page.read_text()
    for name, generate in SECTIONS[page].items():
        begin, end = BEGIN.format(name), END.format(name)
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{page}: the markers of {name!r} are missing")
        text = f"{before}{begin}\n{generate()}\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    """Write the pages, or check them. Return the exit code."""
    outdated = [page for page in SECTIONS if page.read_text() != current(page)]
    if "--check" in arguments:
        for page in outdated:
            sys.stderr.write(f"{page} is not current: run `make manifests`\n")
        return int(bool(outdated))
    for page in outdated:
        page.write_text(current(page))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
