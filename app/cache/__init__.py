"""Caches of answers, query vectors and reranker scores, in Redis and in the process."""
