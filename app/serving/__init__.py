"""Use cases: everything that one call does, from the cache to the log."""
