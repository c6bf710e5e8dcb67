"""Metric names, in one documented place. No logic lives here."""

from prometheus_client import Counter, Histogram

_SECONDS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.35,
    0.5,
    0.75,
    1,
    2,
    5,
    10,
    30,
    60,
)

QUERY_ENCODE = Histogram("query_encode_latency_seconds", "Embedding one query.", buckets=_SECONDS)
LEXICAL_SEARCH = Histogram(
    "lexical_search_latency_seconds", "The BM25 leg sent alone, as the service saw it.", buckets=_SECONDS
)
VECTOR_SEARCH = Histogram(
    "vector_search_latency_seconds", "The k-NN leg sent alone, as the service saw it.", buckets=_SECONDS
)
HYBRID_SEARCH = Histogram(
    "hybrid_search_latency_seconds", "Both legs and their fusion, native or side by side.", buckets=_SECONDS
)
RERANK = Histogram("rerank_latency_seconds", "Reranking one request's candidates.", buckets=_SECONDS)
GENERATION = Histogram("generation_latency_seconds", "From the prompt to the last token.", buckets=_SECONDS)
REQUEST = Histogram(
    "request_latency_seconds",
    "One HTTP request, to the last byte of its answer.",
    ["route", "status"],
    buckets=_SECONDS,
)
FUSION_WEIGHTS = Counter("fusion_weights_total", "Linear fusions, by where their weight came from.", ["source"])
FUSION_DENSE_SHARE = Histogram(
    "fusion_dense_share",
    "The dense share of each linear fusion.",
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
STAGE_REQUESTS = Counter("stage_requests_total", "Stages that ran.", ["stage", "outcome"])
RERANK_ERRORS = Counter("rerank_errors_total", "Rerank stages that failed.")
RERANK_STOPS = Counter(
    "rerank_stops_total",
    "Rerank stages by why they ended: complete, deadline, bound, threshold, error.",
    ["reason"],
)
CACHE_REQUESTS = Counter("cache_requests_total", "Cache look-ups.", ["cache", "outcome"])
QUERY_LOG = Counter(
    "query_log_total",
    "Queries for the query log: written, dropped by a full queue, failed by OpenSearch.",
    ["outcome"],
)
DEGRADED_REQUESTS = Counter("degraded_requests_total", "Answers that went without a stage.", ["stage", "reason"])
