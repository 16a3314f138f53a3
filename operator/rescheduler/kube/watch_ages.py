"""The age of each watch: how long ago it delivered a list, an event or a bookmark."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class WatchAges:
    """The last delivery of each open watch: its resource, and the time of the event loop."""

    _heard: dict[int, tuple[str, float]] = field(default_factory=dict)  # by id of the watch

    def record(self, watch: object, resource: str, now: float) -> None:
        """Record that a watch has delivered something, or has just begun."""
        self._heard[id(watch)] = (resource, now)

    def forget(self, watch: object) -> None:
        """Forget a watch that has ended."""
        self._heard.pop(id(watch), None)

    def ages(self, now: float) -> dict[str, float]:
        """Return the seconds since the last delivery, by resource: those of its oldest watch."""
        found: dict[str, float] = {}
        for resource, at in self._heard.values():
            found[resource] = max(now - at, found.get(resource, 0.0))
        return found
