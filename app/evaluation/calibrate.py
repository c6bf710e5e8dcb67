"""Making of a calibration (`app.calibration`) from collections: judged sets, or passages alone.

What is measured here needs an embedding model and legs that were collected before; no cluster.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from app.calibration import TOKEN_PROJECTION, Calibration, CalibrationFile, TokenProjectionFile, split_name
from app.embedding.token_vectors import TokenVectors, read_projection
from app.errors import InvalidInput
from app.evaluation.collect import QueryLegs
from app.evaluation.general_weights import examples_of, train
from app.evaluation.thresholds import (
    QueriesEncoder,
    choose_thresholds,
    measure_scale,
    near_pairs,
    near_threshold,
    weigh_all,
)
from app.evaluation.token_projection import ProjectionBasis, TokenSample, write_projection
from app.passage import Hit
from app.tuning import WeightModel

FEWEST_QUERIES = 100
"""Judged queries below which no weight model is trained."""
Searches = Sequence[tuple[str, Sequence[Hit]]]
"""Questions, each with the best passages of a search."""


@dataclass(frozen=True, slots=True)
class Collection:
    """Material for a calibration, of one set.

    `passages`: a sample of their texts. `licence`: as far as it is stated. `tokens`: a sample of token vectors, if the
    model gives them. The rest needs judgements: `qrels`, the `legs` of the judged queries and those of the same queries
    without their rarest words (`shorter`), searches of `own` questions, and of `foreign` ones, which it can't answer.
    """

    name: str
    licence: str
    passages: Sequence[str]
    tokens: TokenSample | None = None
    qrels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    legs: Mapping[str, QueryLegs] = field(default_factory=dict)
    shorter: Mapping[str, QueryLegs] = field(default_factory=dict)
    own: Searches = ()
    foreign: Searches = ()


@dataclass(frozen=True, slots=True)
class MadeCalibration:
    """A calibration that is not written yet; `codec`: None without token vectors."""

    file: CalibrationFile
    codec: TokenVectors | None


def make_calibration(
    collections: Sequence[Collection],
    encoder: QueriesEncoder,
    name: str,
    tokenizer: Tokenizer | None,
    base: Calibration | None = None,
) -> MadeCalibration:
    """Return the calibration of the embedding model `name` (`TextEncoder.name`).

    Args:
        tokenizer: the model's, to tell words from punctuation; None: it gives no token vectors.
        base: calibration of another precision of the model, whose weight model and projection are taken over.

    Raises:
        InvalidInput: there is too little text.
        EncoderError: the embedding model failed.
    """
    model, precision = split_name(name)
    try:
        scale = measure_scale([item.passages for item in collections], encoder)
    except ValueError as error:
        raise InvalidInput(f"the scale of {name} can't be measured: {error}") from error
    own = {item.name: weigh_all(item.own, encoder) for item in collections if item.own}
    foreign = {item.name: weigh_all(item.foreign, encoder) for item in collections if item.foreign}
    answers, answer_figures = choose_thresholds(scale, own, foreign)
    near, near_figures = near_threshold(encoder, near_pairs())
    weight_model = _weight_model(collections, model) if base is None else base.weight_model
    codec = _codec(collections, tokenizer, model)
    if base is not None and base.token_projection is not None:
        codec = read_projection(base.token_projection)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "made by": "braid calibrate" + ("" if base is None else "; weight model and projection of another precision"),
        "data": [_source(item) for item in collections] + [_NEAR_SOURCE],
        "licence of this file": "none of the texts is in it",
        "answers": answer_figures,
        "near-identical queries": near_figures,
    }
    return MadeCalibration(
        CalibrationFile(
            embedding_model=model,
            precision=precision,
            answers=answers,
            near_min_cosine=near,
            weight_model=weight_model,
            about=about,
        ),
        codec,
    )


_NEAR_SOURCE = {"set": "near_pairs.jsonl", "pairs": len(near_pairs()), "licence": "Apache-2.0, made for Braid"}


def _source(item: Collection) -> dict[str, Any]:
    found: dict[str, Any] = {"set": item.name, "licence": item.licence, "passages": len(item.passages)}
    counts = {"judged queries": len(item.legs), "own questions": len(item.own), "foreign questions": len(item.foreign)}
    return found | {name: count for name, count in counts.items() if count}


def _weight_model(collections: Sequence[Collection], model: str) -> WeightModel | None:
    judged = [item for item in collections if item.legs]
    if sum(len(item.legs) for item in judged) < FEWEST_QUERIES:
        return None
    return train(
        [examples_of(item.qrels, item.legs) for item in judged],
        [examples_of(item.qrels, item.shorter) for item in judged if item.shorter],
        embedding_model=model,
        about={"sets": {item.name: len(item.legs) for item in judged}, "date": time.strftime("%Y-%m-%d")},
    )


def _codec(collections: Sequence[Collection], tokenizer: Tokenizer | None, model: str) -> TokenVectors | None:
    samples = [item.tokens for item in collections if item.tokens is not None]
    if tokenizer is None or not samples:
        return None
    about = {"model": model, "date": time.strftime("%Y-%m-%d"), "passages of": [item.name for item in collections]}
    return ProjectionBasis.of(samples, tokenizer).codec(about=about)


def write_calibration(made: MadeCalibration, folder: Path) -> list[Path]:
    """Write ``<precision>.json``, its card ``<precision>.md`` and the projection; return their paths.

    A projection of the same content stays as it is, since the other precision's file names its digest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, written = made.file, []
    if made.codec is not None:
        path = folder / TOKEN_PROJECTION
        if not path.is_file() or read_projection(path).id != made.codec.id:
            write_projection(made.codec, path)
            written.append(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        file = file.model_copy(update={"token_projection": TokenProjectionFile(sha256=digest)})
    target = folder / f"{file.precision}.json"
    target.write_text(file.model_dump_json(indent=1) + "\n", encoding="utf-8")
    card = target.with_suffix(".md")
    card.write_text(card_of(file), encoding="utf-8")
    return [*written, target, card]


def card_of(file: CalibrationFile) -> str:
    """Return the card of a calibration in Markdown."""
    answers, about = file.answers, file.about
    learned = "none, for want of judged queries"
    if file.weight_model is not None:
        learned = ", ".join(f"{name} ({count})" for name, count in file.weight_model.about.get("sets", {}).items())
        learned = f"trained on queries of {learned}"
    rows = [
        ("made", f"{about.get('date', '')}, {about.get('made by', '')}"),
        ("abstains", f"best cosine below {answers.min_cosine:g}; below {answers.min_covered_cosine:g} where the "
                     f"passages hold {answers.min_coverage:.0%} of the question's words"),
        ("scale", f"{answers.zero_cosine:g} stands for 0 of all-MiniLM-L6-v2, {answers.cosine_unit:g} for a step of 1"),
        ("near-identical queries", f"cosine at least {file.near_min_cosine:g}, beside an equal normal form"),
        ("weight model", learned),
        ("token projection", "token_projection.npz" if file.token_projection is not None else "none"),
        ("texts in it", "none; document frequencies of tokens only"),
    ]  # fmt: skip
    lines = [f"# Calibration of {file.embedding_model}, {file.precision}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in rows]
    lines += ["", "| data | licence as far as stated | used |", "|---|---|---|"]
    for item in about.get("data", ()):
        used = ", ".join(f"{value} {name}" for name, value in item.items() if name not in ("set", "licence"))
        lines.append(f"| {item['set']} | {item['licence']} | {used} |")
    rows_withheld = about.get("answers", {}).get("withheld, %", ())
    if rows_withheld and rows_withheld[0]["own"]:
        lines += ["", "Questions on which an answer is withheld, in percent:", ""]
        names = [(kind, name) for kind in ("own", "foreign") for name in rows_withheld[0][kind]]
        lines += [
            f"| least cosine | {' | '.join(f'{name}, {kind}' for kind, name in names)} |",
            "|---|" + "---|" * len(names),
        ]
        for row in rows_withheld:
            mark = "**" if row["min_cosine"] == answers.min_cosine else ""
            cells = " | ".join(f"{row[kind][name]:g}" for kind, name in names)
            lines.append(f"| {mark}{row['min_cosine']:g}{mark} | {cells} |")
    return "\n".join(lines) + "\n"
