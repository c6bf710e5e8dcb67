"""What README says of a search is what a service does as it ships."""

from __future__ import annotations

import re
from pathlib import Path

from app.config.retrieval import SearchSettings
from app.search.plan import choose
from app.search.request import SearchRequest

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_way_that_readme_names_is_the_default_one() -> None:
    opening = " ".join(README.read_text().partition("\n## ")[0].split())
    service, _, native = opening.partition("without the service:")
    plan = choose(
        SearchRequest(query="how are sentences split"),
        wanted=SearchSettings.model_fields["hybrid_way"].default,
        shards=1,
        native_rrf_across_shards=True,
        native_linear=True,
        exact=False,
    )
    assert plan.way == "legs"
    assert plan.reason in service
    assert "hybrid" not in service
    assert re.search("one native `hybrid` query .*BRAID_HYBRID_WAY=native", native)
