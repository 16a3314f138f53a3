"""Write a report as a zip that only its owner can read, and list what is in it."""

import io
import os
import textwrap
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from rescheduler.cli.cluster_api import ClusterApi, PluginError, connect
from rescheduler.cli.output import format_table, printable
from rescheduler.cli.report import messages
from rescheduler.cli.report.bundle import Report, ReportFile, read_report

_WIDTH = 110
_UNITS = ("B", "KiB", "MiB", "GiB")


def write(path: str | None, namespace: str | None) -> None:
    """Write a report, and print its content. `path`: None names the file by the time."""
    now = datetime.now(UTC)
    target = Path(path or f"rescheduler-report-{now:%Y%m%d-%H%M%S}.zip")
    if target.exists():
        raise PluginError(messages.file_exists(str(target)))
    report = read_report(ClusterApi(connect()), namespace)
    files = with_contents(report)
    body = zip_of(files, now)
    try:
        # Only the owner may read the file, and a file that somebody else has put there is not overwritten.
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(body)
    except OSError as error:
        raise PluginError(messages.not_writable(str(target), error.strerror or str(error))) from error
    click.echo("\n".join(listing(files, report.missing)))
    click.echo(messages.written(str(target), len(files), format_size(len(body))))


def with_contents(report: Report) -> list[ReportFile]:
    """Return the files of the report, after one that lists them and says what is redacted."""
    text = "\n".join(listing(report.files, report.missing)) + "\n"
    return [ReportFile("contents.txt", text.encode()), *report.files]


def zip_of(files: Sequence[ReportFile], now: datetime) -> bytes:
    """Return the files as a zip, in one folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(f"rescheduler-report/{file.name}", now.timetuple()[:6])
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
            archive.writestr(entry, file.content)
    return buffer.getvalue()


def listing(files: Sequence[ReportFile], missing: Sequence[str]) -> list[str]:
    """Return the name and size of each file, what is missing, and what is redacted."""
    rows = [("FILE", "SIZE"), *((file.name, format_size(len(file.content))) for file in files)]
    lines = [*format_table(rows), ""]
    if missing:
        lines += [*(line for row in missing for line in _wrap(printable(row))), ""]
    return [*lines, *_wrap(messages.REDACTED_PARTS), *_wrap(messages.SHOWN_PARTS), ""]


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def format_size(size: float) -> str:
    """Return a number of bytes for people, such as 12.3 KiB."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
