"""The index that an evaluation has to itself: filled by the normal ingest, searched by the normal queries.

It is named ``braid-evaluation-<set>-<recipe>``: the recipe is a digest of all that decides what is stored, so that two
ways of cutting or two models never share an index, and a run that broke off goes on where it was.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import orjson

from app.config import Settings
from app.errors import InvalidInput
from app.evaluation.dataset import JudgedSet
from app.ingest.documents import Encoder, recipe
from app.ingest.progress import IngestProgress
from app.ingest.report import IngestReport
from app.ingest.run import IngestOptions, ingest_paths
from app.store.client import Cluster
from app.store.heads import ensure_index
from app.store.rendering import Rendered, composed
from app.store.similarity import set_similarity
from app.tuning import Bm25

PREFIX = "braid-evaluation-"


@dataclass(frozen=True, slots=True)
class Scratch:
    """A filled index: the cluster's view of it, and what the ingest reported."""

    cluster: Cluster
    index: str
    report: IngestReport

    def similarity(self, bm25: Bm25) -> None:
        """Give it other BM25 parameters; it is closed meanwhile, as only a scratch index may be. Raises StoreError."""
        set_similarity(self.cluster, self.index, bm25)

    def drop(self) -> None:
        """Remove it."""
        self.cluster.request("DELETE", f"/{self.index},{self.cluster.heads_index}")


def prepare(
    judged: JudgedSet,
    *,
    settings: Settings,
    cluster: Cluster,
    rendered: Rendered,
    encoder: Encoder,
    whole: bool,
    progress: IngestProgress,
) -> Scratch:
    """Create the index of a set where there is none, and bring the corpus in; what is there already is skipped.

    Args:
        judged: with a corpus.
        settings: of cutting and embedding; the service's own.
        cluster: where it is made.
        rendered: fields and settings of the service's own index, which it gets too.
        encoder: of the passages.
        whole: each row is one passage (as published figures are measured), else rows are cut as documents are.
        progress: told of documents.

    Raises:
        InvalidInput: the set has no corpus, or none of it could be stored.
        StoreError, EncoderError: as `ingest_paths`.
    """
    if judged.corpus is None:
        raise InvalidInput(f"the set {judged.name!r} has no corpus.jsonl: it is judged against what the store holds")
    body = composed(rendered)
    body["settings"]["index"]["number_of_replicas"] = 0
    alias = _alias(judged, settings, encoder, whole, body)
    index = f"{alias}-000001"
    if not _exists(cluster, index):
        cluster.request("PUT", f"/{index}", body={**body, "aliases": {alias: {"is_write_index": True}}})
    own = cluster.within(alias)
    ensure_index(own)
    # what left the corpus since the index was kept leaves the index too
    options = IngestOptions(source_id="evaluation", whole=whole, tagging=False, sync=True)
    report = ingest_paths(
        [judged.corpus], settings=settings, cluster=own, encoder=encoder, options=options, progress=progress
    )
    if not report.passages and not report.unchanged:
        raise InvalidInput(f"no document of {judged.corpus.name} could be stored: {_first_reason(report)}")
    return Scratch(own, index, report)


def _alias(judged: JudgedSet, settings: Settings, encoder: Encoder, whole: bool, body: dict[str, Any]) -> str:
    assert judged.corpus is not None  # noqa: S101 - checked by the caller
    index = {name: value for name, value in body["settings"]["index"].items() if name != "similarity"}  # it is tuned
    made_by = "|".join(
        (
            str(judged.corpus.resolve()),
            recipe(settings, encoder, tagging=False),
            f"{whole} {settings.tenant}",
            orjson.dumps([index, body["mappings"]], option=orjson.OPT_SORT_KEYS).decode(),
        )
    )
    name = re.sub(r"[^a-z0-9]+", "-", judged.name.lower()).strip("-")[:40] or "set"
    return f"{PREFIX}{name}-{hashlib.sha256(made_by.encode()).hexdigest()[:10]}"


def _exists(cluster: Cluster, index: str) -> bool:
    rows = cluster.request("GET", f"/_cat/indices/{PREFIX}*", params={"format": "json", "h": "index"})
    return any(row["index"] == index for row in rows)


def _first_reason(report: IngestReport) -> str:
    return report.failed[0].detail if report.failed else "it is empty"
