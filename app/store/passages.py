"""Stored form of a passage: written and read by the table of its fields (`app.passage.FIELDS`)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from app.passage import FIELDS, Hit, Passage

TOKEN_VECTORS = "token_vectors"  # noqa: S105 - not a secret
"""Packed vectors of a passage's tokens: doc values only, outside `_source`."""
READ_FIELDS = tuple(name for name, stored in FIELDS.items() if stored.returned or stored.internal)
"""Fields that searches read."""

_STORED = {name: stored for name, stored in FIELDS.items() if stored.in_source}
_ABSENT = {name: stored.absent for name, stored in _STORED.items()}
_ABSENT_FROM_HIT = {name: _ABSENT[name] for name in READ_FIELDS}
_OPTIONAL = tuple(name for name, stored in _STORED.items() if stored.optional)
_MANY = tuple(name for name, stored in _STORED.items() if stored.many)
_MANY_IN_HIT = tuple(name for name in _MANY if name in READ_FIELDS)


def source_of(passage: Passage) -> dict[str, Any]:
    """Return the `_source` of a passage, for orjson (including numpy arrays)."""
    source = {name: getattr(passage, name) for name in _STORED}
    for name in _OPTIONAL:
        if source[name] in (None, (), ""):
            del source[name]
    if passage.embedding is not None:
        # as float32 the shortest text that reads back the same: half the bytes of a float64's
        source["embedding"] = np.asarray(passage.embedding, dtype=np.float32)
    if passage.token_vectors is not None:
        source[TOKEN_VECTORS] = base64.b64encode(passage.token_vectors).decode()
    return source


def read_passage(raw: Mapping[str, Any]) -> Passage:
    """Return the passage of a search hit as it was written, with the requested vectors."""
    source = raw["_source"]
    fields = {name: source.get(name, absent) for name, absent in _ABSENT.items()}
    _make_tuples(fields, _MANY)
    embedding = source.get("embedding")
    return Passage(
        id=raw["_id"],
        embedding=tuple(embedding) if embedding is not None else None,
        token_vectors=read_token_vectors(raw),
        **fields,
    )


def read_hit(raw: Mapping[str, Any], score: float) -> Hit:
    """Return the passage of a search hit that has `READ_FIELDS` or some of them."""
    fields = {**_ABSENT_FROM_HIT, **raw["_source"], "id": raw["_id"], "score": score}
    fields.pop("embedding", None)
    _make_tuples(fields, _MANY_IN_HIT)
    return Hit(**fields)


def shown_fields(source: Mapping[str, Any], *, per_passage: bool) -> dict[str, Any]:
    """Return the fields of a stored passage for answers: those of the passage itself, or those of its document."""
    return {
        name: source.get(name, stored.absent)
        for name, stored in _STORED.items()
        if stored.returned and stored.per_passage == per_passage
    }


def read_token_vectors(raw: Mapping[str, Any]) -> bytes | None:
    """Return the packed token vectors of a hit, if requested and available."""
    packed = next(iter(raw.get("fields", {}).get(TOKEN_VECTORS, ())), None)
    # doc values have no padding
    return base64.b64decode(packed + "=" * (-len(packed) % 4)) if packed is not None else None


def _make_tuples(fields: dict[str, Any], names: Iterable[str]) -> None:
    """Make the fields tuples; OpenSearch returns a list, one value or null, as it was sent."""
    for name in names:
        value = fields[name]
        if isinstance(value, list):
            fields[name] = tuple(value)
        elif not isinstance(value, tuple):
            fields[name] = () if value is None else (value,)
