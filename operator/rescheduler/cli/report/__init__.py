"""`kubectl reschedule report`: a zip with what a bug report needs, and with nothing that could be a secret.

`redaction` decides what an object shows. Objects of others are built from a list of allowed fields, so that a field that
nobody thought of stays out. Never here: a Secret, the data of a ConfigMap, or a name of others as a path in the zip.
"""
