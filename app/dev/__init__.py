"""Processes that `braid up` starts and supervises on one machine: OpenSearch, Valkey, a language model, the service."""
