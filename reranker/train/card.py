"""MODEL_CARD.md: data, training and figures of a student, including the targets that it missed."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reranker.model_folder import MODEL_CARD_FILE

LOSS_ALLOWED = 0.02
"""Share of the teacher's NDCG@10 that a student may lose."""
SPEED_WANTED = 5.0
"""Wanted speed, as a multiple of the teacher's."""
_NO_DATA = "Not stated (`--data`): add the origin and licence of the data before you publish this model."
_PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "tokenizers", "numpy")


@dataclass(frozen=True, slots=True)
class Checks:
    """Figures of teacher and student: NDCG@10 over the held-out queries, and milliseconds per pair."""

    teacher_ndcg: float
    first_stage_ndcg: float
    fp32_ndcg: float
    served_ndcg: float
    teacher_ms: float
    fp32_ms: float
    served_ms: float
    served_precision: str

    @property
    def loss(self) -> float:
        """Share of the teacher's NDCG@10 that the served student lacks; negative if it is better."""
        return 1.0 - self.served_ndcg / self.teacher_ndcg if self.teacher_ndcg else 0.0

    @property
    def speed(self) -> float:
        """Speed as a multiple of the teacher's."""
        return self.teacher_ms / self.served_ms if self.served_ms else 0.0

    @property
    def close_enough(self) -> bool:
        return self.loss <= LOSS_ALLOWED

    @property
    def fast_enough(self) -> bool:
        return self.speed >= SPEED_WANTED

    @property
    def better_than_first_stage(self) -> bool:
        return self.served_ndcg > self.first_stage_ndcg


@dataclass(frozen=True, slots=True)
class Card:
    """Contents of the model card."""

    name: str
    teacher: str
    student: str
    layers: tuple[int, ...]
    queries: int
    held_out: int
    pairs: int
    labels: int
    data: str
    plan: dict[str, Any]
    steps: int
    best_step: int
    seconds: float
    training_seconds: float
    export_difference: float
    checks: Checks
    fitted: dict[str, Any]
    fitted_to: str
    validated: tuple[tuple[int, float], ...]

    def summary(self) -> list[str]:
        """Return the findings, one per line."""
        checks = self.checks
        return [
            f"NDCG@10 on {self.held_out} held-out queries: first stage {checks.first_stage_ndcg:.4f}, teacher "
            f"{checks.teacher_ndcg:.4f}, student {checks.served_ndcg:.4f} ({checks.served_precision}; "
            f"fp32 {checks.fp32_ndcg:.4f})",
            f"within {LOSS_ALLOWED:.0%} of the teacher: {_met(checks.close_enough)} ({checks.loss:+.1%} lost)",
            f"at least {SPEED_WANTED:.0f} times its speed: {_met(checks.fast_enough)} ({checks.speed:.1f} times; "
            f"{checks.teacher_ms:.2f} and {checks.served_ms:.2f} ms per pair)",
            f"alone better than the first stage: {_met(checks.better_than_first_stage)}",
        ]


def write_card(folder: Path, card: Card) -> Path:
    """Write ``MODEL_CARD.md`` into `folder`."""
    path = folder / MODEL_CARD_FILE
    path.write_text(text_of(card), encoding="utf-8")
    return path


def text_of(card: Card) -> str:
    """Return the card as Markdown."""
    layers = ", ".join(map(str, card.layers)) or "all"
    judged = f"{card.labels} relevant documents judged" if card.labels else "no judgements"
    lines = [
        f"# {card.name}",
        "",
        "A cross-encoder for reranking, distilled with `braid-reranker distil`.",
        "",
        "## Checks",
        "",
        *(f"- {line}" for line in card.summary()),
        "",
        "Do not use this model without a check if it missed a target: run `braid-reranker evaluate` on judged "
        "queries of your own.",
        "",
        "## Data",
        "",
        f"- {card.data or _NO_DATA}",
        f"- {card.queries} training queries with {card.pairs} candidates; {judged}",
        f"- {card.held_out} queries held out: to choose the best state, for the checks above, and for the values "
        "fitted "
        "below. The figures are therefore slightly optimistic; only queries that this run never saw are a fair test.",
        "",
        "## Making",
        "",
        f"- teacher: {card.teacher}",
        f"- student: layers {layers} of {card.student}; the licence of its weights applies to this model, too",
        "- loss: margin-MSE (Hofstätter et al. 2020, arXiv 2010.02666) and pairwise hinge",
        f"- {card.steps} steps, best at {card.best_step}, {card.training_seconds / 60:.1f} minutes of training, "
        f"{card.seconds / 60:.1f} in total",
        f"- largest difference between ONNX and torch: {card.export_difference:.1e}",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in card.plan.items()),
        "",
        "| step | validation NDCG@10 |",
        "|---|---|",
        *(f"| {step} | {value:.4f} |" for step, value in card.validated),
        "",
        "## Calibration and weight",
        "",
        f"Fitted to {card.fitted_to}.",
        "",
        *_fitted(card.fitted),
        f"Made {time.strftime('%Y-%m-%d')} on {platform.machine()} with Python {platform.python_version()}, "
        f"{_versions()}.",
        "",
    ]
    return "\n".join(lines)


def _fitted(found: dict[str, Any]) -> list[str]:
    if not found:
        return []
    before, after, calibration = found["before"], found["after"], found["calibration"]
    return [
        f"Fitted on {found['queries fitted']} of the held-out queries and measured on the other "
        f"{found['queries reported']}, weight {found['weight']}: NDCG@10 {before['ndcg']:.4f} -> {after['ndcg']:.4f}, "
        f"MRR@10 {before['mrr']:.4f} -> {after['mrr']:.4f}; expected calibration error "
        f"{calibration['expected error']}, Brier {calibration['Brier']} with a share of "
        f"{calibration['share relevant']} relevant. "
        "The values in `reranker.json` are then fitted on all of them.",
        "",
        "| weight | NDCG@10 | MRR@10 |",
        "|---|---|---|",
        *(f"| {point['weight']} | {point['ndcg']:.4f} | {point['mrr']:.4f} |" for point in found["curve"]),
        "",
    ]


def _met(met: bool) -> str:
    return "yes" if met else "**no**"


def _versions() -> str:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
