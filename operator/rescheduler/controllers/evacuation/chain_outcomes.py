"""Results of chain moves: the migrations that make them report here, and the drains that began them read."""

from collections.abc import Callable, Collection, Iterable, Mapping


class ChainOutcomes:
    """Results of the chain moves that drains began, until the drains have recorded them."""

    def __init__(self, on_change: Callable[[Iterable[str]], None]) -> None:
        """`on_change` gets the name of each drain with a new result."""
        self._on_change = on_change
        self._causes: dict[str, str] = {}

    @property
    def causes(self) -> Mapping[str, str]:
        """Return why a move failed, by uid of the pod; empty if the pod has left its node."""
        return self._causes

    def record(self, uid: str, drain: str, cause: str = "") -> None:
        """Record the end of a move; the first result counts. `cause`: of a failure."""
        if uid not in self._causes:
            self._causes[uid] = cause
            self._on_change((drain,))

    def keep(self, uids: Collection[str]) -> None:
        """Forget the results of all other pods."""
        self._causes = {uid: cause for uid, cause in self._causes.items() if uid in uids}
