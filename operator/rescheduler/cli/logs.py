"""Logs: one line an event, as JSON or for people; Kopf's and aiohttp's records among them."""

import logging
import sys
import traceback
from pathlib import Path

import structlog

_TRACEBACK_FORMAT = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
"""Without values: they may be those of others, and large."""


def _shorten_exception(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """For people: what failed and where, in the same line; the JSON log has the traceback."""
    found = event.pop("exc_info", None)
    found = sys.exc_info() if found is True else found
    error = found[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        event["error"] = f"{type(error).__name__}: {error}{where}"
    return event


def configure(log_format: str, level: int = logging.INFO) -> None:
    """Send structlog and the standard library's records through one renderer to stderr."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[structlog.types.Processor] = (
        [structlog.processors.ExceptionRenderer(_TRACEBACK_FORMAT), structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [_shorten_exception, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=["k8s_ref"])],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
