"""Reports of an inspection: JSON, and one self-contained HTML page with plots."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from app import __version__
from app.evaluation.report import page_templates
from app.inspection.findings import Bars, Severity
from app.inspection.plots import draw_bars, draw_curve
from app.inspection.run import Inspection

FORMAT = 1
"""Version of the JSON: raised when a field changes its meaning or is removed."""


def as_dict(found: Inspection) -> dict[str, Any]:
    """Return the inspection as plain data for JSON."""
    subject = found.subject
    return {
        "format": FORMAT,
        "braid": __version__,
        "date": time.strftime("%Y-%m-%d"),
        "address": subject.reader.address,
        "index": subject.name,
        "indexes": sorted(subject.mappings),
        "text_field": subject.text.name if subject.text else None,
        "vector_field": subject.vector.name if subject.vector else None,
        "seconds": round(found.seconds, 3),
        "findings": [
            {
                "check": item.check,
                "severity": item.severity.value,
                "title": item.title,
                "evidence": item.evidence,
                "remedy": item.remedy,
                "figures": dict(item.figures),
            }
            for item in found.findings
        ],
    }


def as_html(found: Inspection) -> str:
    """Return the inspection as one page: no script, no font, no link."""
    plots = [
        (item, draw_bars(item.plot) if isinstance(item.plot, Bars) else draw_curve(item.plot))
        for item in found.findings
        if item.plot is not None
    ]
    counts = Counter(item.severity for item in found.findings)
    return (
        page_templates("app.inspection")
        .get_template("inspection.html.j2")
        .render(
            found=found,
            context=as_dict(found),
            vector=found.subject.vector.described if found.subject.vector else "none",
            plots=plots,
            counts=[(severity.value, counts[severity]) for severity in Severity if counts[severity]],
        )
    )
