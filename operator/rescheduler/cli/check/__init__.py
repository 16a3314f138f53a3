"""`kubectl reschedule check`: what on this cluster would hinder a drain, before anything is installed.

`cluster_facts` reads, with the rights of the user. The other modules are pure: facts in, findings out. Every sentence
is in `messages.py`. Never here: a write, or an analysis that asks the API server.
"""
