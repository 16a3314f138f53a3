"""Rescheduler: moves pods off nodes that failed or are due for maintenance."""
