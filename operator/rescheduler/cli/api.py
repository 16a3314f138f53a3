"""How the plugin talks to the API server, with the user's own rights. Lists come page by page: never more than a page of
raw objects at once.

Whatever goes wrong becomes one line for people and exit code 2.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

import click
import pykube
import requests
import yaml

from rescheduler.api import API_VERSION, GROUP, names

_PAGE = 500
_TIMEOUT = 30  # seconds
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class ReadError(click.ClickException):
    """The cluster could not be read; the message says what is wrong, in one line."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Say so as other kubectl plugins do."""
        click.echo(f"kubectl-reschedule: {self.message}", err=True, file=file)


class AwayError(ReadError):
    """The API server does not answer: it may in a moment."""


def connect() -> pykube.HTTPClient:
    """The cluster that KUBECONFIG, or ~/.kube/config, names."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or str(Path.home() / ".kube" / "config")
    try:
        return pykube.HTTPClient(pykube.KubeConfig.from_file(named), timeout=_TIMEOUT)
    except pykube.exceptions.PyKubeError as error:
        raise ReadError(f"no usable kubeconfig at {named}: {error}") from error
    except KeyError as error:
        raise ReadError(f"no usable kubeconfig at {named}: it has no {error}") from error
    except (OSError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ReadError(f"no usable kubeconfig at {named}: {why}") from error


class Reader:
    """One API server."""

    def __init__(self, api: pykube.HTTPClient) -> None:
        self._api = api

    def resources(self, group: str) -> frozenset[str]:
        """What the server has of a group; asked of discovery, for a list that is not known may be forbidden."""
        answer = self.send("get", group, "")
        if answer.status_code == 404:
            return frozenset()
        insist(answer, f"look for the API group {group}")
        return frozenset(entry["name"] for entry in parsed(answer).get("resources") or ())

    def serves(self, group: str) -> bool:
        """Whether the server knows a group at all."""
        return bool(self.resources(group))

    def insist_installed(self, resource: str) -> None:
        """Raises ReadError where this kind of ours is not there."""
        if resource not in self.resources(API_VERSION):
            raise ReadError(f"{resource}.{GROUP} is not installed here: {names.INSTALL}")

    def one(self, group: str, path: str) -> dict[str, Any] | None:
        """One object; None where there is none."""
        answer = self.send("get", group, path)
        if answer.status_code == 404:
            return None
        insist(answer, f"read {path}")
        return parsed(answer)

    def each(self, group: str, resource: str) -> Iterator[dict[str, Any]]:
        """Every object of a resource, of all namespaces. `group`: as in `apiVersion`, `v1` or `apps/v1`."""
        token = ""
        while True:
            params = {"limit": _PAGE} | ({"continue": token} if token else {})
            answer = self.send("get", group, resource, params=params)
            insist(answer, f"list {resource}")
            page = parsed(answer)
            yield from page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue", "")
            if not token:
                return

    def table(self, group: str, resource: str) -> list[list[str]]:
        """Every object as a row of the server's own columns, their names first."""
        answer = self.send("get", group, resource, headers={"Accept": _TABLE})
        insist(answer, f"list {resource}")
        found = parsed(answer)
        rows = [row["cells"] for row in found["rows"] or ()]
        head = [column["name"].upper() for column in found["columnDefinitions"]]
        return [head, *(["" if cell is None else str(cell) for cell in cells] for cells in rows)]

    def watch(self, group: str, resource: str, *, seconds: int, **params: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Events (type, object) of so many seconds, or until the server ends the stream."""
        query = params | {"watch": "true", "timeoutSeconds": str(seconds)}
        answer = self.send("get", group, resource, params=query, stream=True)
        with answer, self._told():
            insist(answer, f"watch {resource}")
            for line in answer.iter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]

    def send(self, method: str, group: str, path: str, **options: Any) -> requests.Response:
        """A request, and its answer whatever that says."""
        base = "/apis" if "/" in group else "/api"
        with self._told():
            answer: requests.Response = getattr(self._api, method)(version=f"{base}/{group}", url=path, **options)
        return answer

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise AwayError(f"the API server at {self._api.url} does not answer: {cause(error)}") from error
        except (
            requests.RequestException,
            pykube.exceptions.PyKubeError,
            OSError,
            ValueError,
            SubprocessError,
        ) as error:
            raise ReadError(f"the API server at {self._api.url} cannot be asked: {cause(error)}") from error


def insist(answer: requests.Response, doing: str) -> None:
    """Raises ReadError where the answer is no; `doing`: what was tried, as after "cannot"."""
    if answer.ok:
        return
    try:
        said = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        said = answer.text or answer.reason
    raise ReadError(f"cannot {doing}: {' '.join(said.split())} (HTTP {answer.status_code})")


def parsed(answer: requests.Response) -> dict[str, Any]:
    """The answer's JSON."""
    try:
        return dict(answer.json())
    except (ValueError, TypeError) as error:
        raise ReadError(f"what answers at {answer.url} is no API server: {cause(error)}") from error


def cause(error: Exception) -> str:
    """The last of the errors that are wrapped in each other, in one line: the others repeat it with their own names."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    error = getattr(error, "reason", error)
    return " ".join(str(error).split()).rpartition(": ")[2]
