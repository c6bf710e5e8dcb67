"""Memory of the vector graphs: whether they fit, and whether they are loaded."""

from __future__ import annotations

from collections.abc import Iterator

from app.inspection.fields import VectorField
from app.inspection.findings import Finding, Severity, ok
from app.inspection.subject import Subject

_NATIVE = frozenset({"faiss", "nmslib"})
"""Engines whose graphs lie outside the heap, in k-NN's cache. Lucene's lie in the page cache."""
_OVERHEAD = 1.1
"""OpenSearch's own estimate of a graph: 1.1 x (bytes of a vector + 8 x m) x vectors."""
_MB = 1 << 20


def graph_bytes(field: VectorField, vectors: int) -> float | None:
    """Return the estimated memory of an HNSW graph in bytes; None for trained encodings."""
    width = {"float": 4.0, "byte": 1.0, "binary": 0.125}[field.data_type]
    if "fp16" in field.encoder or field.encoder == "sq 16":
        width = 2.0
    elif field.encoder.startswith("quantised"):
        width /= float(field.encoder.split()[-1].rstrip("x"))
    elif field.encoder not in ("", "flat"):
        return None
    return None if field.method != "hnsw" else _OVERHEAD * (width * field.dimension + 8 * field.m) * vectors


def check_memory(subject: Subject) -> Iterator[Finding]:
    """Yield whether k-NN's cache holds the graphs. It must run before the checks that search: they load graphs."""
    field = subject.vector_field
    stats = subject.reader.get("/_plugins/_knn/stats")
    nodes = stats.get("nodes", {})
    if field.engine not in _NATIVE:
        yield ok("Graphs lie in the page cache", f"{field.described}: k-NN's own cache is not used")
        return
    loaded = {"graphs": 0, "kb": 0}
    for node in nodes.values():
        for index in subject.mappings:
            found = node.get("indices_in_cache", {}).get(index, {})
            loaded["graphs"] += int(found.get("graph_count", 0))
            loaded["kb"] += int(found.get("graph_memory_usage", 0))
    full = [name for name, node in nodes.items() if node.get("cache_capacity_reached")]
    evicted = sum(int(node.get("eviction_count", 0)) for node in nodes.values())
    usage = max((float(node.get("graph_memory_usage_percentage", 0.0)) for node in nodes.values()), default=0.0)
    estimated = graph_bytes(field, subject.vectors)
    figures = {
        "graphs_loaded": loaded["graphs"],
        "loaded_mb": round(loaded["kb"] / 1024, 3),
        "estimated_mb": None if estimated is None else round(estimated / _MB, 3),
        "cache_used_percent": usage,
        "evictions": evicted,
    }
    told = (
        f"{loaded['graphs']} graphs with {loaded['kb'] / 1024:.1f} MB are loaded"
        + (
            ""
            if estimated is None
            else f"; a full HNSW graph of {subject.vectors:,} vectors takes {estimated / _MB:.1f} MB"
        )
        + f"; the cache is used to {usage:.0f} %, {evicted} evictions"
    )
    if stats.get("circuit_breaker_triggered") or full:
        yield Finding(
            Severity.CRITICAL,
            "The memory of vector graphs is exhausted",
            f"{told}; " + (f"{len(full)} nodes reached the capacity of the cache" if full else "the breaker is open"),
            "raise knn.memory.circuit_breaker.limit or add memory or nodes; fp16 or on-disk vectors need half or less",
            figures,
        )
    elif evicted:
        remedy = "raise knn.memory.circuit_breaker.limit, or knn.cache.item.expiry.minutes where idle graphs expire"
        yield Finding(Severity.WARNING, "Vector graphs were evicted and loaded again", told, remedy, figures)
    elif loaded["graphs"] == 0 and subject.vectors:
        yield Finding(
            Severity.NOTE,
            "The vector graphs are not loaded",
            f"{told}: the first queries read them from disk, or there are none and each search is exact",
            f"GET /_plugins/_knn/warmup/{subject.name} after each start and force merge",
            figures,
        )
    else:
        yield ok("Vector graphs are in memory", told, figures=figures)
