"""Completion in shells: names of nodes and drains, scripts for shells, and the program that kubectl asks.

A completion prints nothing but its items. What cannot be read within a second is not completed.
"""

from collections.abc import Callable, Iterable, Sequence

import click
from click.shell_completion import ShellComplete, get_completion_class

from rescheduler.api import API_VERSION
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ClusterApi, PluginError, parse_json
from rescheduler.cli.connection.cluster import open_connection
from rescheduler.cli.connection.kubeconfig import ConnectionFlags
from rescheduler.cli.connection.options import flags_of_command_line

PROGRAM = "kubectl-reschedule"
VARIABLE = "_KUBECTL_RESCHEDULE_COMPLETE"
"""Environment variable by which the scripts of click ask the program for completions."""
_TIMEOUT = 1.0  # seconds
_ONLY_NAMES = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_NO_FILES = 4  # ShellCompDirectiveNoFileComp of cobra: the shell completes no file names

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def names_of(group: str, resource: str) -> Complete:
    """Return the completion with the names of all objects of a resource, without those that the command line has."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        given = context.params.get(parameter.name or "") or ()
        with context.scope(cleanup=False):
            names = _read_names(group, resource)
        return [name for name in names if name.startswith(incomplete) and name not in given]

    return complete


complete_nodes = names_of("v1", "nodes")
complete_drains = names_of(API_VERSION, "nodedrains")


def script(main: click.Command, shell: str) -> str:
    """Return the script that switches completion on in a shell, or the program that kubectl asks."""
    if shell == "kubectl":
        return '#!/bin/sh\nexec kubectl reschedule __complete "$@"'
    kind = get_completion_class(shell)
    assert kind is not None, shell
    return f"{messages.completion_usage(shell)}\n{kind(main, {}, PROGRAM, VARIABLE).source()}"


def complete_for_kubectl(main: click.Command, words: Sequence[str]) -> str:
    """Return what kubectl expects of `kubectl_complete-reschedule`: an item a line, with its help, then a directive."""
    *before, incomplete = words or [""]
    items = ShellComplete(main, {}, PROGRAM, VARIABLE).get_completions(list(before), incomplete)
    lines = [f"{item.value}\t{item.help}" if item.help else str(item.value) for item in items if item.type == "plain"]
    files = any(item.type in ("file", "dir") for item in items)
    return "\n".join([*lines, f":{0 if files else _NO_FILES}"])


def _read_names(group: str, resource: str) -> Iterable[str]:
    flags = ConnectionFlags(**{**flags_of_command_line(), "request_timeout": _TIMEOUT})
    try:
        server = ClusterApi(open_connection(flags))
        answer = server.send("get", group, resource, headers={"Accept": _ONLY_NAMES})
        return [item["metadata"]["name"] for item in parse_json(answer)["items"]] if answer.ok else []
    except (PluginError, KeyError, TypeError):
        return []
