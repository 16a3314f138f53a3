"""Readable objects of a list: an unreadable object must not affect the others."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import structlog

from rescheduler.core.model.raw import RawObject

T = TypeVar("T")
log = structlog.get_logger("rescheduler.runtime.readable")


def readable_objects(objects: Iterable[RawObject], parse: Callable[[RawObject], T]) -> Iterator[T]:
    """Yield each parsed object; log the objects that `parse` refuses with ValueError, and leave them out."""
    for raw in objects:
        try:
            value = parse(raw)
        except ValueError as error:
            log.warning("object.unreadable", error=str(error), object=str(raw)[:200])
            continue
        yield value
