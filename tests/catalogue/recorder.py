"""Record the pods of a namespace with a watch of its own, so that no revision is missed."""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import requests

from catalogue.measures import Pod, Tally, owner_of
from harness import ControlPlane
from harness.observer import Observer
from harness.watches import watch_events

_WINDOW = 3
"""Seconds of one watch, for which `__exit__` waits at most."""


class Recorder:
    """A watch of the pods, as a context manager.

    Attributes:
        tally: the counts.
        owners: pod name to owner, of all pods that ever existed.
    """

    def __init__(self, plane: ControlPlane, space: str, once: Mapping[str, int]) -> None:
        self._session: requests.Session = Observer(plane.kubeconfig).api.session
        self._url = f"{plane.server}/api/v1/namespaces/{space}/pods"
        budgets = self._get(f"{plane.server}/apis/policy/v1/namespaces/{space}/poddisruptionbudgets")["items"]
        listed = self._get(self._url)
        self._version = listed["metadata"]["resourceVersion"]
        self.tally = Tally.begin(listed["items"], budgets, once)
        self.owners = {pod["metadata"]["name"]: owner_of(pod) for pod in listed["items"]}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._session.close()

    def pods(self) -> list[Pod]:
        """Return the pods that exist now."""
        return list(self.tally.pods.values())

    def _get(self, url: str) -> dict[str, Any]:
        answer = self._session.get(url, timeout=30)
        answer.raise_for_status()
        return dict(answer.json())

    def _follow(self) -> None:
        while not self._stop.is_set():
            for event in watch_events(self._session, self._url, version=self._version, seconds=_WINDOW):
                if event["type"] == "ERROR":
                    self._relist()
                    break
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._note(event["object"], gone=event["type"] == "DELETED")

    def _note(self, pod: Pod, *, gone: bool) -> None:
        self.owners[pod["metadata"]["name"]] = owner_of(pod)
        self.tally.see(pod, gone=gone)

    def _relist(self) -> None:
        listed = self._get(self._url)
        self._version = listed["metadata"]["resourceVersion"]
        self.tally.relist(listed["items"])
