"""`braid-reranker distil`: a teacher scores, a student learns, and what came of it is measured and written down.

The folder that is made is a model folder; `training/` in it holds what a run that broke off goes on from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.errors import ConfigurationError, InferenceError
from reranker.evaluate import fit, fit_settings
from reranker.fitting import Judged, Method, NothingJudged, judged
from reranker.measures import ideal_dcg, min_max, ndcg
from reranker.model_folder import ModelSettings, load_settings, write_settings
from reranker.rankings import DataError, Qrels, Ranking, qrels_of, with_labels
from reranker.tokenizing import PairTokenizer
from reranker.train.card import Card, Checks, write_card
from reranker.train.export import write_model
from reranker.train.groups import targets_of
from reranker.train.loop import Plan, train
from reranker.train.scoring import TorchScorer
from reranker.train.students import make_student
from reranker.train.teachers import Teacher

Scores = npt.NDArray[np.float64]
Say = Callable[[str], None]

TRAINING = "training"
_TEACHER_FILE = "teacher.jsonl"
_SPEED_PAIRS = 200
_FEWEST_QUERIES = 20


@dataclass(frozen=True, slots=True)
class Options:
    """What is distilled from what; `validation` is a share of the queries, at most `most_validation` of them."""

    out: Path
    student: Path
    layers: tuple[int, ...] = ()
    plan: Plan = field(default_factory=Plan)
    candidates: int = 30
    validation: float = 0.1
    most_validation: int = 100
    calibration: Method = "platt"
    name: str | None = None
    int8: bool = True
    fresh: bool = False
    data: str = ""
    """Where the data is from and under which licence, for the card."""


@dataclass(frozen=True, slots=True)
class Bars:
    """How progress is shown: `teacher` is told of queries done, `steps` of step, steps and loss."""

    teacher: Callable[[int, int], None] = lambda done, total: None
    steps: Callable[[int, int, float], None] = lambda step, steps, loss: None


def distil(
    rankings: Sequence[Ranking],
    qrels: Qrels | None,
    open_teacher: Callable[[], Teacher],
    options: Options,
    *,
    say: Say = lambda line: None,
    bars: Bars | None = None,
) -> Card:
    """Run it all; a call with the same arguments after a break goes on where it was.

    Args:
        rankings: queries with their candidates, best first.
        qrels: judgements, where there are any: then labels are taught too, and weight and calibration are fitted.
        open_teacher: called once a score is missing.
        options: see there.
        say: told what goes on, a line each.
        bars: see there.

    Raises:
        DataError, ConfigurationError, ModelFolderError: the input can't be used; says what was expected.
        InferenceError: the teacher fails; the same command again goes on.
    """
    bars = bars or Bars()
    training = options.out / TRAINING
    if options.fresh:
        shutil.rmtree(training, ignore_errors=True)
    _make(training)
    rankings = [replace(item, candidates=item.candidates[: options.candidates]) for item in rankings]
    labels = qrels if qrels is not None else qrels_of(rankings)
    rankings = with_labels(rankings, labels)
    if len(rankings) < _FEWEST_QUERIES:
        raise DataError(
            f"{len(rankings)} queries with candidates: at least {_FEWEST_QUERIES} are needed to learn anything"
        )
    began = time.perf_counter()
    teacher = Kept(open_teacher, training / _TEACHER_FILE)
    scores = []
    for ranking in rankings:
        scores.append(teacher.scores(ranking))
        bars.teacher(len(scores), len(rankings))
    taught, held = split(rankings, labels, options)
    say(f"teacher: {teacher.name}; {len(taught)} queries to learn from, {len(held)} held out")

    student = make_student(options.student, options.layers, seed=options.plan.seed)
    settings = _settings(student, options)
    shutil.copyfile(_tokenizer_of(options.student), training / "tokenizer.json")
    student.config.save_pretrained(training)
    tokenizer = PairTokenizer(training, max_tokens=settings.max_tokens)
    grades = [_grades(rankings[i], scores[i], labels) for i in held]

    def agreement(logits: Sequence[Scores]) -> float:
        return float(np.mean([ndcg(mine, g, ideal) for mine, (g, ideal) in zip(logits, grades, strict=True)]))

    def validate(model: Any) -> float:
        scorer = TorchScorer(model, training, max_tokens=settings.max_tokens, bf16=options.plan.bf16)
        found = agreement(
            scorer.many([(rankings[i].query, [item.text for item in rankings[i].candidates]) for i in held])
        )
        say(f"validation NDCG@10 {found:.4f} (teacher {agreement([scores[i] for i in held]):.4f})")
        return found

    run = train(
        student,
        tokenizer,
        [rankings[i] for i in taught],
        targets_of([rankings[i] for i in taught], [scores[i] for i in taught]),
        replace(options.plan, max_tokens=settings.max_tokens),
        training,
        of=_digest(rankings, scores, options, teacher.name),
        validate=validate,
        say=bars.steps,
    )
    student.float().save_pretrained(training)
    say(f"exporting to {options.out}")
    fp32 = options.out / "fp32"
    difference = write_model(student, training / "tokenizer.json", fp32, settings)
    served = _served(fp32, options)

    checks = _check(rankings, scores, held, agreement, served, fp32, teacher, options)
    fitted = _fit(rankings, labels, scores, held, served, options)
    for folder in {served, fp32}:
        write_settings(folder, replace(fitted.settings, precision=load_settings(folder).precision))
    card = Card(
        name=settings.name,
        teacher=teacher.name,
        student=str(options.student.name),
        layers=options.layers,
        queries=len(taught),
        held_out=len(held),
        pairs=sum(len(rankings[i].candidates) for i in taught),
        labels=sum(sum(1 for g in labels.get(rankings[i].query_id, {}).values() if g > 0) for i in taught),
        data=options.data,
        plan=asdict(replace(options.plan, max_tokens=settings.max_tokens)),
        steps=run.step,
        best_step=run.best_step,
        seconds=time.perf_counter() - began,
        training_seconds=run.seconds,
        export_difference=difference,
        checks=checks,
        fitted=fitted.figures,
        fitted_to=fitted.note,
        validated=tuple(run.validated),
    )
    write_card(options.out, card)
    return card


class Kept:
    """A teacher whose scores are kept in a file as they come: it is opened only for what is missing there."""

    def __init__(self, open_teacher: Callable[[], Teacher], path: Path) -> None:
        self._open = open_teacher
        self._path = path
        self._teacher: Teacher | None = None
        self._found: dict[str, list[float]] = {}
        self.name = ""
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # a run that was killed in the middle of a line
                continue
            self._found[row["key"]] = row["scores"]
            self.name = row["teacher"]

    def scores(self, ranking: Ranking) -> Scores:
        """One for each candidate, (n,). Raises InferenceError."""
        key = _ranking_key(ranking)
        if key not in self._found:
            teacher = self.opened()
            scores = np.asarray(teacher.scores(ranking), np.float64)
            if scores.shape != (len(ranking.candidates),) or not np.isfinite(scores).all():
                raise InferenceError(
                    f"{teacher.name}: expected {len(ranking.candidates)} finite scores for query {ranking.query_id!r}"
                )
            self._found[key] = scores.tolist()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "teacher": teacher.name, "scores": self._found[key]}) + "\n")
        return np.array(self._found[key], np.float64)

    def fresh(self) -> Teacher:
        """The teacher opened anew, with nothing kept. Raises as opening does."""
        return self._open()

    def opened(self) -> Teacher:
        """The teacher itself. Raises ConfigurationError: the file holds another teacher's scores."""
        if self._teacher is None:
            self._teacher = self._open()
            if self.name and self.name != self._teacher.name:
                raise ConfigurationError(
                    f"{self._path} holds scores of {self.name!r}, and the teacher is now {self._teacher.name!r}: name "
                    "another --out, or --fresh to begin anew"
                )
            self.name = self._teacher.name
        return self._teacher


def split(rankings: Sequence[Ranking], labels: Qrels, options: Options) -> tuple[list[int], list[int]]:
    """Numbers of the queries to learn from and of those held out, by the hash of the query's text.

    Where there are labels, only queries with a relevant document are held out: others could not be measured.
    """
    judged_ids = {query for query, grades in labels.items() if any(grade > 0 for grade in grades.values())}

    def place(ranking: Ranking) -> bytes:
        return hashlib.blake2b(f"{options.plan.seed}\0{ranking.query}".encode("utf-8", "surrogatepass")).digest()

    order = sorted(range(len(rankings)), key=lambda index: place(rankings[index]))
    eligible = [i for i in order if rankings[i].query_id in judged_ids] if judged_ids else order
    count = min(options.most_validation, max(10, round(options.validation * len(eligible))), len(eligible) // 2)
    held = set(eligible[:count])
    return [i for i in range(len(rankings)) if i not in held], sorted(held)


@dataclass(frozen=True, slots=True)
class _Fitted:
    settings: ModelSettings
    figures: dict[str, Any]
    note: str


def _fit(
    rankings: Sequence[Ranking],
    labels: Qrels,
    scores: Sequence[Scores],
    held: Sequence[int],
    served: Path,
    options: Options,
) -> _Fitted:
    """Calibration, bound and weight from the held-out queries; without labels from the teacher's order."""
    settings = load_settings(served)
    has_labels = any(rankings[i].query_id in labels for i in held)
    queries = _judged(rankings, scores, labels, held, served, options.plan.threads)
    if has_labels:
        try:
            halves = fit(queries, settings, method=options.calibration)
            fitted = fit_settings(queries, settings, method=options.calibration)
        except NothingJudged as error:
            return _Fitted(settings, {}, f"nothing was fitted: {error.detail}")
        return _Fitted(fitted, halves.as_dict(), "judgements of the held-out queries")
    try:
        fitted = fit_settings(queries, settings, method=options.calibration)
    except NothingJudged as error:
        return _Fitted(settings, {}, f"nothing was fitted: {error.detail}")
    # what follows the teacher's order best need not be what is right: the student gets half a voice at most
    fitted = replace(fitted, weight=min(settings.weight, fitted.weight))
    note = (
        "the teacher's first three of each held-out query, since nothing was judged: a probability says how likely the "
        f"teacher would have the passage among them, and the weight of {fitted.weight} is the one that follows the "
        f"teacher best, {settings.weight} at most: whether it finds what people want was not measured"
    )
    return _Fitted(fitted, {}, note)


def _judged(
    rankings: Sequence[Ranking],
    scores: Sequence[Scores],
    labels: Qrels,
    held: Sequence[int],
    folder: Path,
    threads: int,
) -> list[Judged]:
    from reranker.cross_encoder import CrossEncoder

    model = CrossEncoder(folder, threads=threads)
    found = []
    for i in held:
        ranking = rankings[i]
        grades, ideal = _grades(ranking, scores[i], labels)
        if ranking.query_id not in labels:
            grades = (grades >= 2).astype(np.float64)
        logits = model.score(ranking.query, [item.text for item in ranking.candidates]).logits
        first = np.array([item.score for item in ranking.candidates], np.float64)
        found.append(judged(ranking.query_id, first, np.asarray(logits, np.float64), grades, ideal))
    return found


def _grades(ranking: Ranking, scores: Scores, labels: Qrels) -> tuple[Scores, float]:
    """Grades of the candidates and the ideal DCG: of the judgements, else of the teacher's order (3, 2, 2, 1 ...)."""
    if ranking.query_id in labels:
        grades = labels[ranking.query_id]
        return (
            np.array([grades.get(item.id, 0) for item in ranking.candidates], np.float64),
            ideal_dcg(grades.values()),
        )
    by_teacher = np.zeros(len(scores))
    for rank, index in enumerate(np.argsort(-scores, kind="stable")[:10].tolist()):
        by_teacher[index] = 3 if rank == 0 else 2 if rank < 3 else 1
    return by_teacher, ideal_dcg(by_teacher)


def _check(
    rankings: Sequence[Ranking],
    scores: Sequence[Scores],
    held: Sequence[int],
    agreement: Callable[[Sequence[Scores]], float],
    served: Path,
    fp32: Path,
    teacher: Kept,
    options: Options,
) -> Checks:
    """The student as it is served beside its teacher: quality on the held-out queries, time for the same pairs."""
    from reranker.cross_encoder import CrossEncoder

    def run(folder: Path) -> tuple[list[Scores], float]:
        model = CrossEncoder(folder, threads=options.plan.threads)
        found, seconds, pairs = [], 0.0, 0
        for i in held:
            texts = [item.text for item in rankings[i].candidates]
            began = time.perf_counter()
            found.append(np.asarray(model.score(rankings[i].query, texts).logits, np.float64))
            seconds += time.perf_counter() - began
            pairs += len(texts)
        return found, 1000 * seconds / max(1, pairs)

    plain, plain_ms = run(fp32)
    small, small_ms = run(served) if options.int8 else (plain, plain_ms)
    return Checks(
        teacher_ndcg=agreement([scores[i] for i in held]),
        first_stage_ndcg=agreement([min_max(np.array([c.score for c in rankings[i].candidates])) for i in held]),
        fp32_ndcg=agreement(plain),
        served_ndcg=agreement(small),
        fp32_ms=plain_ms,
        served_ms=small_ms,
        teacher_ms=_teacher_speed(teacher, [rankings[i] for i in held]),
        served_precision="int8" if options.int8 else "fp32",
    )


def _teacher_speed(teacher: Kept, rankings: Sequence[Ranking]) -> float:
    """Milliseconds per pair on passages that it has not seen yet: one that keeps what it knows would seem fast."""
    fresh = teacher.fresh()
    pairs, seconds = 0, 0.0
    for ranking in rankings:
        began = time.perf_counter()
        fresh.scores(ranking)
        seconds += time.perf_counter() - began
        pairs += len(ranking.candidates)
        if pairs >= _SPEED_PAIRS:
            break
    return 1000 * seconds / max(1, pairs)


def _served(fp32: Path, options: Options) -> Path:
    """Bring the files that are served into the folder itself: int8 ones, or those of `fp32`."""
    made = fp32
    if options.int8:
        from reranker.quantize import quantize_int8

        made = options.out / TRAINING / "int8"
        shutil.rmtree(made, ignore_errors=True)
        quantize_int8(fp32, made)
    for file in made.iterdir():
        shutil.copyfile(file, options.out / file.name)
    if made != fp32:
        shutil.rmtree(made)
    return options.out


def _settings(student: Any, options: Options) -> ModelSettings:
    places = getattr(student.config, "max_position_embeddings", options.plan.max_tokens)
    return ModelSettings(
        name=options.name or options.out.resolve().name, max_tokens=min(options.plan.max_tokens, places)
    )


def _tokenizer_of(student: Path) -> Path:
    path = student / "tokenizer.json"
    if not path.is_file():
        raise ConfigurationError(f"no tokenizer.json in {student}: expected is the file of the `tokenizers` library")
    return path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} can't be made ({error.strerror}); name another --out") from error


def _ranking_key(ranking: Ranking) -> str:
    digest = hashlib.sha256(ranking.query.encode("utf-8", "surrogatepass"))
    for item in ranking.candidates:
        digest.update(f"\0{item.score:.6f}\0".encode() + item.text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _digest(rankings: Sequence[Ranking], scores: Sequence[Scores], options: Options, teacher: str) -> str:
    digest = hashlib.sha256(f"{teacher}\0{options.student.name}\0{options.layers}".encode())
    for ranking, item in zip(rankings, scores, strict=True):
        digest.update(_ranking_key(ranking).encode() + np.round(item, 6).tobytes())
        digest.update(repr([candidate.label for candidate in ranking.candidates]).encode())
    return digest.hexdigest()
