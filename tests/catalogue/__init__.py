"""A catalogue of clusters: each entry is drained by `kubectl drain` and by Rescheduler, and the results are compared.

An entry is a file in `entries`: objects, neighbours that act, and the outcome that must hold. `python -m catalogue`
runs entries on one control plane with simulated kubelets, and writes `docs/reference/catalogue.md`.
"""
