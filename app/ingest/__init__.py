"""Ingestion: from sources and files to passages, and the protocol by which they are written."""
