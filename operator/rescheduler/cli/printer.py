"""Print what a command shows: as a table, as JSON or YAML, or as names. Every command that shows objects uses this."""

import json
import shutil
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from rescheduler.cli.output import PHASE_STYLES, console, format_table, is_terminal, printable

_Function = TypeVar("_Function", bound=Callable[..., Any])
_GAP = 3  # spaces between two columns
_KEPT_COLUMNS = 2  # of a table on a narrow terminal


def output_option(*formats: str) -> Callable[[_Function], _Function]:
    """Return the option `--output` with these formats. The first one is the default."""
    return click.option(
        "-o", "--output", type=click.Choice(formats), default=formats[0], show_default=True, help="Output format."
    )


def print_data(data: Any, names: Sequence[str], output: str) -> bool:
    """Print data as JSON or YAML, or the names. Return whether `output` is one of these formats."""
    if output == "json":
        click.echo(json.dumps(data, indent=2))
    elif output == "yaml":
        import yaml  # noqa: PLC0415 - few need it

        click.echo(yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False), nl=False)
    elif output == "name":
        for name in names:
            click.echo(printable(name))
    else:
        return False
    return True


def print_text(text: str) -> None:
    """Print a sentence. On a terminal it breaks between words."""
    if is_terminal():
        console().print(printable(text))
    else:
        click.echo(printable(text))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells. On a terminal, phases have colors, and columns that do not fit are left out."""
    if not is_terminal():
        click.echo("\n".join(format_table(rows)))
        return
    from rich.text import Text  # noqa: PLC0415 - only a terminal needs it

    for number, line in enumerate(format_table(fit_columns(rows, shutil.get_terminal_size().columns))):
        text = Text(line, style="bold" if number == 0 else "")
        for phase, style in PHASE_STYLES.items():
            text.highlight_regex(rf"\b{phase}\b", style)
        console().print(text, soft_wrap=True)


def fit_columns(rows: Sequence[Sequence[str]], width: int) -> list[Sequence[str]]:
    """Return the first columns that fit into a width, and at least two."""
    widths = [max(len(printable(cell)) for cell in column) + _GAP for column in zip(*rows, strict=True)]
    kept = len(widths)
    while kept > _KEPT_COLUMNS and sum(widths[:kept]) - _GAP > width:
        kept -= 1
    return [row[:kept] for row in rows]
