"""Collecting of the material for a calibration (`app.evaluation.calibrate`) from a cluster.

A judged set is ingested into an index of its own and searched as `braid tune` does it. Without one, a sample of the
store's own passages is all there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from tokenizers import Tokenizer

from app.config import Settings
from app.embedding.model_folder import TOKENIZER_FILE, model_folder
from app.embedding.text_encoder import TextEncoder
from app.errors import InvalidInput
from app.evaluation.calibrate import Collection, Searches
from app.evaluation.collect import Load, QueryLegs, collect, require_majority
from app.evaluation.dataset import JudgedSet, load_set, sample_queries
from app.evaluation.general_weights import without_rarest_words
from app.evaluation.mining import read_hits
from app.evaluation.opened_set import OpenSet, SetOptions, open_set
from app.evaluation.target import query_vectors
from app.evaluation.token_projection import TokenSample, sample_tokens
from app.passage import embedding_text
from app.search.fusion import fuse_linear
from app.serving.opening import open_store
from app.store.filters import Scope
from app.store.sampling import sample_passages
from app.tuning import SHIPPED

_PASSAGES = 2000
"""Passages that are sampled for the scale; a part of them gives token vectors."""
_TOKEN_PASSAGES = 500
_OWN, _FOREIGN, _CONTEXT = 200, 200, 5
"""Questions of a set and of other sets that are searched for the thresholds, and passages of each answer."""


@dataclass(frozen=True, slots=True)
class MaterialOptions:
    """Options of a calibration: at most `queries` judged queries of each set; `licences` in the order of the sets."""

    folders: Sequence[Path]
    licences: Sequence[str] = ()
    queries: int = 300
    load: Load = field(default_factory=Load)


def load_tokenizer(settings: Settings, encoder: TextEncoder) -> Tokenizer | None:
    """Return the model's tokenizer; None if the model gives no token vectors. Raises ConfigurationError."""
    if not encoder.gives_tokens:
        return None
    return Tokenizer.from_file(str(model_folder(settings) / TOKENIZER_FILE))


def from_store(settings: Settings, console: Console) -> tuple[list[Collection], TextEncoder]:
    """Return a sample of the store's passages.

    Raises:
        InvalidInput: the store is empty.
        StoreError, EncoderError, ConfigurationError.
    """
    store = open_store(settings)
    console.print("sampling the store's passages", style="dim")
    sample = sample_passages(store.cluster, Scope(settings.access.tenant), _PASSAGES)
    if not sample:
        raise InvalidInput("the store has no passages to calibrate on: ingest some, or name judged sets")
    texts = [item.text for item in sample]
    whole = [embedding_text(item.title, item.section_heading, item.text) for item in sample]
    tokens = _tokens(settings, store.encoder, whole)
    return [Collection("the store's passages", "the operator's own", texts, tokens)], store.encoder


def from_sets(settings: Settings, options: MaterialOptions, console: Console) -> tuple[list[Collection], TextEncoder]:
    """Ingest and search the judged sets, one after the other; each index is removed at the end.

    Raises:
        InvalidInput: a set is unusable, or has no corpus.
        StoreError, EncoderError, ConfigurationError.
    """
    names = {folder: sample_queries(load_set(folder), options.queries) for folder in options.folders}
    found, encoder = [], None
    for place, folder in enumerate(options.folders):
        if names[folder].corpus is None:
            raise InvalidInput(f"{folder}: there is no corpus.jsonl; a calibration needs the passages of a set")
        licence = options.licences[place] if place < len(options.licences) else "not stated"
        console.print(f"{folder.name}: ingesting and searching", style="dim", markup=False)
        asked = SetOptions(folder, most_queries=options.queries, whole=True, load=options.load)
        with open_set(settings, asked, console) as opened:
            foreign = _foreign([judged for other, judged in names.items() if other != folder])
            found.append(_collection(opened, licence, foreign, options.load))
            encoder = opened.store.encoder
    if encoder is None:
        raise InvalidInput("no set was named")
    return found, encoder


def _collection(opened: OpenSet, licence: str, foreign: Mapping[str, str], load: Load) -> Collection:
    where, judged = opened.where, opened.judged
    sample = sample_passages(where.cluster, Scope(where.tenant), _PASSAGES)
    whole = [embedding_text(item.title, item.section_heading, item.text) for item in sample]
    vectors = query_vectors(judged.queries, where.encoder)
    legs = _legs(opened, judged.queries, vectors, load)
    asked = {key: text for key, text in without_rarest_words(where.cluster, judged.queries).items() if key in legs}
    # the lexical leg finds less, while the vector and the features of the text are the whole query's
    shorter = {
        key: replace(found, query=legs[key].query) for key, found in _legs(opened, asked, vectors, load, legs).items()
    }
    own = dict(islice(legs.items(), _OWN))
    others = _legs(opened, foreign, query_vectors(foreign, where.encoder), load)
    return Collection(
        name=judged.name,
        licence=licence,
        passages=[item.text for item in sample],
        tokens=_tokens(where.settings, where.encoder, whole),
        qrels=judged.qrels,
        legs=legs,
        shorter=shorter,
        own=_searches(opened, judged.queries, own, load),
        foreign=_searches(opened, foreign, others, load),
    )


def _foreign(others: Sequence[JudgedSet]) -> dict[str, str]:
    """Return questions of other sets, as many of each."""
    each = _FOREIGN // max(1, len(others))
    return {f"{judged.name}/{key}": text for judged in others for key, text in islice(judged.queries.items(), each)}


def _legs(
    opened: OpenSet,
    queries: Mapping[str, str],
    vectors: Mapping[str, npt.NDArray[np.float32]],
    load: Load,
    dense_from: Mapping[str, QueryLegs] | None = None,
) -> dict[str, QueryLegs]:
    found = collect(queries, vectors, opened.where, SHIPPED, depth=SHIPPED.candidates, load=load, dense_from=dense_from)
    require_majority(found, len(queries))
    return found.legs


def _searches(opened: OpenSet, queries: Mapping[str, str], legs: Mapping[str, QueryLegs], load: Load) -> Searches:
    """Return questions with the passages that an answer would be made from."""
    best = {
        key: [item.id for item in fuse_linear(found.lexical, found.dense, SHIPPED.alpha, bonus=found.bonus)[:_CONTEXT]]
        for key, found in legs.items()
    }
    hits = read_hits([name for ids in best.values() for name in ids], opened.where, SHIPPED, load)
    return [(queries[key], [hits[name] for name in ids if name in hits]) for key, ids in best.items()]


def _tokens(settings: Settings, encoder: TextEncoder, texts: Sequence[str]) -> TokenSample | None:
    tokenizer = load_tokenizer(settings, encoder)
    return None if tokenizer is None else sample_tokens(encoder, texts[:_TOKEN_PASSAGES], tokenizer.get_vocab_size())
