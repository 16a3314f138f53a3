"""The fields of a status that the API server dropped, because the CRD is older than the operator."""

from typing import Any, Generic, TypeVar

from rescheduler.api.scalars import Model, dump
from rescheduler.core.model.raw import RawObject

M = TypeVar("M", bound=Model)


class UnstoredFields(Generic[M]):
    """The last values of the dropped fields. Without them, each reconcile would write the fields again.

    Conditions are left out: they have been in each version of the CRDs, and other parties write some of them.
    """

    def __init__(self) -> None:
        self._fields: dict[str, tuple[Any, Any]] = {}  # what the API server kept, and what was written

    def add_to(self, status: M) -> M:
        """Return the status as it was written."""
        update = {name: written for name, (kept, written) in self._fields.items() if getattr(status, name) == kept}
        return status.model_copy(update=update) if update else status

    def record(self, written: M, answer: RawObject) -> None:
        """Record the fields of the written status that the API server's answer does not have."""
        self._fields = {}
        try:
            kept = type(written).model_validate(answer.get("status") or {})
        except ValueError:
            return  # the store reports an object that cannot be read
        sent, stored = dump(written), dump(kept)
        self._fields = {
            name: (getattr(kept, name), getattr(written, name))
            for name, field in type(written).model_fields.items()
            if name != "conditions" and sent.get(field.alias or name) != stored.get(field.alias or name)
        }
