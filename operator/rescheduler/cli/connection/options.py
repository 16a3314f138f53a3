"""The flags of kubectl that choose a cluster and a user. Each command has them, and so has the group of commands."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import click

from rescheduler.cli.connection import messages
from rescheduler.cli.errors import PluginError

_META_KEY = "rescheduler.connection"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class Duration(click.ParamType[float]):
    """A time such as 30s, 1m30s, or a number of seconds. The value is in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the time in seconds."""
        text = str(value)
        if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+|\d+(\.\d+)?", text):
            self.fail(messages.duration_invalid(text), param, ctx)
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h|)", text))


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keep the value for `connect`, unless the command line does not have the flag."""
    if value not in (None, ()):
        context.meta.setdefault(_META_KEY, {})[option.name] = value


def _option(*names: str, **settings: Any) -> Callable[[], click.Option]:
    return lambda: click.Option(names, expose_value=False, callback=_remember, **settings)


def _entries(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return the completion with the names of the entries in the kubeconfig. `kind`: such as `contexts`."""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
        # Imported late: the help needs no parser of YAML.
        from rescheduler.cli.connection.kubeconfig import kubeconfig_paths, read_kubeconfig  # noqa: PLC0415

        try:
            merged = read_kubeconfig(kubeconfig_paths(flags_of_command_line().get("kubeconfig", "")))
        except PluginError:
            return []
        return [name for name in getattr(merged, kind) if name.startswith(incomplete)]

    return complete


_OPTIONS = (
    _option("--kubeconfig", metavar="FILE", type=click.Path(), help="Path of the kubeconfig."),
    _option("--context", metavar="NAME", shell_complete=_entries("contexts"), help="Context of the kubeconfig."),
    _option("--cluster", metavar="NAME", shell_complete=_entries("clusters"), help="Cluster of the kubeconfig."),
    _option("--user", metavar="NAME", shell_complete=_entries("users"), help="User of the kubeconfig."),
    _option("--as", "impersonated_user", metavar="USER", help="User to impersonate."),
    _option(
        "--as-group", "impersonated_groups", metavar="GROUP", multiple=True, help="Group to impersonate, repeatable."
    ),
    _option("--as-uid", "impersonated_uid", metavar="UID", help="UID to impersonate."),
    _option("--request-timeout", type=Duration(), help="Time limit of one request. 0: none. Default: 30s."),
)


class ClusterCommand(click.Command):
    """A command that talks to a cluster: it has the flags of the connection, in a section of their own."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._connection = _add_options(self.params)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of the command, then those of the connection."""
        _write_options(self, ctx, formatter, self._connection)


class ClusterGroup(click.Group):
    """A group whose commands talk to a cluster. The flags of the connection may also stand before the command."""

    command_class = ClusterCommand

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._connection = _add_options(self.params)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of the group, those of the connection, and the commands."""
        _write_options(self, ctx, formatter, self._connection)
        self.format_commands(ctx, formatter)


def flags_of_command_line() -> dict[str, Any]:
    """Return the flags of the running command, by the names of the fields of `ConnectionFlags`."""
    context = click.get_current_context(silent=True)
    found: dict[str, Any] = context.meta.get(_META_KEY, {}) if context else {}
    return found


def _add_options(params: list[click.Parameter]) -> Sequence[click.Parameter]:
    options = [create() for create in _OPTIONS]
    params.extend(options)
    return options


def _write_options(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, connection: Sequence[click.Parameter]
) -> None:
    own: list[tuple[str, str]] = []
    shared: list[tuple[str, str]] = []
    for param in command.get_params(ctx):
        if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
            (shared if param in connection else own).append(record)
    with formatter.section("Options"):
        formatter.write_dl(own)
    with formatter.section("Connection, as in kubectl"):
        formatter.write_dl(shared)
