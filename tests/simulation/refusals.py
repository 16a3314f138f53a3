"""How the server says no."""

from typing import Any

from rescheduler.core.answers import Refusal

_REASONS = {404: "NotFound", 409: "Conflict", 410: "Expired", 422: "Invalid", 429: "TooManyRequests"}


class RefusedError(Exception):
    """With the code and the words that the client turns into its own error."""

    def __init__(self, code: int, message: str, **rest: Any) -> None:
        super().__init__(message)
        self.refusal = Refusal(code, _REASONS.get(code, ""), message, **rest)
