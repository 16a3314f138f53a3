"""Logs of the operator, with those of Kopf and aiohttp: one line for each event, as JSON or for a console."""

import logging
import sys
import traceback
from pathlib import Path

import structlog

_TRACEBACK_FORMAT = structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
"""Tracebacks without local variables, which may be large and may hold values of others."""


def _shorten_exception(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Replace the traceback with the error and its place in one line. Only the JSON log has the traceback."""
    exc_info = event.pop("exc_info", None)
    exc_info = sys.exc_info() if exc_info is True else exc_info
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        event["error"] = f"{type(error).__name__}: {error}{place}"
    return event


def configure(log_format: str, level: int = logging.INFO) -> None:
    """Send the records of structlog and of the standard library to stderr, through one renderer."""
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
