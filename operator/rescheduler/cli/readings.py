"""What the plugin reads, with the user's own rights, page by page: never more than a page of raw objects at once.

Whatever goes wrong becomes one line for people and exit code 2.
"""

import os
from collections.abc import Iterator
from pathlib import Path
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

    def each(self, group: str, resource: str, *, optional: bool = False) -> Iterator[dict[str, Any]]:
        """Every object of a resource, of all namespaces; `optional`: none where the server does not know it.

        `group`: as in `apiVersion`, `v1` or `apps/v1`.
        """
        token = ""
        while True:
            page = self._page(group, resource, {"limit": _PAGE} | ({"continue": token} if token else {}), optional)
            yield from page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue", "")
            if not token:
                return

    def _page(self, group: str, resource: str, params: dict[str, Any], optional: bool) -> dict[str, Any]:
        base = "/apis" if "/" in group else "/api"
        try:
            answer = self._api.get(version=f"{base}/{group}", url=resource, params=params)
            found = answer.json()
        except (requests.RequestException, pykube.exceptions.PyKubeError, OSError, ValueError) as error:
            why = "does not answer" if isinstance(error, requests.ConnectionError | requests.Timeout) else str(error)
            raise ReadError(f"the API server at {self._api.url} cannot be read: {why}") from error
        if answer.status_code == 404 and optional:
            return {}
        if not answer.ok:
            said = found.get("message") or answer.reason
            raise ReadError(f"cannot list {resource}: {said} (HTTP {answer.status_code})")
        return dict(found)
