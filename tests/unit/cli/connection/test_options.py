"""The flags of kubectl stand before or after the command."""

import click
import pytest
from click.testing import CliRunner

from rescheduler.cli.connection.options import ClusterGroup, flags_of_command_line


@click.group(cls=ClusterGroup)
def group() -> None:
    """Group."""


@group.command()
def show() -> None:
    """Show."""
    click.echo(sorted(flags_of_command_line().items()))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show"], []),
        (["--context", "a", "show"], [("context", "a")]),
        (["--context", "a", "show", "--context", "b", "--as", "c"], [("context", "b"), ("impersonated_user", "c")]),
        (["show", "--as-group", "a", "--as-group", "b"], [("impersonated_groups", ("a", "b"))]),
        (["show", "--request-timeout", "1m30s"], [("request_timeout", 90.0)]),
        (["show", "--request-timeout", "1.5"], [("request_timeout", 1.5)]),
        (["show", "--request-timeout", "250ms"], [("request_timeout", 0.25)]),
        (["show", "--request-timeout", "0"], [("request_timeout", 0.0)]),
    ],
)
def test_the_flag_of_the_command_wins(arguments: list[str], expected: list[tuple[str, object]]) -> None:
    done = CliRunner().invoke(group, arguments)
    assert (done.exit_code, done.output) == (0, f"{expected}\n")


@pytest.mark.parametrize("text", ["5x", "-1", "s", "1m30"])
def test_an_unusable_time_is_an_error_of_usage(text: str) -> None:
    done = CliRunner().invoke(group, ["show", "--request-timeout", text])
    assert done.exit_code == 2
    assert f"{text} is not a time" in done.output
