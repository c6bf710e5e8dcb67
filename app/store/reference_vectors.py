"""Reference vectors in the cluster: what an embedding model made of a few fixed texts when its index was made.

They are stored, as tunings are, in the ``_meta`` of a component template that no index uses: every service sees them at
once, and they survive the loss of any index. `serving.reference_check` defines their meaning.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from app.errors import StoreNotReady
from app.passage import embedding_text
from app.store.client import Cluster, find

Vectors = npt.NDArray[np.float32]

_PATH = "/_component_template"
_SAMPLE = 4


def template_name(model: str) -> str:
    """Return the component template of a model; names of models have characters that names of templates lack."""
    return f"braid-reference-{hashlib.sha256(model.encode()).hexdigest()[:12]}"


def read(cluster: Cluster, model: str) -> Vectors | None:
    """Return the vectors kept for a model, shape (n, dimension); None if there are none.

    Raises:
        StoreNotReady: the kept ones are unusable.
        StoreError: the cluster does not answer.
    """
    name = template_name(model)
    answer = find(cluster, f"{_PATH}/{name}", params={"local": "true"})
    if answer is None:
        return None
    meta = answer["component_templates"][0]["component_template"].get("_meta", {})
    try:
        rows = [np.frombuffer(base64.b64decode(text, validate=True), "<f4") for text in meta["vectors"]]
        vectors = np.stack(rows).astype(np.float32)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise StoreNotReady(
            f"component template {name} holds no reference vectors of {model!r}: delete it, and run "
            "`braid templates apply`"
        ) from error
    return vectors


def write(cluster: Cluster, model: str, vectors: Vectors) -> None:
    """Keep the vectors of a model, shape (n, dimension), in place of earlier ones. Raises StoreError."""
    meta = {
        "managed_by": "braid",
        "version": 1,
        "embedding_model": model,
        "vectors": [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors],
    }
    cluster.request("PUT", f"{_PATH}/{template_name(model)}", body={"template": {}, "_meta": meta})


def sample(cluster: Cluster, model: str) -> list[tuple[str, Vectors]]:
    """Return up to four stored passages of a model: the embedded text and its vector. Raises StoreError.

    Of any tenant and reader: they are compared in this process, and no caller sees them.
    """
    body = {
        "size": _SAMPLE,
        "query": {"term": {"embedding_model": model}},
        "_source": ["title", "section_heading", "text", "embedding"],
        "track_total_hits": False,
    }
    params = {"ignore_unavailable": "true"}  # before the first index there is no alias
    answer = cluster.request("POST", f"/{cluster.read_alias}/_search", params=params, body=body)
    return [
        (_embedded_text(hit["_source"]), np.asarray(hit["_source"]["embedding"], np.float32))
        for hit in answer["hits"]["hits"]
    ]


def _embedded_text(source: Mapping[str, Any]) -> str:
    return embedding_text(*(str(source.get(name) or "") for name in ("title", "section_heading", "text")))
