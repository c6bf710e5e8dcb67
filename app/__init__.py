"""Braid: retrieval-augmented generation on one OpenSearch cluster."""

__version__ = "0.1.0"
