"""What a failure looks like in the log."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from rescheduler.cli import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the root logger writes; afterwards all is as it was."""
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


def test_people_see_one_line_and_no_traceback(stream: io.StringIO) -> None:
    shown = _logged(stream, "console")
    assert "Traceback" not in shown
    ours, kopfs = shown.splitlines()
    for line in (ours, kopfs):
        assert "ValueError: no such thing (test_logs.py:" in line


def test_machines_get_the_traceback_in_one_line_of_json_without_values(stream: io.StringIO) -> None:
    shown = _logged(stream, "json")
    ours, _ = map(json.loads, shown.splitlines())
    (found,) = ours["exception"]
    assert found["exc_value"] == "no such thing"
    assert found["frames"][-1]["name"] == "_fail"
    assert "locals stay out" not in shown
