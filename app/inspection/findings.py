"""Findings of an inspection, and the plots that show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """Severity of a finding, the worst first. `SKIPPED`: the check was not run, and the evidence says why."""

    CRITICAL = "critical"
    WARNING = "warning"
    NOTE = "note"
    SKIPPED = "not run"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Bars:
    """Bar plot: one value for each label; `limits` are lines with a name, in the same unit."""

    title: str
    unit: str
    values: Mapping[str, float]
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Curve:
    """Curve with its 95 % band: points of (x, value, low, high); `lines` are values that do not depend on x."""

    title: str
    x: str
    unit: str
    points: tuple[tuple[float, float, float, float], ...]
    lines: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check; `figures` are the numbers of the evidence, for programs."""

    severity: Severity
    title: str
    evidence: str
    remedy: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    plot: Bars | Curve | None = None
    check: str = ""
    """Name of the check, set by the run."""


def ok(title: str, evidence: str, **rest: Any) -> Finding:
    """Return a finding that nothing is wrong."""
    return Finding(Severity.OK, title, evidence, **rest)


def skipped(title: str, reason: str, remedy: str = "") -> Finding:
    """Return the finding of a check that was not run."""
    return Finding(Severity.SKIPPED, title, f"not run, because {reason}", remedy)
