"""Export of the query log to a judged set in BEIR format, and to pairs for distillation.

The log is read in pages of distinct queries, in the order of their hashes, so that only a page, its newest results and
its votes are in memory, however long the log is.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from app import __version__
from app.errors import InvalidInput, NotFound
from app.store import query_log
from app.store.client import Cluster
from app.store.query_log import Vote

QUERIES, QRELS, PAIRS, META = "queries.jsonl", "qrels.tsv", "pairs.jsonl", "meta.json"

_ID_LENGTH = 32
"""Length of the exported query hash: still unique, and short enough for a table."""
_SCORES = ("rank", "score", "lexical", "dense", "fused")
_BREAKS_A_ROW = frozenset("\t\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")

Unit = Literal["document", "passage"]
Reason = Literal[
    "about-the-answer-as-a-whole", "query-not-logged", "query-hashed", "votes-tie", "too-few-votes", "unwritable-id"
]


@dataclass(slots=True)
class ExportReport:
    """Counts of an export; `dropped` counts feedback by the reason why it became no judgement."""

    queries: int = 0
    queries_without_text: int = 0
    judgements: int = 0
    relevant: int = 0
    pairs: int = 0
    feedback: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a JSON-serialisable dict."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"dropped": dict(self.dropped)}


def export(
    cluster: Cluster,
    tenant: str,
    folder: Path,
    *,
    since: datetime | None = None,
    min_votes: int = 1,
    unit: Unit = "document",
) -> ExportReport:
    """Write ``queries.jsonl``, ``qrels.tsv``, ``pairs.jsonl`` and ``meta.json`` into `folder`, all or none.

    Args:
        folder: created if it is missing; existing files of these names are replaced.
        since: use only feedback and queries from then on (a query judged since then counts, whatever its time).
        min_votes: judgements with fewer votes are dropped.

    Raises:
        NotFound: the log contains nothing of that tenant since then.
        InvalidInput: the folder can't be written.
        StoreError: OpenSearch is unavailable or rejected the request.
    """
    query_log.refresh(cluster)
    totals = query_log.statistics(cluster, tenant, since)
    if totals.queries + totals.feedback == 0:
        when = f" since {since:%Y-%m-%d}" if since is not None else ""
        raise NotFound(
            f"the query log contains nothing of tenant {tenant!r}{when}: searches fill it, unless BRAID_QUERY_LOG=off"
        )
    report = ExportReport(feedback=totals.feedback)
    _drop(report, "about-the-answer-as-a-whole", totals.feedback - totals.of_results)
    about = {
        "made_by": f"braid {__version__}",
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "tenant": tenant,
        "since": since.isoformat() if since is not None else None,
        "unit": unit,
        "min_votes": min_votes,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as made:
            with ExitStack() as stack:
                files = {name: stack.enter_context((Path(made) / name).open("wb")) for name in (QUERIES, QRELS, PAIRS)}
                files[QRELS].write(b"query-id\tcorpus-id\tscore\n")
                for query_hash, entry, votes in _queries(cluster, tenant, since):
                    _write(files, report, query_hash, entry, votes, min_votes, unit)
            meta = orjson.dumps({**about, **report.as_dict()}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
            (Path(made) / META).write_bytes(meta + b"\n")
            for name in (QUERIES, QRELS, PAIRS, META):
                (Path(made) / name).replace(folder / name)
    except OSError as error:
        raise InvalidInput(f"{folder}: it can't be written ({error.strerror}); pass another folder") from error
    return report


def count_votes(votes: Iterable[Vote], *, unit: Unit, min_votes: int = 1) -> tuple[dict[str, int], Counter[str]]:
    """Count the judgements of one query: id of the unit -> 1 (more relevant than irrelevant votes) or 0 (fewer).

    The second value is reason -> votes without a judgement: ``votes-tie`` for a tie, ``too-few-votes`` for too few
    votes.
    """
    balance: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for vote in votes:
        key = vote.document_id if unit == "document" else vote.result_id
        balance[key] += vote.count if vote.label == "relevant" else -vote.count
        given[key] += vote.count
    judged: dict[str, int] = {}
    dropped: Counter[str] = Counter()
    for key, count in given.items():
        if count < min_votes:
            dropped["too-few-votes"] += count
        elif balance[key] == 0:
            dropped["votes-tie"] += count
        else:
            judged[key] = int(balance[key] > 0)
    return judged, dropped


def pairs_of(entry: Mapping[str, Any], votes: Sequence[Vote], *, min_votes: int = 1) -> Iterator[dict[str, Any]]:
    """Yield a query with each of its known passages: its newest results, in order, then other judged ones.

    `label` is 1, 0 or null; `source` is ``feedback`` if there is any, else ``results``. Results have scores.
    """
    labels, _ = count_votes(votes, unit="passage", min_votes=min_votes)
    documents = {vote.result_id: vote.document_id for vote in votes}
    shown = {result["id"]: result for result in entry["results"]}
    for passage_id in dict.fromkeys([*shown, *labels]):
        result = shown.get(passage_id, {})
        label = labels.get(passage_id)
        yield {
            "query": entry["query"],
            "passage_id": passage_id,
            "document_id": result.get("document_id") or documents[passage_id],
            "label": label,
            "source": "results" if label is None else "feedback",
            **{name: result[name] for name in _SCORES if name in result},
        }


def _queries(
    cluster: Cluster, tenant: str, since: datetime | None
) -> Iterator[tuple[str, dict[str, Any] | None, list[Vote]]]:
    """Yield each distinct query with its newest entry (None: not logged) and the votes on its results."""
    for hashes in query_log.query_hashes(cluster, tenant, since):
        entries = query_log.newest_queries(cluster, tenant, hashes)
        said: dict[str, list[Vote]] = defaultdict(list)
        for query_hash, vote in query_log.votes(cluster, tenant, hashes, since):
            said[query_hash].append(vote)
        for query_hash in hashes:
            yield query_hash, entries.get(query_hash), said[query_hash]


def _write(
    files: Mapping[str, IO[bytes]],
    report: ExportReport,
    query_hash: str,
    entry: Mapping[str, Any] | None,
    votes: Sequence[Vote],
    min_votes: int,
    unit: Unit,
) -> None:
    items = sum(vote.count for vote in votes)
    if entry is None:
        _drop(report, "query-not-logged", items)
        return
    if "query" not in entry:
        report.queries_without_text += 1
        _drop(report, "query-hashed", items)
        return
    query_id = query_hash[:_ID_LENGTH]
    report.queries += 1
    files[QUERIES].write(orjson.dumps({"_id": query_id, "text": entry["query"]}) + b"\n")
    judged, dropped = count_votes(votes, unit=unit, min_votes=min_votes)
    report.dropped.update(dropped)
    for key, grade in judged.items():
        if not _BREAKS_A_ROW.isdisjoint(key):
            _drop(
                report, "unwritable-id", sum(vote.count for vote in votes if key in {vote.document_id, vote.result_id})
            )
            continue
        files[QRELS].write(f"{query_id}\t{key}\t{grade}\n".encode())
        report.judgements += 1
        report.relevant += grade
    for pair in pairs_of(entry, votes, min_votes=min_votes):
        files[PAIRS].write(orjson.dumps({"query_id": query_id, **pair}) + b"\n")
        report.pairs += 1


def _drop(report: ExportReport, reason: Reason, items: int) -> None:
    if items:
        report.dropped[reason] += items
