"""The zip of a report, and its listing."""

import io
import zipfile
from pathlib import Path

import pytest

from rescheduler.cli.cluster_api import PluginError
from rescheduler.cli.report import zip_file
from rescheduler.cli.report.bundle import Report, ReportFile, safe_name
from unit.builders import NOW

REPORT = Report((ReportFile("nodes.json", b"[]"), ReportFile("logs/a.log", b"x" * 2048)), ("cannot list events: no",))


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_file, "connect", lambda: None)
    monkeypatch.setattr(zip_file, "ClusterApi", lambda _: None)
    monkeypatch.setattr(zip_file, "read_report", lambda *_: REPORT)


def test_the_first_file_lists_the_others_and_what_is_redacted() -> None:
    first, *others = zip_file.with_contents(REPORT)
    text = first.content.decode()
    assert (first.name, [file.name for file in others]) == ("contents.txt", ["nodes.json", "logs/a.log"])
    for words in ("logs/a.log", "2.0 KiB", "cannot list events: no", "Left out or redacted: environment, arguments"):
        assert words in text


def test_a_hostile_name_cannot_break_out_of_the_folder(tmp_path: Path) -> None:
    names = [f"logs/{safe_name(name)}.log" for name in ("../../../up", "/abs", "..", "a/../../b")]
    body = zip_file.zip_of([ReportFile(name, b"") for name in names], NOW)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert [name for name in archive.namelist() if not name.startswith("rescheduler-report/logs/")] == []
        assert not any(part == ".." for name in archive.namelist() for part in name.split("/"))
        archive.extractall(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rescheduler-report"]


@pytest.mark.usefixtures("connected")
def test_only_the_owner_can_read_the_zip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "r.zip"
    zip_file.write(str(target), None)
    assert target.stat().st_mode & 0o777 == 0o600
    out = capsys.readouterr().out
    assert f"{target}: 3 files, " in out
    assert "logs/a.log" in out


@pytest.mark.usefixtures("connected")
def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "r.zip"
    target.write_text("mine")
    with pytest.raises(PluginError, match="exists already"):
        zip_file.write(str(target), None)
    assert target.read_text() == "mine"


@pytest.mark.usefixtures("connected")
def test_a_folder_that_does_not_exist_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="cannot be written: No such file"):
        zip_file.write(str(tmp_path / "none" / "r.zip"), None)


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB")])
def test_a_size_is_readable(size: int, text: str) -> None:
    assert zip_file.format_size(size) == text
