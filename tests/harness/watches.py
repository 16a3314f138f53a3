"""Watches of the API server, as plain events."""

import json
from collections.abc import Iterator
from typing import Any

import requests


def watch_events(
    opened: requests.Session, url: str, *, version: str = "", seconds: int = 600, accept: str = "application/json"
) -> Iterator[dict[str, Any]]:
    """Yield the events of a watch until the server ends it or stops, bookmarks included.

    Args:
        version: the resourceVersion to watch from; empty begins with the objects that exist.
        seconds: how long the watch lasts.
    """
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(seconds), "allowWatchBookmarks": "true"}
    with opened.get(url, params=query, headers={"Accept": accept}, stream=True, timeout=(5, seconds + 30)) as answer:
        answer.raise_for_status()
        try:
            for line in answer.iter_lines():
                yield json.loads(line)
        except requests.exceptions.ChunkedEncodingError:
            return  # the server stopped
