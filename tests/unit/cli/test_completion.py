"""Completion: what kubectl and the shells ask, without a cluster. tests/e2e asks a real kubectl."""

import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from rescheduler.cli.completion import complete_for_kubectl, script
from rescheduler.cli.plugin import main

KUBECONFIG = """
clusters: [{name: far, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: prod-a, context: {cluster: far}}, {name: prod-b, context: {cluster: far}}, {name: dev, context: {}}]
current-context: prod-a
"""


@pytest.fixture(autouse=True)
def _kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))


def completed(*words: str) -> list[str]:
    *items, directive = complete_for_kubectl(main, words).splitlines()
    assert directive == ":4"
    return [item.partition("\t")[0] for item in items]


def test_commands_have_their_help_and_hidden_ones_are_left_out() -> None:
    lines = complete_for_kubectl(main, [""]).splitlines()
    assert "drain\tRequest drains, and follow them." in lines
    assert not [line for line in lines if line.startswith("_")]
    assert complete_for_kubectl(main, []) == "\n".join(lines)


def test_contexts_come_from_the_kubeconfig_and_formats_from_the_command() -> None:
    assert completed("drain", "--context", "prod") == ["prod-a", "prod-b"]
    assert completed("status", "-o", "j") == ["json"]
    assert complete_for_kubectl(main, ["status", "--kubeconfig", ""]).endswith(":0")  # the shell completes files


def test_a_cluster_that_does_not_answer_completes_nothing() -> None:
    assert completed("drain", "") == []
    assert completed("drain", "--context", "nothing", "") == []
    assert completed("cancel", "--kubeconfig", "/nowhere", "n") == []


def test_words_that_look_like_options_are_only_completed() -> None:
    done = CliRunner().invoke(main, ["__complete", "drain", "--no-wait", "n1", "--time"])
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, ":4")
    assert "--timeout" in done.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    text = script(main, shell)
    assert f"kubectl reschedule completion {shell}" in text.splitlines()[0]
    assert "_kubectl_reschedule_completion" in text


def test_the_script_of_bash_is_valid() -> None:
    subprocess.run(["bash", "-n"], input=script(main, "bash"), text=True, check=True)


def test_the_program_for_kubectl_only_completes() -> None:
    assert script(main, "kubectl") == '#!/bin/sh\nexec kubectl reschedule __complete "$@"'


def test_all_commands_but_the_hidden_one_are_visible() -> None:
    context = click.Context(main)
    assert [name for name in main.list_commands(context) if main.commands[name].hidden] == ["__complete"]
