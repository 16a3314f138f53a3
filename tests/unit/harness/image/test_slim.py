"""The image has every module that the commands of the operator need, and little else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from harness.image import packages, slim

SOURCES = Path(__file__).parents[4] / "operator"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the packages of the image."""
    return packages.make(tmp_path_factory.mktemp("image") / "packages")


def run(image: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with the packages of the image only."""
    environment = {"PYTHONPATH": str(image), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)


def imports(module: str) -> set[str]:
    """Return the modules of Rescheduler that a module imports anywhere, also inside of functions."""
    path = SOURCES / f"{module.replace('.', '/')}.py"
    tree = ast.parse((path if path.exists() else path.with_suffix("") / "__init__.py").read_text())
    named: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parents = {module.rsplit(".", 1)[0]} if "." in module else set()
    return {name for name in named | parents if name.startswith("rescheduler") and is_module(name)}


def is_module(name: str) -> bool:
    path = SOURCES / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def test_the_image_has_exactly_the_modules_that_its_commands_may_import(image: Path) -> None:
    reached, unseen = set(), {"rescheduler.__main__", *slim.ENTRY_POINTS}
    while unseen:
        reached |= unseen
        unseen = {found for module in unseen for found in imports(module)} - reached
    kept = {
        ".".join(path.relative_to(image).with_suffix("").parts).removesuffix(".__init__")
        for path in (image / "rescheduler").rglob("*.py")
    }
    assert kept == reached


def test_every_other_package_that_these_modules_may_import_is_there(image: Path) -> None:
    named = {
        node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
        for path in (image / "rescheduler").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    code = f"import importlib.util; print([name for name in {sorted(named)} if not importlib.util.find_spec(name)])"
    done = run(image, "-c", code)
    assert done.stdout == "[]\n", done.stderr


def test_each_command_starts_with_the_packages_of_the_image(image: Path) -> None:
    version = run(image, "-m", "rescheduler", "--version")
    assert (version.stdout.split()[:2], version.returncode) == (["rescheduler,", "version"], 0), version.stderr
    for command in ("run", "cleanup", "verify"):
        done = run(image, "-m", "rescheduler", command)
        assert done.returncode == 1
        assert "no KUBECONFIG" in done.stdout + done.stderr, command
        assert "Traceback" not in done.stderr


def test_time_zones_and_certificates_are_there(image: Path) -> None:
    code = "import zoneinfo, certifi, os; zoneinfo.reset_tzpath([]); zoneinfo.ZoneInfo('Europe/Berlin'); os.stat(certifi.where())"
    done = run(image, "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_plugin_and_its_packages_are_gone(image: Path) -> None:
    assert not {path.name for path in image.iterdir()} & {"rich", "pygments", "markdown_it", "socks.py", "bin"}
    assert not (image / "rescheduler/cli/plugin.py").exists()
    assert len(list(image.glob("kubernetes/**/models/*.py"))) < 20


def test_a_loaded_package_stays_whole_without_sources_and_tests() -> None:
    files = {"p/__init__.py", "p/late.py", "p/fast.so", "p/fast.pyx", "p/tests/test_p.py", "p-1.dist-info/RECORD"}
    assert slim.needed(files, {"p/__init__.py"}) == files - {"p/fast.pyx", "p/tests/test_p.py"}


def test_a_package_that_nothing_imports_goes() -> None:
    assert slim.needed({"p/__init__.py", "p-1.dist-info/RECORD"}, {"q.py"}) == set()


def test_generated_modules_stay_only_if_they_are_loaded() -> None:
    models = "kubernetes/aio/client/models"
    files = {"kubernetes/__init__.py", f"{models}/__init__.py", f"{models}/v1_pod.py", f"{models}/v1_node.py"}
    loaded = {"kubernetes/__init__.py", f"{models}/__init__.py", f"{models}/v1_pod.py"}
    assert slim.needed(files, loaded) == loaded


def test_no_file_outside_of_the_folder_is_touched_and_the_list_of_contents_is_true(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "packages"
    (folder / "p-1.dist-info").mkdir(parents=True)
    (tmp_path / "program").touch()
    (folder / "p.py").touch()
    (folder / "p.pyi").touch()
    (folder / "p-1.dist-info" / "METADATA").write_text("Name: p\nVersion: 1\n")
    rows = "../../program,,\np.py,,\np.pyi,,\np-1.dist-info/METADATA,,\np-1.dist-info/RECORD,,\n"
    (folder / "p-1.dist-info" / "RECORD").write_text(rows)
    slim.slim(folder, {"p.py"})
    assert (tmp_path / "program").exists()
    assert not (folder / "p.pyi").exists()
    left = [row.split(",")[0] for row in (folder / "p-1.dist-info" / "RECORD").read_text().splitlines()]
    assert left == ["p.py", "p-1.dist-info/METADATA", "p-1.dist-info/RECORD"]
