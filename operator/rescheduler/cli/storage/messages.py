"""Texts of `rescheduler migrate-storage`, listed in docs/reference/cli.md."""


def not_installed(crd: str) -> str:
    """Return the text for a CRD that does not exist."""
    return f"{crd}: not installed"


def stored(crd: str, version: str, count: int) -> str:
    """Return the text for a CRD whose objects are all in its storage version; `count`: objects that were written."""
    return f"{crd}: all objects are stored as {version}" + (f" now ({count} written)" if count else "")


def object_refused(resource: str, name: str, error: object) -> str:
    """Return the text for an object that the API server refuses, although nothing in it changes."""
    return f"{resource}: {name} cannot be written: {error}. Correct or delete it, then run the command again"


def crd_keeps_changing(crd: str) -> str:
    """Return the text for a CRD that somebody else changed during each attempt."""
    return f"{crd}: somebody else keeps changing the CRD: run the command again"


def rights_missing(error: object) -> str:
    """Return the text for an identity that may not read or write the CRDs or the objects."""
    return f"the rights do not suffice: {error}. Run the command with the rights of an administrator"


def request_failed(error: object) -> str:
    """Return the text for a request that failed."""
    return f"a request failed: {error}. Run the command again"
