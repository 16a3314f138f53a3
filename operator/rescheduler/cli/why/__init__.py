"""`kubectl reschedule why`: what a drain does, or would do, with one pod. Sentences are in `messages.py`."""
