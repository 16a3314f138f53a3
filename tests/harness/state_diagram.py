"""Write the state machine of a drain into the docs: `python -m harness.state_diagram [--check]`.

`make manifests` writes the diagram and the tables between two markers. `make lint` checks that they are current.
"""

import io
import sys
import tokenize
from collections.abc import Collection
from enum import StrEnum
from pathlib import Path

from rescheduler.api.drains import Phase
from rescheduler.core.drain import state_machine
from rescheduler.core.drain.state_machine import TRANSITIONS, Command, Fact, Step

PAGE = Path(__file__).parents[2] / "docs/explanation/state-machine.md"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def _comments(source: str) -> dict[str, str]:
    """Return the comment behind each value of the enums in a source, by `NAME = "Value"`."""
    comments: dict[str, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and " = " in token.line:
            # The first enum wins: `Report` repeats some names of `Fact`.
            comments.setdefault(token.line.split("#")[0].strip(), token.string.removeprefix("# "))
    return comments


def _meaning(value: StrEnum, comments: dict[str, str]) -> str:
    return comments[f'{value.name} = "{value.value}"']


def _edges() -> dict[tuple[Phase, Phase], list[Fact]]:
    """Return the facts that lead from one phase to another one."""
    edges: dict[tuple[Phase, Phase], list[Fact]] = {}
    for phase, rows in TRANSITIONS.items():
        for fact, step in rows.items():
            if step.phase is not phase:
                edges.setdefault((phase, step.phase), []).append(fact)
    return edges


def diagram() -> str:
    """Return the diagram in Mermaid; facts that keep the phase have no arrow."""
    edges = _edges()
    requested = [phase for phase in Phase if phase is not Phase.RESTORING]
    ending = {fact for facts in (edges.pop((phase, Phase.RESTORING)) for phase in requested) for fact in facts}
    lines = ["stateDiagram-v2", "    [*] --> Requested", "    state Requested {", f"        [*] --> {Phase.WAITING}"]
    for (start, end), facts in edges.items():
        lines.append(f"        {start} --> {end}: {_label(facts)}")
    lines += ["    }", f"    Requested --> {Phase.RESTORING}: {_label(ending)}"]
    gone = [fact for fact, step in TRANSITIONS[Phase.RESTORING].items() if Command.REMOVE_FINALIZER in step.commands]
    lines.append(f"    {Phase.RESTORING} --> [*]: {_label(gone)}")
    return "\n".join(("```mermaid", *lines, "```"))


def _label(facts: Collection[Fact]) -> str:
    return "<br/>".join(fact for fact in Fact if fact in facts)


def _row(fact: Fact) -> Step:
    return next(TRANSITIONS[phase][fact] for phase in Phase if fact in TRANSITIONS[phase])


def _next_phase(fact: Fact) -> str:
    """Return the next phase, with the phases in which the fact has another one."""
    usual = _row(fact).phase
    other = [
        f"{rows[fact].phase} from {phase}"
        for phase, rows in TRANSITIONS.items()
        if fact in rows and rows[fact].phase is not usual
    ]
    return "; ".join((usual, *other))


def tables() -> str:
    """Return the tables of the facts and of the commands."""
    path = state_machine.__file__
    comments = _comments(Path(path).read_text(encoding="utf-8"))
    lines = ["| fact | holds if | next phase | commands |", "|---|---|---|---|"]
    for fact in Fact:
        commands = ", ".join(f"`{command}`" for command in _row(fact).commands) or "none"
        lines.append(f"| `{fact}` | {_meaning(fact, comments)} | {_next_phase(fact)} | {commands} |")
    lines += ["", "| command | act |", "|---|---|"]
    lines += [f"| `{command}` | {_meaning(command, comments)} |" for command in Command]
    return "\n".join(lines)


def render(page: str) -> str:
    """Return the page with a current diagram and current tables."""
    before, _, tail = page.partition(BEGIN)
    after = tail.partition(END)[2]
    return f"{before}{BEGIN}\n\n{diagram()}\n\n{tables()}\n\n{END}{after}"


def main() -> None:
    """Write the page, or check it."""
    page = PAGE.read_text(encoding="utf-8")
    current = render(page)
    if "--check" not in sys.argv:
        PAGE.write_text(current, encoding="utf-8")
    elif page != current:
        sys.exit(f"{PAGE.name} is not current: run `make manifests`")


if __name__ == "__main__":
    main()
