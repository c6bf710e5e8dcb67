"""The Haystack side of `hybrid.py`, in an environment of its own: reads a query a line, writes milliseconds and ids."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import harness
from haystack import Document, component
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.components.retrievers.opensearch import OpenSearchHybridRetriever
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore

from app.config import load_settings
from app.embedding.encoder import Encoder, load_encoder


@component
class Embedder:
    """Braid's own encoder as a Haystack component: both sides embed the query alike."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        return {"embedding": self._encoder.encode_query(text).tolist()}


def main() -> None:
    url, name, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    encoder = load_encoder(load_settings())
    store = OpenSearchDocumentStore(
        hosts=url,
        index="haystack",
        embedding_dim=encoder.dimension,
        method={"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
        settings={"index.knn": True, "number_of_shards": 1, "number_of_replicas": 0},
    )
    rows = harness.corpus(name)
    texts = [" ".join(part for part in (row.get("title", ""), row["text"]) if part) for row in rows]
    documents = []
    for start in range(0, len(rows), 256):
        vectors = encoder.encode_passages(texts[start : start + 256])
        for row, text, vector in zip(rows[start:], texts[start : start + 256], vectors, strict=False):
            documents.append(Document(id=row["_id"], content=text, embedding=vector.tolist()))
    store.write_documents(documents, policy=DuplicatePolicy.OVERWRITE)
    retriever = OpenSearchHybridRetriever(
        document_store=store, embedder=Embedder(encoder), top_k_bm25=100, top_k_embedding=100, top_k=size
    )
    print(json.dumps({"documents": store.count_documents()}), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        found = retriever.run(query=json.loads(line))["documents"]
        print(json.dumps([(time.perf_counter() - started) * 1000, [document.id for document in found]]), flush=True)


if __name__ == "__main__":
    main()
