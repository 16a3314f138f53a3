"""The rights that the commands of the plugin need, and findings about those that the user lacks."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from rescheduler.api import GROUP
from rescheduler.cli.check import messages
from rescheduler.cli.check.findings import Finding, Level, Topic


@dataclass(frozen=True, slots=True)
class Right:
    """A verb on a resource of all namespaces."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")

    def review(self) -> dict[str, Any]:
        """Return the SelfSubjectAccessReview that asks for the right. Its creation writes nothing."""
        attributes = {"group": self.group, "resource": self.resource, "verb": self.verb}
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }


def _rights(verbs: str, group: str, resources: str) -> tuple[Right, ...]:
    return tuple(Right(group, resource, verb) for resource in resources.split() for verb in verbs.split())


EVERYTHING = Right("*", "*", "*")
"""The right of cluster administrators, which includes all others."""
COMMAND_RIGHTS: dict[str, tuple[Right, ...]] = {
    "plan": (
        *_rights("list", "", "nodes namespaces pods persistentvolumeclaims persistentvolumes"),
        *_rights("list", "apps", "replicasets deployments daemonsets"),
        *_rights("get", "apps", "statefulsets"),
        *_rights("list", "policy", "poddisruptionbudgets"),
        *_rights("list", "storage.k8s.io", "csinodes volumeattachments"),
        *_rights("list", "resource.k8s.io", "deviceclasses"),
        *_rights("list", GROUP, "reschedulepolicies namespacepools nodedrains"),
    ),
    "drain": (*_rights("get", "", "nodes"), *_rights("get watch create patch", GROUP, "nodedrains")),
    "cancel": (*_rights("get patch", "", "nodes"), *_rights("get delete", GROUP, "nodedrains")),
}
"""The rights of each command, as docs/reference/cli.md lists them."""
RARELY_NEEDED = (*_rights("get", "apps", "statefulsets"), *_rights("list", "resource.k8s.io", "deviceclasses"))
"""Rights that a plan needs only for pods that were resized, or that request extended resources."""
ALL_RIGHTS = tuple(dict.fromkeys(right for rights in COMMAND_RIGHTS.values() for right in rights))


def find_missing_rights(missing: Collection[Right], review_error: str) -> Iterable[Finding]:
    """Return a finding for each command that the user may not run. `review_error`: why reviews failed, or empty."""
    if review_error:
        yield Finding(Level.WARNING, Topic.RIGHTS, messages.rights_unknown(review_error))
        return
    allowed = []
    for command, rights in COMMAND_RIGHTS.items():
        lacking = [right for right in rights if right in missing]
        if not lacking:
            allowed.append(command)
            continue
        hinders = command == "plan" and any(right not in RARELY_NEEDED for right in lacking)
        level = Level.PROBLEM if hinders else Level.WARNING
        yield Finding(
            level,
            Topic.RIGHTS,
            messages.command_not_allowed(command),
            next_step=messages.ask_for_rights(command),
            objects=[str(right) for right in lacking],
        )
    if allowed:
        yield Finding(Level.OK, Topic.RIGHTS, messages.commands_allowed(allowed))
