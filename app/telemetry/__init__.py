"""Prometheus metrics: the one table of their names, from which docs/metrics.md is made."""

from prometheus_client import Counter, Gauge, Histogram

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
RATE_LIMITED = Counter("rate_limited_total", "Requests rejected by a rate limit: of the caller or the tenant.", ["of"])
RATE_LIMIT_CHECKS = Counter(
    "rate_limit_checks_total", "Requests counted against a rate limit: in redis, or in this process alone.", ["store"]
)
AUDIT_LINES = Counter("audit_lines_total", "Lines of the audit log: written, failed.", ["outcome"])
CACHE_REQUESTS = Counter("cache_requests_total", "Cache look-ups.", ["cache", "outcome"])
QUERY_LOG = Counter(
    "query_log_total",
    "Queries for the query log: written, dropped by a full queue, failed by OpenSearch.",
    ["outcome"],
)
DEGRADED_REQUESTS = Counter("degraded_requests_total", "Answers without a stage.", ["stage", "reason"])
SEARCH_WAYS = Counter(
    "search_ways_total",
    "Searches by the way they took; early: why the other leg was skipped (code, lead).",
    ["way", "early"],
)
STORE_RETRIES = Counter("store_retries_total", "Requests to OpenSearch that were sent again.")
BREAKER_STATE = Gauge(
    "breaker_state",
    "Circuit breakers of the parts: 0 closed, 0.5 trying, 1 open; the worst of the workers.",
    ["part"],
    multiprocess_mode="livemax",
)
BREAKER_OPENED = Counter("breaker_opened_total", "Times that a part became unavailable.", ["part"])
ADMISSION_IN_FLIGHT = Gauge("admission_in_flight", "Running requests.", ["work"], multiprocess_mode="livesum")
ADMISSION_WAITING = Gauge("admission_waiting", "Waiting requests.", ["work"], multiprocess_mode="livesum")
ADMISSION_REFUSED = Counter(
    "admission_refused_total",
    "Rejected requests (429): queue-full, share (of one caller), too-late, backlog (waited for a thread).",
    ["work", "reason"],
)
WRITE_BOUNDS_HELD = Gauge(
    "write_bounds_held",
    "Parts of limits that are held: writes, body bytes in memory, jobs, spool bytes on disk, answers of the model.",
    ["of"],
    multiprocess_mode="livesum",
)
INGEST_PASSAGES = Counter("ingest_passages_total", "Passages embedded for documents that came over HTTP.")
JOBS = Counter("jobs_total", "Jobs that ended: done, failed, lost (the service was stopped).", ["state"])
ADMISSION_WAIT = Histogram(
    "admission_wait_seconds", "Time that requests waited for a slot.", ["work"], buckets=_SECONDS
)
FLAG_SETS = Counter(
    "flag_sets_total",
    "Sets of feature flags: applied, refused (invalid; the previous ones stay).",
    ["outcome"],
)
