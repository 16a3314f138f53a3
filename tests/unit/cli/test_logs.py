"""Failures in the log."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from rescheduler.cli import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Return a stream for the root logger, and restore the loggers afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield io.StringIO()
    root.handlers = handlers
    root.setLevel(level)
    for name in ("kopf", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


def _fail() -> None:
    secret = "locals stay out"  # noqa: F841 - must not be shown
    raise ValueError("no such thing")


def _logged(stream: io.StringIO, log_format: str) -> str:
    logs.configure(log_format)
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    try:
        _fail()
    except ValueError as error:
        structlog.get_logger("ours").error("task.failed", task="drain", exc_info=error)
        logging.getLogger("kopf").exception("Something has failed")
    return stream.getvalue()


def test_the_console_log_has_one_line_and_no_traceback(stream: io.StringIO) -> None:
    shown = _logged(stream, "console")
    assert "Traceback" not in shown
    structlog_line, kopf_line = shown.splitlines()
    for line in (structlog_line, kopf_line):
        assert "ValueError: no such thing (test_logs.py:" in line


def test_the_json_log_has_the_traceback_without_local_values(stream: io.StringIO) -> None:
    shown = _logged(stream, "json")
    event, _ = map(json.loads, shown.splitlines())
    (exception,) = event["exception"]
    assert exception["exc_value"] == "no such thing"
    assert exception["frames"][-1]["name"] == "_fail"
    assert "locals stay out" not in shown
