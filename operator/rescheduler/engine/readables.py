"""Objects of a list that can be read: one that cannot be costs itself only."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import structlog

from rescheduler.kube.client import Json

T = TypeVar("T")
log = structlog.get_logger("rescheduler.readables")


def readable(rows: Iterable[Json], project: Callable[[Json], T]) -> Iterator[T]:
    """Yield each object as the projection reads it; log those that it refuses, and leave them out."""
    for raw in rows:
        try:
            found = project(raw)
        except ValueError as error:
            log.warning("object.unreadable", error=str(error), object=str(raw.get("metadata"))[:200])
            continue
        yield found
