"""Texts of `rescheduler migrate-storage`, listed in docs/reference/cli.md."""


def not_installed(crd: str) -> str:
    """Return the text for a CRD that does not exist."""
    return f"{crd}: not installed"


def already_stored(crd: str, version: str) -> str:
    """Return the text for a CRD whose objects are all stored in its storage version."""
    return f"{crd}: all objects are stored as {version}"


def migrated(crd: str, version: str, count: int) -> str:
    """Return the text for a CRD whose objects were written again."""
    return f"{crd}: all objects are stored as {version} now ({count} written)"


def object_refused(crd: str, name: str, error: object) -> str:
    """Return the text for an object that the API server refuses, although nothing in it changes."""
    return f"{crd}: {name} cannot be written: {error}. Correct or delete it, then run the command again"


def crd_keeps_changing(crd: str) -> str:
    """Return the text for a CRD that somebody else changed during each attempt."""
    return f"{crd}: somebody else keeps changing the CRD: run the command again"


def rights_missing(error: object) -> str:
    """Return the text for an identity that may not read or write the CRDs or the objects."""
    return f"the rights do not suffice: {error}. Run the command with the rights of an administrator"


def request_failed(error: object) -> str:
    """Return the text for a request that failed."""
    return f"a request failed: {error}. Run the command again"
