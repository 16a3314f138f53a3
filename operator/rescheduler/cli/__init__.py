"""The command lines of both programs: the operator `rescheduler` and the plugin `kubectl-reschedule`.

The plugin reads the cluster with the rights of the user, and asks `core` for plans. Every sentence that the plugin
prints is in `messages.py`. Never here: a write other than a drain request or its withdrawal.
"""
