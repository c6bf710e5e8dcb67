"""What `models.py` measures: parts of judged sets, their lexical legs from a real node, and vectors in memory.

All of it is kept in a folder, since encoding takes minutes: ``lexical.pickle``, and ``<model>/<set>.npz``.
"""

from __future__ import annotations

import pickle
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import harness
import numpy as np
import numpy.typing as npt
import orjson
from rich.console import Console

from app.calibration import split_name
from app.config import load_settings
from app.dev.node import start_cluster
from app.embedding.encoder import Encoder, load_encoder
from app.evaluation.collect import Load, QueryLegs, collect
from app.evaluation.dataset import load_set
from app.evaluation.general_weights import without_rarest_words
from app.evaluation.target import EvaluationTarget
from app.passage import Candidate, Hit, embedding_text
from app.querytext import read_query
from app.serving.opening import Store
from app.store.capabilities import probe
from app.store.client import connect
from app.tuning import SHIPPED

SETS = {
    "cranfield": "none stated",
    "cisi": "none stated",
    "covidqa": "Apache-2.0",
    "squad2dev": "CC BY-SA 4.0",
    "scifact": "claims CC BY 4.0, abstracts ODC-By 1.0",
}
"""Sets and their licences."""
XQUAD = ("en", "de", "es", "zh", "ru", "ar")
PASSAGES, QUERIES, FOREIGN, XQUAD_QUERIES = 1000, 150, 200, 150
DEPTH = 100
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a judged set: rows of its corpus, texts of queries, judgements; questions of other sets."""

    name: str
    rows: list[dict[str, Any]]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]

    @property
    def texts(self) -> list[str]:
        return [embedding_text(row["title"], "", row["text"]) for row in self.rows]


@dataclass(frozen=True, slots=True)
class LexicalSide:
    """Lexical legs by query id: of the queries, of those without their rarest words, of questions of other sets."""

    own: dict[str, QueryLegs]
    shorter: dict[str, QueryLegs]
    foreign: dict[str, QueryLegs]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors of one set by one model: passages, queries and foreign questions; token vectors one text after the other.

    `cpu_ms`: processor time of a passage.
    """

    passages: Array
    queries: Array
    foreign: Array
    hidden: Array
    tokens: Array
    starts: Array
    query_hidden: Array
    query_tokens: Array
    query_starts: Array
    cpu_ms: float

    def of(self, passage: int) -> tuple[Array, Array]:
        part = slice(self.starts[passage], self.starts[passage + 1])
        return self.hidden[part].astype(np.float32), self.tokens[part]

    def of_query(self, query: int) -> tuple[Array, Array]:
        part = slice(self.query_starts[query], self.query_starts[query + 1])
        return self.query_hidden[part].astype(np.float32), self.query_tokens[part]


def part_of(name: str) -> Part:
    """The judged passages of a sample of the queries, and others up to `PASSAGES`; the same each time."""
    texts, judged = harness.queries(name)
    known = {row["_id"] for row in harness.corpus(name)}
    answered = sorted(q for q in texts if any(grade > 0 and d in known for d, grade in judged[q].items()))
    chosen = sorted(random.Random(5).sample(answered, min(QUERIES, len(answered))))
    needed = {document for query in chosen for document in judged[query]}
    rows = harness.corpus(name)
    others = [row for row in rows if row["_id"] not in needed]
    more = {row["_id"] for row in random.Random(5).sample(others, max(0, min(len(others), PASSAGES - len(needed))))}
    kept = [row for row in rows if row["_id"] in needed or row["_id"] in more]
    return Part(name, kept, {q: texts[q] for q in chosen}, {q: judged[q] for q in chosen})


def parts() -> dict[str, Part]:
    return {name: part_of(name) for name in SETS}


def narrowed(part: Part, side: LexicalSide, passages: int, foreign: int) -> tuple[Part, LexicalSide]:
    """A smaller part: queries as long as their judged passages fit, others at random; scores of the lexical leg stay
    those of the larger one.
    """
    if passages >= len(part.rows):
        return part, side
    queries, needed = [], set()
    for query in random.Random(6).sample(list(part.queries), len(part.queries)):
        if len(needed | set(part.qrels[query])) <= 0.8 * passages:
            queries.append(query)
            needed |= set(part.qrels[query])
    others = [row["_id"] for row in part.rows if row["_id"] not in needed]
    there = needed.union(random.Random(6).sample(others, max(0, passages - len(needed))))
    kept = {query: part.queries[query] for query in part.queries if query in set(queries)}

    def cut(legs: Mapping[str, QueryLegs], keys: Sequence[str]) -> dict[str, QueryLegs]:
        return {
            key: replace(
                legs[key],
                lexical=tuple(item for item in legs[key].lexical if item.id in there),
                bonus={name: value for name, value in legs[key].bonus.items() if name in there},
            )
            for key in keys
            if key in legs
        }

    return (
        Part(part.name, [row for row in part.rows if row["_id"] in there], kept, {q: part.qrels[q] for q in kept}),
        LexicalSide(
            cut(side.own, list(kept)),
            cut(side.shorter, list(kept)),
            cut(side.foreign, random.Random(6).sample(list(side.foreign), min(foreign, len(side.foreign)))),
        ),
    )


def foreign_questions(name: str, all_parts: Mapping[str, Part]) -> dict[str, str]:
    """Questions of other sets; those of SQuAD and COVID-QA for each other, and Cranfield's (benchmarks/answers.md)."""
    others = [other for other in ("squad2dev", "covidqa", "cranfield") if other != name][:2]
    each = FOREIGN // len(others)
    return {f"{other}/{key}": text for other in others for key, text in list(all_parts[other].queries.items())[:each]}


class NoEncoder:
    """In the encoder's place where only the lexical leg is wanted: every vector is the same, and costs nothing."""

    name, dimension, gives_tokens, max_tokens, passage_prefix = "none", 8, False, 256, ""

    def encode_passages(self, texts: Sequence[str]) -> Array:
        return np.full((len(texts), 8), 8**-0.5, np.float32)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [(place, place + 1) for place, letter in enumerate(text) if letter == " "]


def lexical_sides(folder: Path) -> dict[str, LexicalSide]:
    """The lexical legs of all sets, from a node of their own where the folder lacks them."""
    path = folder / "lexical.pickle"
    if path.is_file():
        return pickle.loads(path.read_bytes())  # noqa: S301 - our own file
    all_parts, found = parts(), {}
    with harness.open_folder() as data, start_cluster(load_settings().machine, data_dir=data / "node") as node:
        settings = load_settings(opensearch_url=node.url)
        cluster, encoder = connect(settings.opensearch), NoEncoder()
        store = Store(settings, cluster, probe(cluster), encoder)  # type: ignore[arg-type]
        store.apply(Console(quiet=True))
        for name, part in all_parts.items():
            target = data / name
            target.mkdir()
            files = {
                "corpus.jsonl": [orjson.dumps(row) for row in part.rows],
                "queries.jsonl": [orjson.dumps({"_id": key, "text": text}) for key, text in part.queries.items()],
                "qrels.tsv": [f"{q}\t{d}\t{g}".encode() for q in part.queries for d, g in part.qrels[q].items()],
            }
            for file, lines in files.items():
                (target / file).write_bytes(b"\n".join(lines) + b"\n")
            scratch = harness.indexed(load_set(target), store)
            where = EvaluationTarget(scratch.cluster, settings.access.tenant, encoder, settings, 1)  # type: ignore[arg-type]
            shorter = without_rarest_words(scratch.cluster, part.queries)
            own = legs_of(where, part.queries)
            found[name] = LexicalSide(
                own,
                {key: replace(item, query=own[key].query) for key, item in legs_of(where, shorter).items()},
                legs_of(where, foreign_questions(name, all_parts)),
            )
            print(name, len(part.rows), "passages,", len(part.queries), "queries", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(found))
    return found


def legs_of(where: EvaluationTarget, queries: Mapping[str, str]) -> dict[str, QueryLegs]:
    """Lexical legs whose candidates go by their document's id, which is the same in memory."""
    empty = {key: QueryLegs(read_query(text), (), (), {}, 0.0, 0.0) for key, text in queries.items()}
    found = collect(
        queries, dict.fromkeys(queries), where, SHIPPED, depth=DEPTH, load=Load(workers=2), dense_from=empty
    )  # fmt: skip
    assert not found.failed, found.failed
    return {
        key: replace(
            item,
            lexical=tuple(Candidate(c.document_id, c.document_id, c.score) for c in item.lexical),
            bonus={c.document_id: item.bonus[c.id] for c in item.lexical if c.id in item.bonus},
        )
        for key, item in found.legs.items()
    }


def load_model(name: str) -> Encoder:
    """The built-in model of this id, as a service has it."""
    model, precision = split_name(name)
    return load_encoder(load_settings(embedding_model=model, embedding_precision=precision))


def encoded(model: str, part: Part, foreign: Mapping[str, str], folder: Path, encoder: list[Encoder]) -> Encoded:
    """The vectors of a set; `encoder` is filled when the model is first needed."""
    path = folder / model / f"{part.name}.npz"
    if not path.is_file():
        if not encoder:
            encoder.append(load_model(model))
        path.parent.mkdir(parents=True, exist_ok=True)

        def keep(hidden: Array, ids: Array) -> tuple[Array, Array]:
            return hidden.astype(np.float16), ids.astype(np.int32)

        began, worked = time.perf_counter(), time.process_time()
        passages, kept = encoder[0].encode_passages_with_tokens(part.texts, keep)
        cpu_ms = 1000 * (time.process_time() - worked) / len(kept)
        found = [encoder[0].encode_query_with_tokens(text) for text in part.queries.values()]
        asked = [keep(hidden, ids) for _, hidden, ids in found]
        others = encoder[0].encode_queries(list(foreign.values()))
        np.savez(
            path,
            passages=passages, queries=np.stack([item[0] for item in found]), foreign=others, cpu_ms=np.array(cpu_ms),
            hidden=np.concatenate([item[0] for item in kept]), tokens=np.concatenate([item[1] for item in kept]),
            starts=np.cumsum([0, *(len(item[1]) for item in kept)]),
            query_hidden=np.concatenate([item[0] for item in asked]),
            query_tokens=np.concatenate([item[1] for item in asked]),
            query_starts=np.cumsum([0, *(len(item[1]) for item in asked)]),
        )  # fmt: skip
        print(f"{model} {part.name}: {cpu_ms:.1f} ms CPU a passage, {time.perf_counter() - began:.0f} s", flush=True)
    with np.load(path) as arrays:
        values = {name: arrays[name] if arrays[name].ndim else float(arrays[name]) for name in arrays}
        return Encoded(**values)  # type: ignore[arg-type]


def dense_leg(vector: Array, passages: Array, ids: Sequence[str]) -> tuple[Candidate, ...]:
    """The exact dense leg of a query, with OpenSearch's score of inner products."""
    cosines = passages @ vector
    best = np.argsort(-cosines, kind="stable")[:DEPTH]
    return tuple(
        Candidate(ids[place], ids[place], float(1 + c if c >= 0 else 1 / (1 - c)))
        for place in best
        for c in (cosines[place],)
    )


def with_dense(
    legs: Mapping[str, QueryLegs], vectors: Mapping[str, Array], passages: Array, ids: Sequence[str]
) -> dict[str, QueryLegs]:
    return {key: replace(item, dense=dense_leg(vectors[key], passages, ids)) for key, item in legs.items()}


def as_hit(row: Mapping[str, Any]) -> Hit:
    """A row of a corpus as a passage that a search has found."""
    return Hit(
        id=row["_id"], document_id=row["_id"], source_id="", source_type="text", uri="", title=row["title"],
        section_heading="", page=None, position=0, topic_tags=(), timestamp=None, text=row["text"], score=0.0,
    )  # fmt: skip
