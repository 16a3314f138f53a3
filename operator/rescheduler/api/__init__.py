"""The API kinds of Rescheduler as typed models. The CRDs are generated from these models."""

from typing import Final

GROUP: Final = "rescheduler.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
"""Value of `apiVersion`."""
