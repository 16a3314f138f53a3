"""`rescheduler verify`: check an installation from inside the cluster."""
