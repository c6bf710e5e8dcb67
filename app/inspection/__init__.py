"""Inspection of any hybrid index, Braid's or not: read-only checks, each with evidence and remedy."""
