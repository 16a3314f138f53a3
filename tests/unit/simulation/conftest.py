"""Drop the operator's log in simulated time, and restore the logging configuration after each test."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()
