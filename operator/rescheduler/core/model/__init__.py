"""Typed, bounded and small records of Kubernetes objects.

This package parses each raw object once. Everything else in `core` builds on the records.
May import: `api`. Never here: a decision about moving a pod, or a read of the clock.
"""
