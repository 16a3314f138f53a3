"""The kinds of the API group as typed models; the CRDs are generated from them."""

from typing import Final

GROUP: Final = "rescheduler.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
"""As in `apiVersion`."""
