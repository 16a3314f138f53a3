"""What the plugin reads, with the user's own rights, page by page: never more than a page of raw objects at once.

Whatever goes wrong becomes one line for people and exit code 2.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

import click
import pykube
import requests
import yaml

_PAGE = 500
_TIMEOUT = 30  # seconds


class ReadError(click.ClickException):
    """The cluster could not be read; the message says what is wrong, in one line."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Say so as other kubectl plugins do."""
        click.echo(f"kubectl-reschedule: {self.message}", err=True, file=file)


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
    """Lists of one API server."""

    def __init__(self, api: pykube.HTTPClient) -> None:
        self._api = api

    def serves(self, group: str) -> bool:
        """Whether the server knows a group at all; asked of discovery, for a list that is not known may be forbidden."""
        answer = self._get(group, "", {})
        if answer.status_code == 404:
            return False
        _insist(answer, f"the API group {group}")
        return True

    def each(self, group: str, resource: str) -> Iterator[dict[str, Any]]:
        """Every object of a resource, of all namespaces. `group`: as in `apiVersion`, `v1` or `apps/v1`."""
        token = ""
        while True:
            answer = self._get(group, resource, {"limit": _PAGE} | ({"continue": token} if token else {}))
            _insist(answer, resource)
            page = _parsed(answer)
            yield from page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue", "")
            if not token:
                return

    def _get(self, group: str, resource: str, params: dict[str, Any]) -> requests.Response:
        base = "/apis" if "/" in group else "/api"
        try:
            answer: requests.Response = self._api.get(version=f"{base}/{group}", url=resource, params=params)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise ReadError(f"the API server at {self._api.url} does not answer: {cause(error)}") from error
        except (
            requests.RequestException,
            pykube.exceptions.PyKubeError,
            OSError,
            ValueError,
            SubprocessError,
        ) as error:
            raise ReadError(f"the API server at {self._api.url} cannot be asked: {cause(error)}") from error
        return answer


def _insist(answer: requests.Response, what: str) -> None:
    if answer.ok:
        return
    try:
        said = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        said = answer.text or answer.reason
    raise ReadError(f"cannot list {what}: {' '.join(said.split())} (HTTP {answer.status_code})")


def _parsed(answer: requests.Response) -> dict[str, Any]:
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
