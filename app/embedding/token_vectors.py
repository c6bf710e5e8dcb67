"""Compression of a passage's token vectors to a few kilobytes, and MaxSim over them: late interaction without a second
model.

The score is that of ColBERT (Khattab and Zaharia, SIGIR 2020): each token of the query takes its best cosine among the
tokens of the passage, and the weighted mean of these is the passage's score. The vectors are the embedding model's own
last hidden state, so ingest and search get them from the inference that they run anyway. They are stored after a
learned linear projection to fewer dimensions, without insignificant tokens (stop words, punctuation, special tokens),
with a few bits per number. Projection, levels and token weights are learned for one embedding model
(`braid calibrate`) and are useless for another; measurements: docs/late-interaction.md.

Packed bytes of a passage: `_HEADER` (magic, format, projection, number of vectors), then the codes, each vector in
``dimension * bits / 8`` bytes, the first dimension of a byte in its lowest bits. Bytes of another format or projection,
or of another length than the header says, count as missing; they raise no error.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.calibration import Calibration
from app.errors import ConfigurationError

Vectors = npt.NDArray[np.float32]
TokenIds = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

MAX_VECTORS = 65_535

_FORMAT = 1
_HEADER = struct.Struct("<2sB8sH")  # magic, format, projection id, vectors
_MAGIC: Final = b"BT"


@dataclass(frozen=True, slots=True)
class QueryTokens:
    """Projected unit vectors of a query's tokens, shape (n, dimension), and their weights, shape (n,), sum 1."""

    vectors: Vectors
    weights: Vectors


@dataclass(frozen=True, slots=True, eq=False)
class TokenVectors:
    """Packs, reads and scores token vectors of one embedding model. Immutable, so thread-safe.

    `projection` has shape (width of the model, dimension). A stored number is ``levels[code] * scale[dimension]``.
    `query_weights` and `kept` are indexed by token id: the token's weight in a query (0 leaves it out), and whether a
    passage keeps its vectors. `weight` (share of MaxSim in the final score) and `depth` (number of candidates) are the
    best measured settings; `about` describes its making.
    """

    projection: Vectors
    scale: Vectors
    levels: Vectors
    query_weights: Vectors
    kept: npt.NDArray[np.bool_]
    bits: int
    weight: float
    depth: int
    about: dict[str, Any]
    id: bytes
    _table: npt.NDArray[Any] = field(init=False, repr=False)
    _bounds: Vectors = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_table", _byte_table(self.levels, self.bits))
        object.__setattr__(self, "_bounds", (self.levels[1:] + self.levels[:-1]) / 2)

    @property
    def width(self) -> int:
        """Dimensions of the model's hidden state."""
        return int(self.projection.shape[0])

    @property
    def dimension(self) -> int:
        """Dimensions of a stored vector."""
        return int(self.projection.shape[1])

    @property
    def vector_bytes(self) -> int:
        """Bytes of a stored vector."""
        return self.dimension * self.bits // 8

    def pack(self, hidden: Vectors, tokens: TokenIds) -> bytes:
        """Return a passage's token vectors as bytes.

        Args:
            hidden: shape (n, width), the model's last hidden state without padding.
            tokens: shape (n,), the token ids. Ids unknown to the tables are kept.

        Raises:
            ValueError: the shapes do not match each other or the model.
        """
        vectors = self._project(hidden, tokens)
        kept = _lookup(self.kept, tokens, unknown=True)
        if kept.any():  # a text of stop words only keeps them all
            vectors = vectors[kept]
        vectors = vectors[:MAX_VECTORS]
        codes = np.searchsorted(self._bounds, vectors / self.scale).astype(np.uint8)
        header = _HEADER.pack(_MAGIC, _FORMAT, self.id, len(vectors))
        return header + _pack_codes(codes, self.bits).tobytes()

    def reads(self, packed: bytes | None) -> bool:
        """Return whether the bytes are a passage's, packed by this codec."""
        return self._codes(packed) is not None

    def unpack(self, packed: bytes | None) -> Vectors | None:
        """Return the stored vectors, shape (n, dimension), of about unit length; None if the bytes are not of this
        codec.
        """
        codes = self._codes(packed)
        if codes is None:
            return None
        vectors: Vectors = self._values(codes) * self.scale
        return vectors

    def query(self, hidden: Vectors, tokens: TokenIds) -> QueryTokens:
        """Return the query for `score`; arguments and errors as `pack`."""
        vectors = self._project(hidden, tokens)
        weights = _lookup(self.query_weights, tokens, unknown=float(self.query_weights.max()))
        if not weights.any():  # a query of punctuation only
            weights = np.ones_like(weights)
        used = weights > 0
        shares: Vectors = (weights[used] / max(float(weights.sum()), 1e-9)).astype(np.float32)
        return QueryTokens(vectors[used], shares)

    def score(self, query: QueryTokens, packed: Sequence[bytes | None]) -> Vectors:
        """Return MaxSim of each passage, shape (n,), about -1..1; NaN if the bytes are missing or not of this codec."""
        scores = np.full(len(packed), np.nan, np.float32)
        found = {place: part for place, item in enumerate(packed) if (part := self._codes(item)) is not None}
        scores[list(found)] = 0.0  # without tokens nothing is similar
        there = [place for place, part in found.items() if len(part)]
        if not there or not len(query.weights):
            return scores
        codes = [found[place] for place in there]
        starts = np.cumsum([0, *(len(part) for part in codes[:-1])])
        similar = self._values(np.concatenate(codes)) @ (query.vectors * self.scale).T
        scores[there] = np.maximum.reduceat(similar, starts, axis=0) @ query.weights
        return scores

    def _project(self, hidden: Vectors, tokens: TokenIds) -> Vectors:
        if hidden.ndim != 2 or hidden.shape[1] != self.width or tokens.shape != hidden.shape[:1]:
            raise ValueError(
                f"token vectors of shape {hidden.shape} with ids of shape {tokens.shape} do not match a projection "
                f"of {self.width} dimensions: it is of another embedding model"
            )
        return _unit(hidden.astype(np.float32, copy=False) @ self.projection)

    def _codes(self, packed: bytes | None) -> Codes | None:
        """Return the bytes of the vectors, shape (n, vector_bytes), or None."""
        if packed is None or len(packed) < _HEADER.size:
            return None
        magic, version, projection, count = _HEADER.unpack_from(packed)
        known = (magic, version, projection) == (_MAGIC, _FORMAT, self.id)
        if not known or len(packed) != _HEADER.size + count * self.vector_bytes:
            return None
        return np.frombuffer(packed, np.uint8, offset=_HEADER.size).reshape(count, self.vector_bytes)

    def _values(self, codes: Codes) -> Vectors:
        """Return the numbers before scaling: (n, vector_bytes) -> (n, dimension)."""
        values: Vectors = self._table[codes].view(np.float32)
        return values


def token_vectors_for(calibration: Calibration | None, width: int) -> TokenVectors | None:
    """Return the codec of an embedding model; None if its calibration has no projection.

    Args:
        calibration: the model's; its precisions share a projection.
        width: dimensions of the model's hidden state, `Encoder.dimension`; another width means another model.

    Raises:
        ConfigurationError: the file for the model is unusable.
    """
    if calibration is None or calibration.token_projection is None:
        return None
    codec = read_projection(calibration.token_projection)
    return codec if codec.width == width else None


@cache
def read_projection(path: Path) -> TokenVectors:
    """Return the codec in a file. Raises ConfigurationError if it is unusable."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(bytes(arrays["about"]).decode())
            content = {name: arrays[name] for name in ("projection", "scale", "levels", "query_weights", "kept")}
        return make_codec(**content, **{name: about.pop(name) for name in ("weight", "depth")}, about=about)
    except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigurationError(
            f"{path} is not a usable token projection ({type(error).__name__}: {error}): make the calibration again "
            f"with `braid calibrate`, or reinstall Braid if it is a shipped one"
        ) from error


def make_codec(
    *,
    projection: npt.NDArray[Any],
    scale: npt.NDArray[Any],
    levels: npt.NDArray[Any],
    query_weights: npt.NDArray[Any],
    kept: npt.NDArray[Any],
    weight: float,
    depth: int,
    about: dict[str, Any],
) -> TokenVectors:
    """Create a codec from its arrays (see `TokenVectors`), with an id that depends on everything that affects the
    bytes.

    Raises:
        ValueError: the arrays do not match each other.
    """
    dimension = projection.shape[1] if projection.ndim == 2 else 0
    bits = {2: 1, 4: 2, 16: 4, 256: 8}.get(levels.size)
    fits = (
        bits is not None
        and dimension > 0
        and dimension * bits % 8 == 0
        and scale.shape == (dimension,)
        and (np.diff(levels.astype(np.float64)) > 0).all()
        and query_weights.shape == kept.shape
        and query_weights.ndim == 1
        and query_weights.size > 0
        and all(np.isfinite(values).all() for values in (projection, scale, levels, query_weights))
        and (scale > 0).all()
        and (query_weights >= 0).all()
        and 0 <= weight <= 1
        and depth > 0
    )
    if not fits or bits is None:
        raise ValueError("projection, scale, levels and tables of a token projection do not match each other")
    digest = hashlib.sha256()
    for values in (projection, scale, levels):
        digest.update(np.ascontiguousarray(values, "<f4").tobytes())
    return TokenVectors(
        projection=_float(projection),
        scale=_float(scale),
        levels=_float(levels),
        query_weights=_float(query_weights),
        kept=kept.astype(np.bool_),
        bits=bits,
        weight=float(weight),
        depth=int(depth),
        about=about,
        id=digest.digest()[:8],
    )


def _float(values: npt.NDArray[Any]) -> Vectors:
    array: Vectors = np.ascontiguousarray(values, np.float32)
    return array


def _unit(vectors: npt.NDArray[Any]) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit


def _lookup(table: npt.NDArray[Any], tokens: TokenIds, unknown: float) -> npt.NDArray[Any]:
    """Return the table's value of each token, `unknown` for ids outside the table."""
    inside = (tokens >= 0) & (tokens < len(table))
    return np.where(inside, table[np.where(inside, tokens, 0)], unknown).astype(table.dtype)


def _byte_table(levels: Vectors, bits: int) -> npt.NDArray[Any]:
    """Return the values of each byte as one opaque item, so that a single look-up fetches all of them."""
    numbers = np.arange(256)[:, None] >> np.arange(0, 8, bits)[None, :] & (1 << bits) - 1
    values = np.ascontiguousarray(levels[numbers], np.float32)
    return values.view(np.dtype((np.void, values.shape[1] * 4)))[:, 0]


def _pack_codes(codes: Codes, bits: int) -> Codes:
    """Pack codes of `bits` each, shape (n, dimension), into bytes, shape (n, dimension * bits / 8)."""
    shifted = codes.reshape(len(codes), codes.shape[1] * bits // 8, 8 // bits) << np.arange(0, 8, bits, dtype=np.uint8)
    packed: Codes = np.bitwise_or.reduce(shifted, axis=2)
    return packed
