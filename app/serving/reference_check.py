"""Comparison of an encoder elsewhere with the vectors that the store keeps for its model (`embedding.remote`).

Commands that apply templates keep them; a service only reads them, since it changes nothing of the cluster's templates.
For a model in this process there is nothing to compare, and every method returns at once.
"""

from __future__ import annotations

import numpy as np

from app.deadline import Deadline
from app.embedding.remote import SAME_MODEL, RemoteEncoder
from app.embedding.text_encoder import TextEncoder
from app.errors import EncoderError, StoreNotReady
from app.store import reference_vectors
from app.store.client import Cluster

_PROBE_MS = 1000
"""Milliseconds that a check of readiness waits for an encoder's server."""


class ReferenceCheck:
    """Says whether the vectors of an encoder may be indexed. Thread-safe."""

    def __init__(self, cluster: Cluster, encoder: TextEncoder) -> None:
        self._cluster = cluster
        self._encoder = encoder if isinstance(encoder, RemoteEncoder) else None

    def refusal(self) -> str | None:
        """Return why nothing may be indexed, with the remedy; the encoder learns the kept vectors.

        Its server is asked only where none are kept, for the dimension that templates are compared with.

        Raises:
            StoreError: the kept vectors can't be read.
            EncoderError: none are kept, and the server gave no vectors within a second.
        """
        encoder = self._encoder
        if encoder is None:
            return None
        kept = reference_vectors.read(self._cluster, encoder.name)
        if kept is None:
            _ = encoder.within(Deadline.after(_PROBE_MS)).dimension
            return (
                f"no reference vectors of {encoder.name!r} are kept, so that the embedding server's can't be compared; "
                "nothing is indexed until `braid templates apply` has kept them"
            )
        encoder.expect(kept)
        return encoder.problem

    def warnings(self) -> list[str]:
        """Return what is wrong with the encoder's server now, for ``/readyz``; asks it at most once a minute."""
        if self._encoder is None:
            return []
        try:
            self._encoder.within(Deadline.after(_PROBE_MS)).check()
        except EncoderError as error:
            return [f"searches are lexical only: {error.detail}"]
        return []

    def settle(self) -> None:
        """Keep the encoder's vectors if none are kept, or if no passage was made with the kept ones.

        Raises:
            StoreNotReady: the vectors are not those of the passages that the store has.
            EncoderError: the encoder's server gave no vectors.
            StoreError.
        """
        encoder = self._encoder
        if encoder is None:
            return
        kept = reference_vectors.read(self._cluster, encoder.name)
        passages = reference_vectors.sample(self._cluster, encoder.name)
        if kept is not None and passages:
            encoder.expect(kept)
            encoder.check()
            return
        if passages:
            self._compare(encoder, passages)
        made = encoder.encode_reference()
        if kept is None or not np.array_equal(kept, made):
            reference_vectors.write(self._cluster, encoder.name, made)
        encoder.expect(made)

    def _compare(self, encoder: RemoteEncoder, passages: list[tuple[str, np.ndarray]]) -> None:
        """Compare with passages of an index whose model ran elsewhere, such as in the service, until now."""
        stored = np.stack([vector for _, vector in passages])
        if encoder.dimension != stored.shape[1]:
            found = f"{encoder.dimension} dimensions, not {stored.shape[1]}"
        else:
            made = encoder.encode_passages([text for text, _ in passages])
            likeness = float(np.median((made * stored).sum(axis=1)))
            if likeness >= SAME_MODEL:
                return
            found = f"a median cosine of {likeness:.3f}"
        raise StoreNotReady(
            f"the embedding server answers other vectors than the index has for {encoder.name!r} ({found}, over "
            f"{len(passages)} passages): start a server with that model, precision and prompt; or give this one "
            "another BRAID_EMBEDDING_MODEL, and make a new index"
        )
