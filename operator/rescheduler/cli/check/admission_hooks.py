"""Webhooks and admission policies of others that hear of what a drain does: evictions, releases, new pods, cordons."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rescheduler.api import GROUP
from rescheduler.api.selectors import LabelSelector
from rescheduler.cli.check import messages
from rescheduler.cli.check.findings import Finding, Level, Topic
from rescheduler.core.model.raw import RawObject

Service = tuple[str, str]
"""Namespace and name of a Service."""


class Request(StrEnum):
    """A kind of request of a drain that admission sees. The value is what a user calls it."""

    EVICTION = "evictions"
    RELEASE = "updates of pods"
    NEW_POD = "new pods"
    BINDING = "placements of pods"
    CORDON = "updates of nodes"


_OPERATIONS: Mapping[Request, tuple[str, str]] = {
    Request.EVICTION: ("CREATE", "pods/eviction"),
    Request.RELEASE: ("UPDATE", "pods"),
    Request.NEW_POD: ("CREATE", "pods"),
    Request.BINDING: ("CREATE", "pods/binding"),
    Request.CORDON: ("UPDATE", "nodes"),
}
"""Operation and resource of each request, as rules of admission name them."""


@dataclass(frozen=True, slots=True)
class AdmissionHook:
    """A webhook, or an admission policy that is in force.

    Attributes:
        name: kind and name of the object that holds it.
        requests: requests of a drain that it hears of.
        fails_closed: whether the API server refuses the request if the hook cannot be asked.
        service: the Service that a webhook calls; None for a URL and for a policy.
        namespace_selector: the namespaces that it applies to; None: all.
    """

    name: str
    requests: frozenset[Request]
    fails_closed: bool = False
    service: Service | None = None
    namespace_selector: LabelSelector | None = None

    def applies(self, namespace_labels: Collection[Mapping[str, str]]) -> bool:
        """Whether the selector selects a namespace; always without known namespaces. Nodes have no namespace."""
        selector = self.namespace_selector
        if selector is None or Request.CORDON in self.requests or not namespace_labels:
            return True
        return any(map(selector.matches, namespace_labels))


def parse_webhooks(kind: str, raw: RawObject) -> Iterator[AdmissionHook]:
    """Yield the webhooks of a raw configuration that hear of a drain. `kind`: the kind of the configuration."""
    for webhook in _objects(raw.get("webhooks")):
        requests = _requests(webhook.get("rules"))
        if not requests:
            continue
        service = _object(_object(webhook.get("clientConfig")).get("service"))
        yield AdmissionHook(
            f"{kind} {_name(raw)}",
            requests,
            fails_closed=webhook.get("failurePolicy", "Fail") == "Fail",
            service=(str(service.get("namespace", "")), str(service.get("name", ""))) if service else None,
            namespace_selector=_selector(webhook.get("namespaceSelector")),
        )


def parse_policies(kind: str, policies: Iterable[RawObject], bindings: Iterable[RawObject]) -> Iterator[AdmissionHook]:
    """Yield the raw admission policies of others that are bound, that act, and that hear of a drain."""
    acting = {_object(b.get("spec")).get("policyName") for b in bindings if _binding_acts(b)}
    for policy in policies:
        spec, name = _object(policy.get("spec")), _name(policy)
        constraints = _object(spec.get("matchConstraints"))
        requests = _requests(constraints.get("resourceRules"))
        if name in acting and requests and not name.endswith(f".{GROUP}"):
            yield AdmissionHook(
                f"{kind} {name}",
                requests,
                fails_closed=spec.get("failurePolicy", "Fail") == "Fail",
                namespace_selector=_selector(constraints.get("namespaceSelector")),
            )


def find_admission(
    hooks: Iterable[AdmissionHook],
    dead_services: Collection[Service],
    namespace_labels: Collection[Mapping[str, str]],
) -> Iterator[Finding]:
    """Return what admission means for a drain. `dead_services`: Services without a ready endpoint."""
    applying = [hook for hook in hooks if hook.applies(namespace_labels)]
    for hook in applying:
        if hook.fails_closed and hook.service in dead_services and hook.service:
            yield Finding(
                Level.PROBLEM,
                Topic.ADMISSION,
                messages.webhook_without_endpoints(hook.name, "/".join(hook.service)),
                messages.refused_requests([request for request in Request if request in hook.requests]),
                messages.start_webhook(*hook.service),
            )
    for request in Request:
        names = {hook.name + (" (Fail)" if hook.fails_closed else "") for hook in applying if request in hook.requests}
        if names:
            meaning, next_step = messages.ADMISSION_TEXTS[request]
            level = Level.WARNING if request is Request.EVICTION else Level.NOTE
            state = messages.hooks_on(request, len(names))
            yield Finding(level, Topic.ADMISSION, state, meaning, next_step, sorted(names))
    if not applying:
        yield Finding(Level.OK, Topic.ADMISSION, messages.NO_HOOKS)


def _requests(rules: Any) -> frozenset[Request]:
    return frozenset(
        request
        for request, (operation, resource) in _OPERATIONS.items()
        if any(_matches(rule, operation, resource) for rule in _objects(rules))
    )


def _matches(rule: RawObject, operation: str, resource: str) -> bool:
    """Whether a rule of admission matches a request. Source: `Rule` of admissionregistration.k8s.io/v1."""
    name, _, subresource = resource.partition("/")
    patterns = {f"{name}/{subresource}", f"{name}/*", f"*/{subresource}", "*/*"} if subresource else {name, "*", "*/*"}
    return (
        bool({"", "*"} & _texts(rule.get("apiGroups")))
        and bool({operation, "*"} & _texts(rule.get("operations")))
        and bool(patterns & _texts(rule.get("resources")))
    )


def _binding_acts(raw: RawObject) -> bool:
    """Whether a binding makes its policy act; one of a ValidatingAdmissionPolicy may only warn."""
    actions = _object(raw.get("spec")).get("validationActions")
    return actions is None or "Deny" in _texts(actions)


def _selector(raw: Any) -> LabelSelector | None:
    try:
        return LabelSelector.model_validate(raw) if raw else None
    except ValueError:
        return None  # unknown to this version of the plugin: it may apply to every namespace


def _name(raw: RawObject) -> str:
    return str(_object(raw.get("metadata")).get("name", ""))


def _object(value: Any) -> RawObject:
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[RawObject]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _texts(value: Any) -> set[str]:
    return {item for item in value if isinstance(item, str)} if isinstance(value, list) else set()
