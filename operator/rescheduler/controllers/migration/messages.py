"""Texts of controllers.migration for users: why a requested pod stays on its node."""

SKIPPED_BY_POLICY = "a rule of the policy skips this pod, or the pod tolerates cordoned nodes"
