"""Refusals of the API server."""

from typing import Any

from rescheduler.core.eviction.api_responses import ErrorResponse

_REASONS = {
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    504: "Timeout",
}


class RefusedError(Exception):
    """A refusal, with the code and the message that the client turns into its own error.

    Attributes:
        delay: seconds until the answer arrives.
    """

    def __init__(self, code: int, message: str, *, delay: float = 0.0, **rest: Any) -> None:
        super().__init__(message)
        self.refusal, self.delay = ErrorResponse(code, _REASONS.get(code, ""), message, **rest), delay
