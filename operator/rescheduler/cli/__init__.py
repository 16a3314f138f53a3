"""The command lines of both programs: the operator `rescheduler` and the plugin `kubectl-reschedule`.

The plugin acts with the rights of the user, and asks `core` for plans. Each command is a module, and every sentence is
in a `messages.py`. Never here: a write other than a drain request, its withdrawal, and an approved gate.
"""
