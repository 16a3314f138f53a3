"""The command line: its documentation, and what it imports before a command runs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from rescheduler.cli.plugin import main

ROOT = Path(__file__).parents[3]
REFERENCE = (ROOT / "docs" / "reference" / "cli.md").read_text()
CONNECTION = {option for param in main.params if param.name != "version" for option in param.opts}
COMMANDS = {name: command for name, command in main.commands.items() if not command.hidden}
SLOW = ("kubernetes", "kopf", "aiohttp", "requests", "pydantic", "rich", "structlog")


def section(title: str) -> str:
    found = re.search(
        rf"^## kubectl reschedule{re.escape(title)}$(.*?)(?=^## |\Z)", REFERENCE, re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/reference/cli.md has no section on kubectl reschedule{title}"
    return found.group(1)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_its_options_are_documented(name: str) -> None:
    text = section(f" {name}")
    own = {option for param in COMMANDS[name].params if isinstance(param, click.Option) for option in param.opts}
    assert [option for option in own - CONNECTION if f"`{option}`" not in text] == []


def test_the_options_of_the_connection_are_documented() -> None:
    text = section(": the connection")
    assert [option for option in CONNECTION - {"--help", "-h", "--version"} if f"`{option}`" not in text] == []


def imported(code: str) -> set[str]:
    """Return the packages that a new process imports."""
    code += "; import sys; print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": "operator"},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_the_help_imports_click_only() -> None:
    """Each import would take a part of the 150 ms to the help."""
    assert imported("import rescheduler.cli.plugin") & {*SLOW, "urllib3", "yaml", "ssl"} == set()


@pytest.mark.parametrize("command", ["drain", "status", "cancel", "pools", "approve", "version"])
def test_commands_start_without_slow_imports(command: str) -> None:
    """Each import would take a part of the 400 ms to the first output."""
    assert imported(f"import rescheduler.cli.{command}") & {*SLOW} == set()


def test_the_operator_starts_without_the_libraries_of_the_plugin() -> None:
    """The image lacks them. structlog would import rich if it were there."""
    absent = "import sys; sys.modules |= dict.fromkeys(('rich', 'pygments', 'markdown_it', 'socks'))"
    assert "kopf" in imported(f"{absent}; import rescheduler.cli.operator, rescheduler.app")


def test_the_krew_manifest_is_as_krew_wants_it() -> None:
    manifest = yaml.safe_load((ROOT / "manifests" / "krew" / "reschedule.yaml").read_text())
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    spec, name = manifest["spec"], manifest["metadata"]["name"]
    assert (manifest["apiVersion"], manifest["kind"]) == ("krew.googlecontainertools.github.com/v1alpha2", "Plugin")
    assert spec["version"] == f"v{version.group(1)}"
    assert len(spec["shortDescription"]) <= 50
    assert "kubectl" not in spec["shortDescription"]
    for entry in spec["platforms"]:
        labels = entry["selector"]["matchLabels"]
        archive = f"kubectl-{name}-{labels['os']}-{labels['arch']}.tar.gz"
        assert entry["uri"].endswith(f"/v{version.group(1)}/{archive}")
        assert re.fullmatch(r"[0-9a-f]{64}", entry["sha256"])
        assert entry["bin"] == f"kubectl-{name}"


def test_a_checksum_goes_to_the_platform_of_its_archive() -> None:
    path = ROOT / "manifests" / "plugin.py"
    spec = importlib.util.spec_from_file_location("build_plugin", path)
    assert spec
    assert spec.loader
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    text = build.with_checksum(
        (ROOT / "manifests" / "krew" / "reschedule.yaml").read_text(), "kubectl-reschedule-linux-arm64.tar.gz", "f" * 64
    )
    found = {
        entry["selector"]["matchLabels"]["arch"]: entry["sha256"]
        for entry in yaml.safe_load(text)["spec"]["platforms"][:2]
    }
    assert found == {"amd64": build.NO_CHECKSUM, "arm64": "f" * 64}
    assert text.count("f" * 64) == 1
    platforms = [entry["selector"]["matchLabels"] for entry in yaml.safe_load(text)["spec"]["platforms"]]
    assert {f"{labels['os']}-{labels['arch']}" for labels in platforms} == set(build.PLATFORMS)


def test_the_shortcuts_of_k9s_run_commands_that_exist() -> None:
    plugins = yaml.safe_load((ROOT / "manifests" / "k9s" / "plugins.yaml").read_text())["plugins"]
    assert len({plugin["shortCut"] for plugin in plugins.values()}) == len(plugins)
    for plugin in plugins.values():
        command = re.match(r"kubectl reschedule (\w+) --context \"\$1\"", plugin["args"][1])
        assert command
        assert command.group(1) in COMMANDS
