"""Access of the plugin to the API server, with the rights of the user.

Lists are read page by page, so that at most one page of raw objects is in memory. Each error becomes one line on stderr
and exit code 2.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import urllib3

from rescheduler.api import API_VERSION
from rescheduler.cli import messages
from rescheduler.cli.connection.cluster import open_connection
from rescheduler.cli.connection.kubeconfig import ConnectionFlags
from rescheduler.cli.connection.options import flags_of_command_line
from rescheduler.cli.connection.transport import Answer, Connection
from rescheduler.cli.errors import ApiUnavailableError, PluginError
from rescheduler.core.model.raw import RawObject

__all__ = ["ApiUnavailableError", "ClusterApi", "PluginError", "connect", "parse_json", "raise_for_error"]

_PAGE_SIZE = 500
_UNAVAILABLE = (
    urllib3.exceptions.TimeoutError,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.NewConnectionError,
    ConnectionError,
    TimeoutError,
)
_ACCEPT_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def connect() -> Connection:
    """Connect to the cluster that kubectl talks to, with the flags of the running command. Raises PluginError."""
    return open_connection(ConnectionFlags(**flags_of_command_line()))


class ClusterApi:
    """Requests to one API server.

    The commands use `get`, `list_items`, `get_table`, `watch` and `resource_names` to read, and `send` for the rest.
    `group` is the `apiVersion`, such as `v1` or `apps/v1`; `path` follows it, such as `namespaces/a/pods/b`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def url(self) -> str:
        """Return the address of the API server."""
        return self._connection.url

    @property
    def namespace(self) -> str:
        """Return the namespace of the context."""
        return self._connection.namespace

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

    def get_document(self, path: str) -> RawObject:
        """Return what an absolute path serves, such as `version` or `apis`. Raises PluginError."""
        with self._translate_errors():
            answer = self._connection.request("get", f"/{path}")
        raise_for_error(answer, f"read /{path}")
        return parse_json(answer)

    def list_items(self, group: str, resource: str, **params: str) -> Iterator[RawObject]:
        """Yield every object of a resource in all namespaces. `params`: such as `labelSelector`."""
        for page in self._pages(group, resource, params):
            yield from page.get("items") or ()

    def list_with_version(self, group: str, resource: str) -> tuple[list[RawObject], str]:
        """Return every object of a resource, and the version of the list to watch from."""
        pages = list(self._pages(group, resource, {}))
        items = [item for page in pages for item in page.get("items") or ()]
        return items, str((pages[0].get("metadata") or {}).get("resourceVersion", ""))

    def _pages(self, group: str, resource: str, params: Mapping[str, str]) -> Iterator[RawObject]:
        token = ""
        while True:
            page_params = {**params, "limit": _PAGE_SIZE} | ({"continue": token} if token else {})
            answer = self.send("get", group, resource, params=page_params)
            raise_for_error(answer, f"list {resource}")
            page = parse_json(answer)
            yield page
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

    def send(self, method: str, group: str, path: str, **options: Any) -> Answer:
        """Send a request and return the answer, whatever its status code. Raises PluginError without an answer.

        `options`: `params`, `headers`, `data` (the body as text) and `stream`.
        """
        base = "/apis" if "/" in group else "/api"
        with self._translate_errors():
            return self._connection.request(method, f"{base}/{group}/{path}".rstrip("/"), **options)

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except PluginError:
            raise
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            causes = list(_wrapped_errors(error))
            cause = one_line(causes[-1])
            if any(isinstance(each, _UNAVAILABLE) for each in causes):
                raise ApiUnavailableError(messages.api_server_unavailable(self.url, cause)) from error
            raise PluginError(messages.request_failed(self.url, cause)) from error


def raise_for_error(answer: Answer, action: str) -> None:
    """Raise PluginError if the API server refused the request. `action`: the words after "cannot"."""
    if answer.ok:
        return
    try:
        message = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.text or answer.reason
    raise PluginError(messages.request_refused(action, " ".join(message.split()), answer.status_code))


def parse_json(answer: Answer) -> RawObject:
    """Return the JSON object of a response. Raises PluginError if the response is not a JSON object."""
    try:
        return dict(answer.json())
    except (ValueError, TypeError) as error:
        raise PluginError(messages.not_an_api_server(answer.url, one_line(error))) from error


def _wrapped_errors(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that it wraps. The last one has the cause, and the others repeat it."""
    while error is not None:
        yield error
        candidates = (getattr(error, "reason", None), *error.args)
        error = next((each for each in candidates if isinstance(each, BaseException)), None)


def one_line(error: BaseException) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split()).rpartition(": ")[2] or type(error).__name__
