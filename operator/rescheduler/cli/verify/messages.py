"""Texts of `rescheduler verify`, listed in docs/reference/cli.md."""

HAS_RIGHTS = "the ServiceAccount has all rights of the operator"
CRDS_CURRENT = "the CRDs have all fields of this version"
DRAIN_ACCEPTED = "the API server accepts a NodeDrain (dry run)"
NO_NODE = "the cluster has no node: the admission policies are not checked"


def drain_refused(error: object) -> str:
    """Return the text for a NodeDrain that the API server refuses."""
    return f"the API server refuses a NodeDrain: {error}"


def writes_bounded(policy: str) -> str:
    """Return the text for a write that the operator may not make, and that its policy refuses."""
    return f"the admission policy {policy} bounds the writes of this identity (dry run)"


def writes_not_bounded(policy: str) -> str:
    """Return the text for a write that the policy should refuse."""
    return (
        f"the admission policy {policy} does not bound the writes of this identity: run the command with the operator's "
        "ServiceAccount, or install the chart again"
    )


def refused_otherwise(error: object) -> str:
    """Return the text for a write that something else refuses, so that nothing is known of the policy."""
    return f"the admission policies cannot be checked: {error}"


def leads(namespace: str) -> str:
    """Return the text for an operator that acts in the cluster."""
    return f"an operator in namespace {namespace} leads the cluster"


def does_not_lead(namespace: str, holder: str, lease: str) -> str:
    """Return the text for an installation that does not act; `holder`: namespace of the one that does, or empty."""
    cause = f"the installation in namespace {holder} does" if holder else "no operator holds it"
    return (
        f"no operator in namespace {namespace} leads the cluster (Lease {lease}): {cause}. Look at the operator's log"
    )
