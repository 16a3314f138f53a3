"""The API kinds of Rescheduler as typed models. The CRDs are generated from these models."""

from typing import Final

GROUP: Final = "rescheduler.dev"
VERSION: Final = "v1alpha1"
"""Version that the programs read and write. The CRDs of the previous minor version must serve it, so that each program
works with the CRDs of both."""
SERVED_VERSIONS: Final = ("v1alpha1", "v1beta1")
"""Versions that the CRDs serve, with the same schema."""
STORAGE_VERSION: Final = "v1alpha1"
"""Version of the objects in etcd. The CRDs of the previous minor version must serve it, or else the API server refuses
these CRDs in a downgrade."""
API_VERSION: Final = f"{GROUP}/{VERSION}"
"""Value of `apiVersion`."""
