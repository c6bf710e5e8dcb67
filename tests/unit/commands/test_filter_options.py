from __future__ import annotations

from typing import Any

import click
from click.testing import CliRunner

from app.commands.options import query_body, service_options
from app.passage import FIELDS
from app.search.request import SearchRequest


def body(*arguments: str) -> dict[str, Any]:
    """The body that a command with `service_options` makes of its arguments."""
    made: dict[str, Any] = {}

    @click.command()
    @click.argument("query", nargs=-1)
    @service_options
    def command(query: tuple[str, ...], url: str | None, key: str | None, as_json: bool, **how: Any) -> None:
        made.update(query_body(query, **how))

    result = CliRunner().invoke(command, ["pump", *arguments])
    assert result.exit_code == 0, result.output
    return made


def test_each_field_that_can_be_filtered_by_has_an_option() -> None:
    options = {option.name for option in service_options(click.Command("search")).params}
    fields = [name for name, stored in FIELDS.items() if stored.filter]
    names = {name: {name, f"{name}_from"} for field in fields for name in (field, f"not_{field}")}
    assert [name for name, either in names.items() if either.isdisjoint(options)] == []


def test_options_become_the_filter() -> None:
    given = {
        "document_id": ("--document", "d"),
        "source_id": ("--source", "wiki"),
        "source_type": ("--type", "pdf"),
        "topic_tags": ("--tag", "hr"),
        "language": ("--language", "de"),
        "pages": ("--page", "3"),
        "timestamp": ("--timestamp-from", "2024-01-01", "--timestamp-to", "2024-12-31"),
    }
    request = SearchRequest.model_validate(body(*(argument for options in given.values() for argument in options)))
    assert request.filter.model_dump(exclude_none=True) == {
        "document_id": ["d"],
        "source_id": ["wiki"],
        "source_type": ["pdf"],
        "topic_tags": ["hr"],
        "language": ["de"],
        "pages": [3],
        "timestamp": {"gte": "2024-01-01", "lte": "2024-12-31"},
    }


def test_options_become_what_is_left_out() -> None:
    given = ["--source", "wiki", "--not-tag", "Draft", "--not-tag", "old", "--not-type", "pdf", "--not-page", "3"]
    made = body(*given, "--not-timestamp-to", "2019-12-31")["filter"]
    assert made == {
        "source_id": ["wiki"],
        "not": {
            "topic_tags": ["Draft", "old"],
            "source_type": ["pdf"],
            "pages": [3],
            "timestamp": {"lte": "2019-12-31"},
        },
    }
    SearchRequest.model_validate({"query": "x", "filter": made})


def test_options_are_given_again_or_left_out() -> None:
    assert body("--tag", "a", "--tag", "b")["filter"] == {"topic_tags": ["a", "b"]}
    assert body("--timestamp-to", "2024")["filter"] == {"timestamp": {"lte": "2024"}}
    assert body()["filter"] == {}
