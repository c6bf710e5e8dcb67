"""Reports of `braid tune`: JSON with every value, Markdown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from app.evaluation.tune import TuningResult


def as_dict(found: TuningResult, findings: Any, notes: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of `tuning.json`."""
    return {
        "tuning": found.tuning.model_dump(mode="json"),
        "better": found.better,
        "verdict": found.verdict,
        "held_out": {name: measured.means for name, measured in found.held_out.items()},
        "comparison": asdict(found.comparison),
        "steps": [asdict(step) for step in found.steps],
        "search_seconds": found.seconds,
        "failed": found.failed,
        "findings": [asdict(finding) for finding in findings],
        "notes": [*notes, *found.notes],
    }


def as_markdown(found: TuningResult) -> str:
    """Return the comparison on held-out queries, and each step."""
    held = found.tuning.about["held out"]
    lines = [
        f"# Tuning on {found.tuning.about['set']}, {found.tuning.about['date']}",
        "",
        f"**{found.verdict}**",
        "",
        "| held out | before | tuned | difference | 95 % interval | p |",
        "|---|---|---|---|---|---|",
        f"| {found.comparison.measure} | {held['before']:.4f} | {held['tuned']:.4f} | {held['difference']:+.4f} "
        f"| {held['interval'][0]:+.4f} to {held['interval'][1]:+.4f} | {held['p']:.4f} |",
        "",
        "| tried | dense share | on the tuning part | kept |",
        "|---|---|---|---|",
    ]
    for step in found.steps:
        share = "" if step.alpha is None else f"{step.alpha:g}"
        lines.append(f"| {step.tried} | {share} | {step.value:.4f} | {'yes' if step.kept else ''} |")
    lines += ["", *(f"- {note}" for note in found.notes), ""]
    return "\n".join(lines)
