"""Prometheus metrics of the reranker: the one table of their names, from which docs/metrics.md is made."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 10, 30)

QUEUE = Histogram("reranker_queue_seconds", "One call waiting for other callers' work.", buckets=_SECONDS)
TOKENIZE = Histogram("reranker_tokenize_seconds", "Tokenising one call's pairs.", buckets=_SECONDS)
COMPUTE = Histogram("reranker_compute_seconds", "The batches that one call's pairs were in.", buckets=_SECONDS)
CALLS = Counter(
    "reranker_calls_total", "Calls of the scheduler: scored, overloaded, deadline, failed, too_long.", ["outcome"]
)
PAIRS = Counter("reranker_pairs_total", "Pairs: scored, or abandoned (late, failed).", ["outcome"])
TRUNCATED = Counter("reranker_truncated_documents_total", "Documents that were cut.")
PENDING = Gauge("reranker_pending_pairs", "Pairs admitted and not yet scored.", multiprocess_mode="livesum")
BATCH_PAIRS = Histogram("reranker_batch_pairs", "Pairs of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024))
BATCH_CALLERS = Histogram(
    "reranker_batch_callers", "Callers whose pairs share a batch.", buckets=(1, 2, 3, 4, 8, 16, 32)
)
BATCH_TOKENS = Counter(
    "reranker_batch_tokens_total", "Tokens that went through the model: of pairs, and as padding.", ["kind"]
)
REQUEST = Histogram(
    "reranker_request_seconds", "One HTTP request of the reranker's server.", ["route", "status"], buckets=_SECONDS
)
