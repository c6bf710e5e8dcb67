"""Distillation (`braid-reranker distil`): a teacher scores, a student learns; the result is measured and documented.

The output is a model folder; its subfolder `training/` holds the state for resuming an interrupted run.
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
from reranker.evaluate import fit, fit_settings, grades_of, judge, score_rankings
from reranker.fitting import JudgedQuery, Method, TooFewJudgements
from reranker.measures import ideal_dcg, min_max, ndcg
from reranker.model_folder import ModelSettings, load_settings, write_settings
from reranker.rankings import DataError, Qrels, Ranking, add_labels, qrels_of
from reranker.runtime.tokenizing import PairTokenizer
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
    """Options of a distillation; `validation` is a share of the queries, at most `most_validation` of them."""

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
    """Origin and licence of the data, for the card."""


@dataclass(frozen=True, slots=True)
class ProgressCallbacks:
    """Progress callbacks: `teacher` gets queries done and in total; `steps` gets step, steps and loss."""

    teacher: Callable[[int, int], None] = lambda done, total: None
    steps: Callable[[int, int, float], None] = lambda step, steps, loss: None


def distil(
    rankings: Sequence[Ranking],
    qrels: Qrels | None,
    open_teacher: Callable[[], Teacher],
    options: Options,
    *,
    say: Say = lambda line: None,
    bars: ProgressCallbacks | None = None,
) -> Card:
    """Run the distillation; calling it again with the same arguments resumes an interrupted run.

    Args:
        rankings: queries with their candidates, best first.
        qrels: judgements, if any: then labels are taught, too, and weight and calibration are fitted to them.
        open_teacher: opens the teacher; called only if a score is missing.
        say: receives progress messages, one line each.

    Raises:
        DataError, ConfigurationError, ModelFolderError: the input is unusable; the message says what was expected.
        InferenceError: the teacher failed; repeat the command to resume.
    """
    bars = bars or ProgressCallbacks()
    training = options.out / TRAINING
    if options.fresh:
        shutil.rmtree(training, ignore_errors=True)
    _make_folder(training)
    rankings = [item.first(options.candidates) for item in rankings]
    labels = qrels if qrels is not None else qrels_of(rankings)
    rankings = add_labels(rankings, labels)
    if len(rankings) < _FEWEST_QUERIES:
        raise DataError(f"{len(rankings)} queries with candidates, at least {_FEWEST_QUERIES} are needed: add queries")
    began = time.perf_counter()
    teacher = CachedTeacher(open_teacher, training / _TEACHER_FILE)
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
        found = agreement(scorer.logits_of_all([(rankings[i].query, rankings[i].texts) for i in held]))
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
    served = _install_served_files(fp32, options)

    checks, logits = _check([rankings[i] for i in held], [scores[i] for i in held], agreement, fp32, teacher, options)
    judged = [_judge(rankings[i], mine, *grade, labels) for i, mine, grade in zip(held, logits, grades, strict=True)]
    has_labels = any(rankings[i].query_id in labels for i in held)
    fitted, figures, note = _fit(judged, has_labels, load_settings(served), options.calibration)
    for folder in {served, fp32}:
        write_settings(folder, replace(fitted, precision=load_settings(folder).precision))
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
        fitted=figures,
        fitted_to=note,
        validated=tuple(run.validated),
    )
    write_card(options.out, card)
    return card


class CachedTeacher:
    """A teacher whose scores are cached in a file; it is opened only if a score is missing there."""

    def __init__(self, open_teacher: Callable[[], Teacher], path: Path) -> None:
        self._open = open_teacher
        self._path = path
        self._teacher: Teacher | None = None
        self._found: dict[str, list[float]] = {}
        self.name = ""
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the run was killed in the middle of a line
                continue
            self._found[row["key"]] = row["scores"]
            self.name = row["teacher"]

    def scores(self, ranking: Ranking) -> Scores:
        """Return a score for each candidate, (n,). Raises InferenceError."""
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
        """Open the teacher again, without cached scores. Raises the errors of opening."""
        return self._open()

    def opened(self) -> Teacher:
        """Return the teacher itself. Raises ConfigurationError if the file contains another teacher's scores."""
        if self._teacher is None:
            self._teacher = self._open()
            if self.name and self.name != self._teacher.name:
                raise ConfigurationError(
                    f"{self._path} holds scores of {self.name!r}, but the teacher is now {self._teacher.name!r}: pass "
                    "another --out, or --fresh to start again"
                )
            self.name = self._teacher.name
        return self._teacher


def split(rankings: Sequence[Ranking], labels: Qrels, options: Options) -> tuple[list[int], list[int]]:
    """Split the queries into training and held-out ones by the hash of the query's text; return their indices.

    With labels, only queries with a relevant document are held out, because others could not be measured.
    """
    judged_ids = {query for query, grades in labels.items() if any(grade > 0 for grade in grades.values())}

    def place(ranking: Ranking) -> bytes:
        return hashlib.blake2b(f"{options.plan.seed}\0{ranking.query}".encode("utf-8", "surrogatepass")).digest()

    order = sorted(range(len(rankings)), key=lambda index: place(rankings[index]))
    eligible = [i for i in order if rankings[i].query_id in judged_ids] if judged_ids else order
    count = min(options.most_validation, max(10, round(options.validation * len(eligible))), len(eligible) // 2)
    held = set(eligible[:count])
    return [i for i in range(len(rankings)) if i not in held], sorted(held)


def _fit(
    queries: Sequence[JudgedQuery], has_labels: bool, settings: ModelSettings, method: Method
) -> tuple[ModelSettings, dict[str, Any], str]:
    """Fit calibration, bound and weight on the held-out queries; without labels, to the teacher's order.

    Return the settings, the figures for the card, and a note.
    """
    try:
        figures = fit(queries, settings, method=method).as_dict() if has_labels else {}
        fitted = fit_settings(queries, settings, method=method)
    except TooFewJudgements as error:
        return settings, {}, f"nothing was fitted: {error.detail}"
    if has_labels:
        return fitted, figures, "judgements of the held-out queries"
    # the weight that follows the teacher best need not be the right one: the student's weight is limited
    fitted = replace(fitted, weight=min(settings.weight, fitted.weight))
    note = (
        "the teacher's first three of each held-out query, since there are no judgements: a probability says how "
        f"likely the teacher would rank the passage among them, and the weight {fitted.weight} follows the "
        f"teacher best (at most {settings.weight}); relevance to users was not measured"
    )
    return fitted, {}, note


def _judge(ranking: Ranking, logits: Scores, grades: Scores, ideal: float, labels: Qrels) -> JudgedQuery:
    if ranking.query_id not in labels:
        grades = (grades >= 2).astype(np.float64)
    return judge(ranking, logits, grades, ideal)


def _grades(ranking: Ranking, scores: Scores, labels: Qrels) -> tuple[Scores, float]:
    """Return the candidates' grades and the ideal DCG, from judgements or else the teacher's order (3, 2, 2, 1 ...)."""
    if ranking.query_id in labels:
        return grades_of(ranking, labels)
    by_teacher = np.zeros(len(scores))
    for rank, index in enumerate(np.argsort(-scores, kind="stable")[:10].tolist()):
        by_teacher[index] = 3 if rank == 0 else 2 if rank < 3 else 1
    return by_teacher, ideal_dcg(by_teacher)


def _check(
    rankings: Sequence[Ranking],
    scores: Sequence[Scores],
    agreement: Callable[[Sequence[Scores]], float],
    fp32: Path,
    teacher: CachedTeacher,
    options: Options,
) -> tuple[Checks, list[Scores]]:
    """Compare the served student with its teacher: quality on the held-out queries, time for the same pairs.

    Return the student's logits as well.
    """
    from reranker.cross_encoder import CrossEncoder

    def run(folder: Path) -> tuple[list[Scores], float]:
        return score_rankings(CrossEncoder(folder, threads=options.plan.threads), rankings)

    plain, plain_ms = run(fp32)
    small, small_ms = run(options.out) if options.int8 else (plain, plain_ms)
    checks = Checks(
        teacher_ndcg=agreement(scores),
        first_stage_ndcg=agreement([min_max(np.array(ranking.scores)) for ranking in rankings]),
        fp32_ndcg=agreement(plain),
        served_ndcg=agreement(small),
        fp32_ms=plain_ms,
        served_ms=small_ms,
        teacher_ms=_teacher_speed(teacher, rankings),
        served_precision="int8" if options.int8 else "fp32",
    )
    return checks, small


def _teacher_speed(teacher: CachedTeacher, rankings: Sequence[Ranking]) -> float:
    """Return milliseconds per pair on passages that the teacher has not seen, so that its caches do not help."""
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


def _install_served_files(fp32: Path, options: Options) -> Path:
    """Move the served files into the folder itself: int8 ones, or those of `fp32`."""
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
        raise ConfigurationError(f"no tokenizer.json in {student}: expected the file of the `tokenizers` library")
    return path


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} can't be created ({error.strerror}): pass another --out") from error


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
