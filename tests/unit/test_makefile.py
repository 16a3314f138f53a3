"""Output of `make demo` and `make test` before the work."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SET_UP = "Setting up .venv (once, about 20 s) …"
_PYTHON = """#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp pip .venv/bin/pip ;;
"-m harness.demo") echo "the demo" ;;
"-W ignore:"*) echo "the tests" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with the Makefile and with programs that do nothing."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "dev.txt").touch()
    (tmp_path / "pyproject.toml").touch()
    for name, text in (("python", _PYTHON), ("pip", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def make(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", target, f"PYTHON={folder / 'python'}"]
    # Without this, the options of an outer `make test` reach the inner make.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("target", "work"), [("demo", "the demo"), ("test", "the tests")])
def test_only_the_first_run_prints_a_line_before_the_work(checkout: Path, target: str, work: str) -> None:
    first, again = make(checkout, target), make(checkout, target)
    assert (first.stdout.splitlines(), first.stderr) == ([SET_UP, work], "")
    assert (again.stdout.splitlines(), again.stderr) == ([work], "")


def test_a_failed_set_up_prints_its_error_and_is_repeated(checkout: Path) -> None:
    (checkout / "pip").write_text("#!/bin/sh\necho 'ERROR: no network' >&2\nexit 1\n")
    failed = make(checkout, "demo")
    assert failed.returncode
    assert "ERROR: no network" in failed.stderr
    assert SET_UP in make(checkout, "demo").stdout
