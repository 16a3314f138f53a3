"""`kubectl reschedule check`: print the findings, as text or as JSON."""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

import click

from rescheduler.cli.check import messages
from rescheduler.cli.check.cluster_facts import ClusterFacts, read_cluster_facts
from rescheduler.cli.check.findings import LEVELS, Finding, Level, has_problem
from rescheduler.cli.cluster_api import ClusterApi, connect
from rescheduler.cli.output import printable
from rescheduler.cli.printer import print_data

_MAX_OBJECTS = 5
"""The text output names this many objects of a finding. The JSON has all."""
_MIN_WIDTH, _MAX_WIDTH = 60, 110
_COMMAND = re.compile(r"(?:(?<=: )|(?<=> )|(?<=\()|(?<=`))kubectl(?: [^\s;)`]+)+")
"""A command in a sentence: it follows a colon, the arrow, a parenthesis or a backtick."""
_UNBROKEN_SPACE = "\N{NO-BREAK SPACE}"


def show(output: str) -> None:
    """Print the findings of the cluster. Exit with 1 if one hinders a drain."""
    facts = read_cluster_facts(ClusterApi(connect()))
    findings = facts.findings()
    if not print_data(as_json(facts, findings), [], output):
        width = min(max(shutil.get_terminal_size((_MAX_WIDTH, 24)).columns, _MIN_WIDTH), _MAX_WIDTH)
        click.echo("\n".join(as_text(facts, findings, width)))
    sys.exit(1 if has_problem(findings) else 0)


def as_json(facts: ClusterFacts, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the result of a check for programs."""
    installation = facts.installation
    return {
        "versions": {
            "plugin": installation.plugin_version,
            "kubernetes": installation.server_version,
            "operator": installation.operator_version or None,
        },
        "nodes": len(facts.pods.nodes),
        "pods": len(facts.pods.pods),
        "findings": [finding.as_json() for finding in findings],
    }


def as_text(facts: ClusterFacts, findings: Sequence[Finding], width: int) -> list[str]:
    """Return the result of a check as lines, the most important first. Only long objects are wider than `width`."""
    installation, pods = facts.installation, facts.pods
    lines = [
        messages.headline(
            installation.server_version,
            len(pods.nodes),
            len(pods.pods),
            installation.operator_version,
            installed=installation.is_installed,
        )
    ]
    for level in LEVELS:
        found = [finding for finding in findings if finding.level is level]
        if found:
            lines += ["", f"{messages.LEVEL_TITLES[level]} ({len(found)})"]
        for finding in found:
            lines += _finding_lines(finding, width)
    counts = [sum(finding.level is level for finding in findings) for level in (Level.PROBLEM, Level.WARNING)]
    return [printable(line) for line in [*lines, "", messages.total(*counts)]]


def _finding_lines(finding: Finding, width: int) -> list[str]:
    lines = _wrap(finding.state, "  ", "    ", width)
    lines += [f"      {name}" for name in finding.objects[:_MAX_OBJECTS]]
    if (hidden := len(finding.objects) - _MAX_OBJECTS) > 0:
        lines.append(f"      {messages.more_objects(hidden)}")
    lines += _wrap(finding.meaning, "    ", "    ", width) if finding.meaning else []
    lines += _wrap(f"-> {finding.next_step}", "    ", "       ", width) if finding.next_step else []
    return lines


def _wrap(text: str, first: str, rest: str, width: int) -> list[str]:
    """Return a text as lines. A command is never broken, so that it can be copied."""
    joined = _COMMAND.sub(lambda found: found[0].replace(" ", _UNBROKEN_SPACE), " ".join(text.split()))
    lines = textwrap.wrap(
        joined, width, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(_UNBROKEN_SPACE, " ") for line in lines]
