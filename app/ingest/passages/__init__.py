"""Passages of a document: cutting and tagging."""
