"""Sizes of shards, deleted documents, segments."""

from __future__ import annotations

from collections.abc import Iterator

from app.inspection.findings import Bars, Finding, Severity, ok
from app.inspection.subject import Subject

_GB = 1 << 30
LARGE_GB, SMALL_GB = 50, 1
"""OpenSearch's own advice for shards of searches: 10 to 30 GB, never above 50."""
MANY = 3
"""Number of primary shards above which small ones cost more than they bring."""
_DELETED, _MUCH_DELETED = 0.1, 0.25
_SEGMENTS = 40
"""Segments of one shard: with vectors, each has a graph of its own, which is searched on its own."""
_SHOWN = 60
"""Shards in the plot."""


def check_storage(subject: Subject) -> Iterator[Finding]:
    """Yield whether shards are too large or too small, and whether deleted documents or segments slow searches."""
    answer = subject.reader.get(f"/{subject.path}/_stats/docs,store,segments", level="shards")
    primaries = {
        f"{index} {number}": copy
        for index, found in sorted(answer["indices"].items())
        for number, copies in sorted(found["shards"].items(), key=lambda item: int(item[0]))
        for copy in copies
        if copy["routing"]["primary"]
    }
    sizes = {name: copy["store"]["size_in_bytes"] / _GB for name, copy in primaries.items()}
    yield _sizes(sizes)
    live = sum(copy["docs"]["count"] for copy in primaries.values())
    deleted = sum(copy["docs"]["deleted"] for copy in primaries.values())
    share = deleted / max(1, live + deleted)
    if share > _DELETED:
        yield Finding(
            Severity.WARNING if share > _MUCH_DELETED else Severity.NOTE,
            "Deleted documents slow searches",
            f"{deleted:,} of {live + deleted:,} stored documents are deleted ({share:.0%}): they are scored past, stay "
            "in the vector graphs, and count in BM25's statistics",
            f"POST /{subject.name}/_forcemerge?only_expunge_deletes=true while little is written",
            {"live": live, "deleted": deleted},
        )
    else:
        yield ok("Few deleted documents", f"{deleted:,} of {live + deleted:,}", figures={"deleted": deleted})
    segments = {name: copy["segments"]["count"] for name, copy in primaries.items()}
    most = max(segments.values(), default=0)
    if subject.vector and most > _SEGMENTS:
        yield Finding(
            Severity.NOTE,
            "Many segments: many small vector graphs",
            f"up to {most} segments in a shard; k-NN searches the graph of each one",
            f"raise index.refresh_interval while loading; POST /{subject.name}/_forcemerge?max_num_segments=1 for an "
            "index that is no longer written",
            {"segments": segments},
        )


def _sizes(sizes: dict[str, float]) -> Finding:
    largest, total = max(sizes.values(), default=0.0), sum(sizes.values())
    mean = total / max(1, len(sizes))
    figures = {"primaries": len(sizes), "total_gb": round(total, 3), "largest_gb": round(largest, 3)}
    shown = dict(sorted(sizes.items(), key=lambda item: -item[1])[:_SHOWN])
    limits = {"too large": float(LARGE_GB)} if largest > LARGE_GB / 4 else {}
    plot = Bars("Primary shards by size", "GB", shown, limits) if len(sizes) > 1 else None
    told = f"primary shards: {len(sizes)} with {total:.2f} GB; the largest has {largest:.2f} GB"
    if largest > LARGE_GB:
        remedy = f"reindex into more shards, or roll over earlier: below {LARGE_GB} GB each"
        return Finding(Severity.WARNING, "A shard is too large", told, remedy, figures, plot)
    if len(sizes) > MANY and mean < SMALL_GB:
        return Finding(
            Severity.WARNING,
            "Many small shards",
            f"{told}, the mean is {mean:.2f} GB: each search asks them all, and BM25 and fusion work by shard",
            f"one shard holds up to {LARGE_GB} GB: _shrink the index, or reindex into fewer shards",
            figures,
            plot,
        )
    if len(sizes) > 1 and mean < SMALL_GB:
        remedy = "one shard would do: fewer requests a search, and one set of statistics for BM25 and fusion"
        return Finding(Severity.NOTE, "Small shards", told, remedy, figures, plot)
    return ok("No shard is too large", told, figures=figures, plot=plot)
