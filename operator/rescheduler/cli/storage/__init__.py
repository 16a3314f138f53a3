"""`rescheduler migrate-storage`: write stored objects again, in the storage version of their CRD."""
