"""Access of the plugin to the API server, with the rights of the user.

Lists are read page by page, so that at most one page of raw objects is in memory. Each error becomes one line on stderr
and exit code 2.
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

from rescheduler.api import API_VERSION
from rescheduler.cli import messages
from rescheduler.core.model.raw import RawObject

_PAGE_SIZE = 500
_TIMEOUT = 30  # seconds
_ACCEPT_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


class PluginError(click.ClickException):
    """The command failed. The message is one line."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the error on stderr, with the name of the plugin first."""
        click.echo(f"kubectl-reschedule: {self.message}", err=True, file=file)


class ApiUnavailableError(PluginError):
    """The API server does not answer now. A retry may succeed."""


def connect() -> pykube.HTTPClient:
    """Connect to the cluster of KUBECONFIG, or else of ~/.kube/config. Raises PluginError."""
    path = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or str(Path.home() / ".kube" / "config")
    try:
        return pykube.HTTPClient(pykube.KubeConfig.from_file(path), timeout=_TIMEOUT)
    except pykube.exceptions.PyKubeError as error:
        raise PluginError(messages.kubeconfig_unusable(path, str(error))) from error
    except KeyError as error:
        raise PluginError(messages.kubeconfig_unusable(path, f"it has no {error}")) from error
    except (OSError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise PluginError(messages.kubeconfig_unusable(path, cause)) from error


class ClusterApi:
    """Requests to one API server."""

    def __init__(self, api: pykube.HTTPClient) -> None:
        self._api = api

    def resource_names(self, group: str) -> frozenset[str]:
        """Return the resources of an API group by discovery, because a list of an absent kind may be forbidden."""
        answer = self.send("get", group, "")
        if answer.status_code == 404:
            return frozenset()
        raise_for_error(answer, f"read the API group {group}")
        return frozenset(entry["name"] for entry in parse_json(answer).get("resources") or ())

    def serves_group(self, group: str) -> bool:
        """Whether the API server serves a group."""
        return bool(self.resource_names(group))

    def require_installed(self, resource: str) -> None:
        """Raise PluginError if a kind of Rescheduler is not installed."""
        if resource not in self.resource_names(API_VERSION):
            raise PluginError(messages.crd_missing(resource))

    def get(self, group: str, path: str) -> RawObject | None:
        """Return an object; None if it does not exist. Raises PluginError."""
        answer = self.send("get", group, path)
        if answer.status_code == 404:
            return None
        raise_for_error(answer, f"read {path}")
        return parse_json(answer)

    def list_items(self, group: str, resource: str) -> Iterator[RawObject]:
        """Yield every object of a resource in all namespaces. `group`: the `apiVersion`, such as `v1` or `apps/v1`."""
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
        """Return the API server's own table of a resource: the column names, then a row for each object."""
        answer = self.send("get", group, resource, headers={"Accept": _ACCEPT_TABLE})
        raise_for_error(answer, f"list {resource}")
        table = parse_json(answer)
        rows = [row["cells"] for row in table["rows"] or ()]
        head = [column["name"].upper() for column in table["columnDefinitions"]]
        return [head, *(["" if cell is None else str(cell) for cell in cells] for cells in rows)]

    def watch(self, group: str, resource: str, *, seconds: int, **params: str) -> Iterator[tuple[str, RawObject]]:
        """Yield watch events (type, object) for this many seconds, or until the API server ends the stream."""
        query = params | {"watch": "true", "timeoutSeconds": str(seconds)}
        answer = self.send("get", group, resource, params=query, stream=True)
        with answer, self._translate_errors():
            raise_for_error(answer, f"watch {resource}")
            for line in answer.iter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]

    def send(self, method: str, group: str, path: str, **options: Any) -> requests.Response:
        """Send a request and return the response, whatever its status code. Raises PluginError without a response."""
        base = "/apis" if "/" in group else "/api"
        with self._translate_errors():
            answer: requests.Response = getattr(self._api, method)(version=f"{base}/{group}", url=path, **options)
        return answer

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            message = messages.api_server_unavailable(self._api.url, root_cause_message(error))
            raise ApiUnavailableError(message) from error
        except (
            requests.RequestException,
            pykube.exceptions.PyKubeError,
            OSError,
            ValueError,
            SubprocessError,
        ) as error:
            raise PluginError(messages.request_failed(self._api.url, root_cause_message(error))) from error


def raise_for_error(answer: requests.Response, action: str) -> None:
    """Raise PluginError if the API server refused the request. `action`: the words after "cannot"."""
    if answer.ok:
        return
    try:
        message = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.text or answer.reason
    raise PluginError(messages.request_refused(action, " ".join(message.split()), answer.status_code))


def parse_json(answer: requests.Response) -> RawObject:
    """Return the JSON object of a response. Raises PluginError if the response is not a JSON object."""
    try:
        return dict(answer.json())
    except (ValueError, TypeError) as error:
        raise PluginError(messages.not_an_api_server(answer.url, root_cause_message(error))) from error


def root_cause_message(error: Exception) -> str:
    """Return the message of the innermost wrapped error, in one line. The outer errors only repeat it."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    error = getattr(error, "reason", error)
    return " ".join(str(error).split()).rpartition(": ")[2]
