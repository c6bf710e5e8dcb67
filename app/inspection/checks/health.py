"""Health of the index, and versions of the nodes."""

from __future__ import annotations

from collections.abc import Iterator

from app.inspection.findings import Finding, Severity, ok
from app.inspection.subject import Subject
from app.store.capabilities import read_nodes


def check_health(subject: Subject) -> Iterator[Finding]:
    """Yield whether all shards are there."""
    health = subject.reader.get(f"/_cluster/health/{subject.path}", level="indices", timeout="1s")
    lacking = {
        name: int(found["number_of_shards"]) - int(found["active_primary_shards"])
        for name, found in health.get("indices", {}).items()
    }
    lacking = {name: count for name, count in lacking.items() if count}
    if health["status"] == "red" or lacking:
        named = ", ".join(f"{name} ({count} primary shards)" for name, count in lacking.items()) or subject.name
        yield Finding(
            Severity.CRITICAL,
            "The index is red: documents are missing from every answer",
            f"without an active primary: {named}",
            "GET /_cluster/allocation/explain says why; bring the node back, or restore a snapshot",
            {"status": "red", "missing": lacking},
        )
    elif health["status"] == "yellow":
        yield Finding(
            Severity.NOTE,
            "Replicas are not assigned",
            f"{health['unassigned_shards']} unassigned shards: one lost node may make the index red",
            "add a node, or set index.number_of_replicas to what the nodes can hold",
            {"status": "yellow"},
        )
    else:
        yield ok("All shards are assigned", f"active shards: {health['active_shards']}", figures={"status": "green"})


def check_versions(subject: Subject) -> Iterator[Finding]:
    """Yield whether all nodes have one version, and whether an older one made the index."""
    cluster = read_nodes(subject.reader)
    versions = cluster.versions
    lacking = [plugin for plugin in ("opensearch-knn", "opensearch-neural-search") if cluster.lacking(plugin)]
    if len(versions) > 1:
        yield Finding(
            Severity.WARNING,
            "Nodes of several versions",
            f"{', '.join(versions)}: a query's score depends on the node that computes it",
            "finish the upgrade",
            {"versions": versions},
        )
    if lacking:
        yield Finding(
            Severity.CRITICAL if "opensearch-knn" in lacking else Severity.WARNING,
            "A plugin is missing",
            f"not on all nodes: {', '.join(lacking)}",
            "install it on every node; hybrid queries need opensearch-neural-search",
            {"missing": lacking},
        )
    created = {
        index: found.get("index.version.created_string", "?") for index, found in sorted(subject.settings.items())
    }
    older = {index: made for index, made in created.items() if made.partition(".")[0] != versions[0].partition(".")[0]}
    if older:
        yield Finding(
            Severity.NOTE,
            "An older major version made the index",
            f"nodes have {versions[0]}; {', '.join(f'{index} was made by {made}' for index, made in older.items())}",
            "see the findings on scores; POST _reindex into a new index makes it anew",
            {"versions": versions, "created": created},
        )
    elif len(versions) == 1 and not lacking:
        yield ok("One version, all plugins", f"OpenSearch {versions[0]}", figures={"versions": versions})
