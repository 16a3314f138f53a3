"""Rescheduler, a Kubernetes operator that drains nodes that failed or need maintenance, replacement first."""
