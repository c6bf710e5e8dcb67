"""docs/metrics.md is made of the metrics themselves. To write it anew: ``python -m tests.unit.test_metrics_page``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType

from prometheus_client.metrics import MetricWrapperBase

import app.telemetry
import reranker.telemetry
from tests.unit.generated import DOCS, ROOT

PAGE = DOCS / "metrics.md"
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "braid.json"
HEAD = """\
# Metrics

Made from `app/telemetry/__init__.py` and `reranker/telemetry.py` by `python -m tests.unit.test_metrics_page`; a test
compares it with them.

`GET /metrics` answers in Prometheus' text format, for callers with the role `metrics` ([access.md](access.md)). With
several workers, counters and histograms are added up over all of them; gauges say below how. A histogram has the
series `_bucket`, `_sum` and `_count`. `docker/prometheus/` and `docker/grafana/` have a scrape configuration and a
dashboard. No metric carries a query, a document id or a name of a caller.
"""
SECTIONS = {"The service": app.telemetry, "The reranker's server": reranker.telemetry}
GAUGES = {"livesum": "sum of the workers", "livemax": "highest of the workers"}


def metrics(module: ModuleType) -> Iterator[MetricWrapperBase]:
    """The metrics of a module, in the order in which they are defined."""
    return (value for value in vars(module).values() if isinstance(value, MetricWrapperBase))


def series(metric: MetricWrapperBase) -> str:
    """The name under which values are found; a histogram's has suffixes, too."""
    described = metric.describe()[0]
    return described.name + "_total" * (described.type == "counter")


def row(metric: MetricWrapperBase) -> str:
    kind = metric.describe()[0].type
    if kind == "gauge":
        kind += f" ({GAUGES[metric._multiprocess_mode]})"  # type: ignore[attr-defined]
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return f"| `{series(metric)}` | {kind} | {labels} | {metric.describe()[0].documentation} |"


def page() -> str:
    parts = [HEAD]
    for title, module in SECTIONS.items():
        parts += [f"## {title}\n", "| name | type | labels | |", "|---|---|---|---|", *map(row, metrics(module)), ""]
    return "\n".join(parts)


def names() -> set[str]:
    """All names that a series can have."""
    found = {series(metric) for module in SECTIONS.values() for metric in metrics(module)}
    return found | {f"{name}{suffix}" for name in found for suffix in ("_bucket", "_sum", "_count")}


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page()


def test_dashboards_ask_for_metrics_that_exist() -> None:
    expressions = re.findall(r'"expr": "([^"]*)"', DASHBOARD.read_text())
    assert expressions
    asked = {name for expression in expressions for name in re.findall(r"\b[a-z_]+_[a-z]+(?=[\[{])", expression)}
    assert asked <= names()


def test_pages_name_metrics_that_exist() -> None:
    for path in DOCS.glob("*.md"):
        named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*_(?:total|latency_seconds|wait_seconds))[`{]", path.read_text()))
        assert named <= names(), path.name


if __name__ == "__main__":
    PAGE.write_text(page())
