"""`kubectl reschedule approve`: set a gate of a drain to True, which is a condition of its NodeDrain."""

import hashlib
import json
from datetime import UTC, datetime

import click

from rescheduler.api import API_VERSION
from rescheduler.cli import messages
from rescheduler.cli.cluster_api import ClusterApi, PluginError, connect, parse_json, raise_for_error
from rescheduler.core.model.raw import RawObject

_APPLY_PATCH_HEADERS = {"Content-Type": "application/apply-patch+yaml"}
_REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}


def approve(node: str, gate: str, message: str) -> None:
    """Set the condition of a gate to True. Raises PluginError if the drain does not wait for this gate."""
    server = ClusterApi(connect())
    server.require_installed("nodedrains")
    drain = server.get(API_VERSION, f"nodedrains/{node}")
    if drain is None:
        raise PluginError(messages.drain_missing(node))
    gates = _gates(server, drain)
    if gate not in gates:
        raise PluginError(messages.gate_unknown(node, gate, ", ".join(gates)))
    if _is_approved(drain, gate):
        click.echo(messages.already_approved(node, gate))
        return
    condition = {
        "type": gate,
        "status": "True",
        "reason": "Approved",
        "message": messages.approval(_user(server), message),
        "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    body = {
        "apiVersion": API_VERSION,
        "kind": "NodeDrain",
        "metadata": {"name": node, "uid": drain["metadata"]["uid"]},  # a precondition: never a later drain
        "status": {"conditions": [condition]},
    }
    # One manager for each gate: a second gate of the same manager would remove the first one.
    manager = f"kubectl-reschedule-gate-{hashlib.sha256(gate.encode()).hexdigest()[:16]}"
    answer = server.send(
        "patch",
        API_VERSION,
        f"nodedrains/{node}/status",
        params={"fieldManager": manager, "force": "true"},
        headers=_APPLY_PATCH_HEADERS,
        data=json.dumps(body),
    )
    raise_for_error(answer, f"approve {gate} for {node}")
    click.echo(messages.approved(node, gate))


def _gates(server: ClusterApi, drain: RawObject) -> list[str]:
    """Return the gates of a drain: those of its NodeDrain, or else those of its policy."""
    own = (drain["spec"].get("drain") or {}).get("gates")
    if own is not None:
        return list(own)
    policy = ((drain.get("status") or {}).get("policy") or {}).get("name")
    if not policy:
        raise PluginError(messages.no_policy_yet(drain["metadata"]["name"]))
    found = server.get(API_VERSION, f"reschedulepolicies/{policy}") or {"spec": {}}
    return list((found["spec"].get("drain") or {}).get("gates") or ())


def _is_approved(drain: RawObject, gate: str) -> bool:
    conditions = (drain.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == gate and condition["status"] == "True" for condition in conditions)


def _user(server: ClusterApi) -> str:
    """Return the name by which the API server knows the user; empty if it does not tell."""
    answer = server.send("post", _REVIEW["apiVersion"], "selfsubjectreviews", data=json.dumps(_REVIEW))
    return str(parse_json(answer)["status"]["userInfo"].get("username", "")) if answer.ok else ""
