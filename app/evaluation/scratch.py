"""Scratch indexes: an evaluation's own index, filled by the normal ingest, searched by the normal queries.

It is named ``braid-evaluation-<set>-<recipe>``. The recipe is a digest of everything that determines the stored
content, so that different chunking or models never share an index, and an interrupted run resumes.
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
from app.ingest.cutting import Encoder, recipe
from app.ingest.progress import IngestProgress
from app.ingest.run import IngestOptions, ingest_paths
from app.ingest.run_report import IngestReport
from app.store.client import Cluster
from app.store.heads import ensure_index
from app.store.rendering import RenderedResources, compose
from app.store.similarity import set_similarity
from app.tuning import Bm25

PREFIX = "braid-evaluation-"


@dataclass(frozen=True, slots=True)
class ScratchIndex:
    """A filled index: the cluster's view of it, and the report of the ingest."""

    cluster: Cluster
    index: str
    report: IngestReport

    def similarity(self, bm25: Bm25) -> None:
        """Change its BM25 parameters; the index is closed meanwhile, as only a scratch index may
        be. Raises StoreError.
        """
        set_similarity(self.cluster, self.index, bm25)

    def drop(self) -> None:
        """Remove the index."""
        self.cluster.request("DELETE", f"/{self.index},{self.cluster.heads_index}")


def prepare(
    judged: JudgedSet,
    *,
    settings: Settings,
    cluster: Cluster,
    rendered: RenderedResources,
    encoder: Encoder,
    whole: bool,
    progress: IngestProgress,
) -> ScratchIndex:
    """Create the index of a set if it is missing, and ingest the corpus; documents that are already there are skipped.

    Args:
        judged: with a corpus.
        rendered: fields and settings of the service's own index, which the scratch index shares.
        whole: each row is one passage (as in published figures); otherwise rows are chunked like documents.

    Raises:
        InvalidInput: the set has no corpus, or none of it could be stored.
        StoreError, EncoderError: as `ingest_paths`.
    """
    if judged.corpus is None:
        raise InvalidInput(f"the set {judged.name!r} has no corpus.jsonl: it is judged against the store's content")
    body = compose(rendered)
    body["settings"]["index"]["number_of_replicas"] = 0
    alias = _alias(judged, settings, encoder, whole, body)
    index = f"{alias}-000001"
    if not _exists(cluster, index):
        cluster.request("PUT", f"/{index}", body={**body, "aliases": {alias: {"is_write_index": True}}})
    own = cluster.within(alias)
    ensure_index(own)
    # documents that left the corpus since the index was kept leave the index, too
    options = IngestOptions(source_id="evaluation", whole=whole, tagging=False, sync=True)
    report = ingest_paths(
        [judged.corpus], settings=settings, cluster=own, encoder=encoder, options=options, progress=progress
    )
    if not report.passages and not report.unchanged:
        reason = report.failed[0].detail if report.failed else "it is empty"
        raise InvalidInput(f"no document of {judged.corpus.name} could be stored: {reason}")
    return ScratchIndex(own, index, report)


def _alias(judged: JudgedSet, settings: Settings, encoder: Encoder, whole: bool, body: dict[str, Any]) -> str:
    assert judged.corpus is not None  # noqa: S101 - checked by the caller
    # tuning changes the similarity
    index = {name: value for name, value in body["settings"]["index"].items() if name != "similarity"}
    made_by = "|".join(
        (
            str(judged.corpus.resolve()),
            recipe(settings, encoder, tagging=False),
            f"{whole} {settings.access.tenant}",
            orjson.dumps([index, body["mappings"]], option=orjson.OPT_SORT_KEYS).decode(),
        )
    )
    name = re.sub(r"[^a-z0-9]+", "-", judged.name.lower()).strip("-")[:40] or "set"
    return f"{PREFIX}{name}-{hashlib.sha256(made_by.encode()).hexdigest()[:10]}"


def _exists(cluster: Cluster, index: str) -> bool:
    rows = cluster.request("GET", f"/_cat/indices/{PREFIX}*", params={"format": "json", "h": "index"})
    return any(row["index"] == index for row in rows)
