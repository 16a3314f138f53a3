"""All access to the API server: connections, requests, informers, Leases and Events.

May import: `core` and `api`. Only this package and `cli` import a client library. Never here: a decision about a node
or a pod.

Response bodies stay raw JSON. Typed client models cost twenty times the parsing, and they raise on fields that a newer
server adds.
"""
