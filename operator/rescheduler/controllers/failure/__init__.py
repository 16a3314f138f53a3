"""Watches the Leases of the kubelets, so that a silent node is noticed.

May import: `runtime`. Never here: a judgement; `core.failure` decides.
"""
