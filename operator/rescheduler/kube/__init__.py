"""Everything that talks to the API server. Only this package imports a client.

Bodies stay raw JSON on the way in: typed client models cost twenty times the parsing, and raise on what a newer
server adds.
"""
