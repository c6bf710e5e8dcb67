"""What late interaction is measured and trained on: hybrid's candidates, and the hidden states of queries and passages.

Candidates come from the real service's index and legs, fused with a weight model that was fitted on the other sets, as
`fusion.py` does it. Both are kept in a folder, since encoding 11,000 passages takes minutes:
``<set>.candidates.npz``, ``<set>.passages.npy`` and ``<set>.queries.npy`` (hidden states, fp16), ``<set>.tokens.npz``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from app.config import load_settings
from app.embedding.encoder import Encoder
from app.evaluation.collect import Load, QueryLegs, collect
from app.evaluation.dataset import JudgedSet, load_set
from app.evaluation.general_weights import PENALTY, examples_of
from app.evaluation.learning import best_fixed, fit, join
from app.evaluation.target import EvaluationTarget, query_vectors
from app.evaluation.token_projection import TokenSample
from app.search.fusion import fuse_linear
from app.search.weighting import Weight, learned_weight
from app.serving.opening import open_store
from app.tuning import SHIPPED

MODEL = "all-MiniLM-L6-v2"
SETS = ("cranfield", "cisi", "covidqa", "squad2dev", "scifact")
DEPTH = 100
DISCOUNT = 1 / np.log2(np.arange(2, 12))
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Texts:
    """Token vectors of many texts, one after the other: text i has rows ``starts[i]:starts[i + 1]``."""

    hidden: Array
    tokens: Array
    starts: Array

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, text: int) -> tuple[Array, Array]:
        """Hidden state (n, width) and token ids (n,) of one text."""
        part = slice(self.starts[text], self.starts[text + 1])
        return np.asarray(self.hidden[part], np.float32), self.tokens[part]


@dataclass(frozen=True, slots=True)
class LateSet:
    """A judged set: per query the positions of its candidates, best first, their fused scores and grades."""

    name: str
    passages: Texts
    queries: Texts
    rows: list[int]  # of `queries`
    candidates: list[Array]
    fused: list[Array]
    grades: list[Array]
    ideal: Array

    def __len__(self) -> int:
        return len(self.rows)

    def ndcg(self, query: int, scores: Array) -> float:
        """NDCG@10 of the first ``len(scores)`` candidates ordered by `scores`, the others behind them."""
        order = np.argsort(-scores, kind="stable")[:10]
        order = np.concatenate([order, np.arange(len(scores), len(self.grades[query]))])[:10]
        return float((self.grades[query][order] * DISCOUNT[: len(order)]).sum() / self.ideal[query])

    def part(self, most: int, seed: int = 3) -> LateSet:
        """A sample of the queries, the same each time."""
        chosen = np.arange(len(self))
        if len(self) > most:
            chosen = np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False))
        lists = {name: [getattr(self, name)[i] for i in chosen] for name in ("rows", "candidates", "fused", "grades")}
        return LateSet(self.name, self.passages, self.queries, **lists, ideal=self.ideal[chosen])


def prepare_sets(names: Sequence[str], folder: Path) -> dict[str, LateSet]:
    """The sets; what the folder lacks is collected and encoded first."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(not (folder / f"{name}.candidates.npz").is_file() for name in names):
        _collect(names, folder)
    encoder: Encoder | None = None
    for name in names:
        if not (folder / f"{name}.tokens.npz").is_file():
            encoder = encoder or Encoder(
                load_settings().machine.cache_dir / "models" / MODEL, name=MODEL, provider="cpu"
            )
            _encode(name, encoder, folder)
    return {name: _read(name, folder) for name in names}


def token_sample(item: LateSet) -> TokenSample:
    """All token vectors of a set's passages, to make a projection of."""
    passages, size = item.passages, load_tokenizer().get_vocab_size()
    counts = np.zeros(size)
    for passage in range(len(passages)):
        counts[np.unique(passages.of(passage)[1])] += 1
    return TokenSample(passages.hidden, passages.tokens, counts / len(passages))


def load_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(load_settings().machine.cache_dir / "models" / MODEL / "tokenizer.json"))


def _collect(names: Sequence[str], folder: Path) -> None:
    """Candidates of all sets from a `braid up` of its own, fused as if each set had never been seen."""
    judged: dict[str, JudgedSet] = {}
    legs: dict[str, Mapping[str, QueryLegs]] = {}
    with harness.braid_up() as up:
        settings = load_settings(opensearch_url=up["opensearch_url"], redis_url=up["redis_url"])
        store = open_store(settings)
        for name in names:
            judged[name] = load_set(harness.SETS / name)
            scratch = harness.indexed(judged[name], store)
            where = EvaluationTarget(scratch.cluster, settings.access.tenant, store.encoder, settings, 1)
            queries = judged[name].queries
            vectors = query_vectors(queries, store.encoder)
            found = collect(queries, vectors, where, SHIPPED, depth=DEPTH, load=Load(workers=2))
            assert not found.failed, found.failed
            legs[name] = found.legs
            print(name, len(found.legs), "queries collected", flush=True)
    data = {name: examples_of(judged[name].qrels, legs[name]) for name in names}
    for name in names:
        rest = join([data[other] for other in names if other != name] or [data[name]])
        model = fit(rest, embedding_model=MODEL, normalization="min_max", penalty=PENALTY)
        _write_candidates(name, judged[name], legs[name], model, best_fixed(rest), folder)


def _write_candidates(
    name: str, judged: JudgedSet, legs: Mapping[str, QueryLegs], model: Any, fixed: float, folder: Path
) -> None:
    position = {row["_id"]: place for place, row in enumerate(harness.corpus(name))}
    rows, candidates, fused, grades, ideal = [], [], [], [], []
    for row, query in enumerate(harness.queries(name)[0]):
        item, wanted = legs[query], {document: max(grade, 0) for document, grade in judged.qrels[query].items()}
        best = np.sort([grade for grade in wanted.values() if grade > 0])[::-1][:10]
        if not best.size:
            continue
        weight = learned_weight(model, Weight(fixed, "default", ""), item.query, item.lexical, item.dense)
        found = fuse_linear(item.lexical, item.dense, weight.alpha, bonus=item.bonus)[:DEPTH]
        rows.append(row)
        candidates.append(np.array([position[hit.document_id] for hit in found]))
        fused.append(np.array([hit.score for hit in found]))
        grades.append(np.array([float(wanted.get(hit.document_id, 0)) for hit in found]))
        ideal.append(float((best * DISCOUNT[: len(best)]).sum()))
    np.savez_compressed(
        folder / f"{name}.candidates.npz",
        rows=np.array(rows), lengths=np.array([len(item) for item in candidates]), ideal=np.array(ideal),
        candidates=np.concatenate(candidates), fused=np.concatenate(fused), grades=np.concatenate(grades),
    )  # fmt: skip


def _encode(name: str, encoder: Encoder, folder: Path) -> None:
    """Hidden states of a set's queries and passages, as ingest and search get them."""
    passages = [" ".join(part for part in (row["title"], row["text"]) if part) for row in harness.corpus(name)]
    arrays: dict[str, Array] = {}
    for kind, texts in (("queries", list(harness.queries(name)[0].values())), ("passages", passages)):
        _, kept = encoder.encode_passages_with_tokens(texts, lambda hidden, ids: (hidden.astype(np.float16), ids))
        np.save(folder / f"{name}.{kind}.npy", np.concatenate([hidden for hidden, _ in kept]))
        arrays[f"{kind}_tokens"] = np.concatenate([ids for _, ids in kept]).astype(np.int32)
        arrays[f"{kind}_starts"] = np.cumsum([0, *(len(ids) for _, ids in kept)])
        print(name, len(texts), kind, "encoded", flush=True)
    np.savez_compressed(folder / f"{name}.tokens.npz", **arrays)


def _read(name: str, folder: Path) -> LateSet:
    with np.load(folder / f"{name}.tokens.npz") as arrays:
        texts = {
            kind: Texts(
                np.load(folder / f"{name}.{kind}.npy", mmap_mode="r"),
                arrays[f"{kind}_tokens"].astype(np.int64),
                arrays[f"{kind}_starts"],
            )
            for kind in ("passages", "queries")
        }
    with np.load(folder / f"{name}.candidates.npz") as arrays:
        ends = np.cumsum(arrays["lengths"])[:-1]
        lists = {key: np.split(arrays[key], ends) for key in ("candidates", "fused", "grades")}
        return LateSet(name, **texts, rows=arrays["rows"].tolist(), **lists, ideal=arrays["ideal"])
