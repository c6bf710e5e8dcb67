"""What a developer's machine runs in place of production's servers: a real OpenSearch, a real Valkey, real models.

Used by the command line and the tests only; in production all of these are somebody else's.
"""
