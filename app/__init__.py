"""Braid: retrieval-augmented generation on one OpenSearch cluster."""

import os

# BLAS threads do not speed up products of small matrices, and they spin between them: a search with reranking took 72
# ms of processor time with them and 13 ms without. Read once, when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.2.0"
