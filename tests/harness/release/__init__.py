"""Release of a version: what `make release` changes, and what `make release-check` verifies.

Nothing here tags, pushes or uploads. `.github/workflows/release.yaml` does that for a tag.
"""


class ReleaseError(Exception):
    """A release is not possible; the message says what to do."""
