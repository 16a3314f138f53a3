"""`kubectl reschedule version`: the versions of the plugin, the operator and the CRDs, and whether they fit."""

import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Any

import click

from rescheduler.api import GROUP
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ApiUnavailableError, ClusterApi, PluginError, connect
from rescheduler.cli.operator_lease import read_leaders
from rescheduler.cli.output import printable
from rescheduler.cli.printer import print_data, print_text
from rescheduler.core.model.crd_fields import missing_fields, stored_fields
from rescheduler.core.model.messages import listing

_LABEL = "app.kubernetes.io/version"
_OPERATOR_LABELS = "app.kubernetes.io/name=rescheduler"
_MAX_FIELDS = 5


def show(output: str, *, client_only: bool) -> None:
    """Print the versions. What the user may not read is unknown."""
    found: dict[str, Any] = {"plugin": plugin_version(), "operators": [], "crds": [], "warnings": []}
    if not client_only:
        server = ClusterApi(connect())
        found["operators"] = _read(server, _operators)
        found["crds"] = _read(server, _crds)
        found["warnings"] = list(skew(found))
    if print_data(found, [], output):
        return
    for line in _lines(found, client_only=client_only):
        print_text(line)
    for warning in found["warnings"]:
        click.echo(printable(warning), err=True)


def plugin_version() -> str:
    """Return the version of this plugin."""
    return importlib.metadata.version("rescheduler")


def skew(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning for each version that does not fit the plugin."""
    plugin = found["plugin"]
    for operator in found["operators"] or ():
        if operator["version"] and minor_version(operator["version"]) != minor_version(plugin):
            yield messages.version_skew(operator["version"], plugin)
    for crd in found["crds"] or ():
        if crd["missingFields"]:
            yield messages.crd_skew(crd["name"], listing(crd["missingFields"], _MAX_FIELDS))
    if found["operators"] and found["crds"] == []:
        yield messages.crd_missing("nodedrains")


def minor_version(version: str) -> str:
    """Return major and minor of a version: patch versions fit together."""
    return ".".join(version.removeprefix("v").split(".")[:2])


def _read(server: ClusterApi, read: Any) -> Any:
    """Return what the user may read; None for what is refused."""
    try:
        return read(server)
    except ApiUnavailableError:
        raise
    except PluginError as error:
        click.echo(error.message, err=True)
        return None


def _operators(server: ClusterApi) -> list[dict[str, Any]]:
    """Return the operators that are installed by the chart, or that lead."""
    leaders = {leader.namespace: leader.holder for leader in read_leaders(server) or () if leader.current}
    found = []
    for deployment in server.list_items("apps/v1", "deployments", labelSelector=_OPERATOR_LABELS):
        meta, containers = deployment["metadata"], deployment["spec"]["template"]["spec"]["containers"]
        version, image = (meta.get("labels") or {}).get(_LABEL, ""), containers[0].get("image", "")
        found.append(_operator(meta["namespace"], version, image, leaders.pop(meta["namespace"], "")))
    return found + [_operator(namespace, "", "", holder) for namespace, holder in leaders.items()]


def _operator(namespace: str, version: str, image: str, leader: str) -> dict[str, Any]:
    return {"namespace": namespace, "version": version, "image": image, "leader": leader}


def _crds(server: ClusterApi) -> list[dict[str, Any]]:
    # Imported late: it builds the schemas of all kinds.
    from rescheduler.api.crds import crds  # noqa: PLC0415

    found = []
    for expected in crds().values():
        name = expected["metadata"]["name"]
        served = server.get("apiextensions.k8s.io/v1", f"customresourcedefinitions/{name}")
        if served is None:
            continue
        found.append(
            {
                "name": name,
                "version": (served["metadata"].get("labels") or {}).get(_LABEL, ""),
                "served": [version["name"] for version in served["spec"]["versions"] if version.get("served")],
                "missingFields": list(missing_fields(stored_fields(expected), stored_fields(served))),
            }
        )
    return found


def _lines(found: Mapping[str, Any], *, client_only: bool) -> Iterator[str]:
    yield messages.plugin_version(found["plugin"])
    if client_only:
        return
    if found["operators"] == []:
        yield messages.OPERATOR_ABSENT
    for operator in found["operators"] or ():
        yield messages.operator_version(**operator)
    if found["crds"] == []:
        yield messages.CRDS_ABSENT
    for crd in found["crds"] or ():
        yield messages.crd_version(crd["name"].removesuffix(f".{GROUP}"), crd["served"], crd["version"])
