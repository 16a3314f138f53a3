"""Watch the Leases of kubelets, so that a silent node is noticed.

May import: `runtime`. Never here: a decision; `core.failure` decides.
"""
