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

_PAGE_SIZE = 500
_TIMEOUT = 30  # seconds
_ACCEPT_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class PluginError(click.ClickException):
    """The cluster could not be read; the message says what is wrong, in one line."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Say so as other kubectl plugins do."""
        click.echo(f"kubectl-reschedule: {self.message}", err=True, file=file)


class ApiUnavailableError(PluginError):
    """The API server does not answer: it may in a moment."""


def connect() -> pykube.HTTPClient:
    """The cluster that KUBECONFIG, or ~/.kube/config, names."""
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or str(Path.home() / ".kube" / "config")
    try:
        return pykube.HTTPClient(pykube.KubeConfig.from_file(named), timeout=_TIMEOUT)
    except pykube.exceptions.PyKubeError as error:
        raise PluginError(f"no usable kubeconfig at {named}: {error}") from error
    except KeyError as error:
        raise PluginError(f"no usable kubeconfig at {named}: it has no {error}") from error
    except (OSError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise PluginError(f"no usable kubeconfig at {named}: {why}") from error


class ClusterApi:
    """One API server."""

    def __init__(self, api: pykube.HTTPClient) -> None:
        self._api = api

    def resource_names(self, group: str) -> frozenset[str]:
        """What the server has of a group; asked of discovery, for a list that is not known may be forbidden."""
        answer = self.send("get", group, "")
        if answer.status_code == 404:
            return frozenset()
        raise_for_error(answer, f"look for the API group {group}")
        return frozenset(entry["name"] for entry in parse_json(answer).get("resources") or ())

    def serves_group(self, group: str) -> bool:
        """Whether the server knows a group at all."""
        return bool(self.resource_names(group))

    def require_installed(self, resource: str) -> None:
        """Raises ReadError where this kind of ours is not there."""
        if resource not in self.resource_names(API_VERSION):
            raise PluginError(f"{resource}.{GROUP} is not installed here: {names.INSTALL_HINT}")

    def get(self, group: str, path: str) -> dict[str, Any] | None:
        """One object; None where there is none."""
        answer = self.send("get", group, path)
        if answer.status_code == 404:
            return None
        raise_for_error(answer, f"read {path}")
        return parse_json(answer)

    def list_items(self, group: str, resource: str) -> Iterator[dict[str, Any]]:
        """Every object of a resource, of all namespaces. `group`: as in `apiVersion`, `v1` or `apps/v1`."""
        token = ""
        while True:
            params = {"limit": _PAGE_SIZE} | ({"continue": token} if token else {})
            answer = self.send("get", group, resource, params=params)
            raise_for_error(answer, f"list {resource}")
            page = parse_json(answer)
            yield from page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue", "")
            if not token:
                return

    def get_table(self, group: str, resource: str) -> list[list[str]]:
        """Every object as a row of the server's own columns, their names first."""
        answer = self.send("get", group, resource, headers={"Accept": _ACCEPT_TABLE})
        raise_for_error(answer, f"list {resource}")
        found = parse_json(answer)
        rows = [row["cells"] for row in found["rows"] or ()]
        head = [column["name"].upper() for column in found["columnDefinitions"]]
        return [head, *(["" if cell is None else str(cell) for cell in cells] for cells in rows)]

    def watch(self, group: str, resource: str, *, seconds: int, **params: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Events (type, object) of so many seconds, or until the server ends the stream."""
        query = params | {"watch": "true", "timeoutSeconds": str(seconds)}
        answer = self.send("get", group, resource, params=query, stream=True)
        with answer, self._translate_errors():
            raise_for_error(answer, f"watch {resource}")
            for line in answer.iter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]

    def send(self, method: str, group: str, path: str, **options: Any) -> requests.Response:
        """A request, and its answer whatever that says."""
        base = "/apis" if "/" in group else "/api"
        with self._translate_errors():
            answer: requests.Response = getattr(self._api, method)(version=f"{base}/{group}", url=path, **options)
        return answer

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise ApiUnavailableError(
                f"the API server at {self._api.url} does not answer: {root_cause_message(error)}"
            ) from error
        except (
            requests.RequestException,
            pykube.exceptions.PyKubeError,
            OSError,
            ValueError,
            SubprocessError,
        ) as error:
            raise PluginError(
                f"the API server at {self._api.url} cannot be asked: {root_cause_message(error)}"
            ) from error


def raise_for_error(answer: requests.Response, action: str) -> None:
    """Raises ReadError where the answer is no; `doing`: what was tried, as after "cannot"."""
    if answer.ok:
        return
    try:
        said = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        said = answer.text or answer.reason
    raise PluginError(f"cannot {action}: {' '.join(said.split())} (HTTP {answer.status_code})")


def parse_json(answer: requests.Response) -> dict[str, Any]:
    """The answer's JSON."""
    try:
        return dict(answer.json())
    except (ValueError, TypeError) as error:
        raise PluginError(f"what answers at {answer.url} is no API server: {root_cause_message(error)}") from error


def root_cause_message(error: Exception) -> str:
    """The last of the errors that are wrapped in each other, in one line: the others repeat it with their own names."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    error = getattr(error, "reason", error)
    return " ".join(str(error).split()).rpartition(": ")[2]
