"""The saved objects for OpenSearch Dashboards: they parse, refer to each other, and name fields that exist.

No Dashboards has ever imported them here; this is what can be checked without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[2]
SAVED = [orjson.loads(line) for line in (ROOT / "docker/dashboards/braid.ndjson").read_bytes().splitlines()]
TEMPLATE = orjson.loads((ROOT / "mappings/index_templates/braid-queries.json").read_bytes())
PROPERTIES = TEMPLATE["template"]["mappings"]["properties"]
BY_ID = {(item["type"], item["id"]): item for item in SAVED}
# the newest versions for which Dashboards 2.19 has a migration: a higher one is refused at the import
VERSIONS = {"index-pattern": "7.6.0", "visualization": "7.10.0", "dashboard": "7.9.3"}


def leaves(properties: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in properties.items():
        if "properties" in field:
            yield from leaves(field["properties"], f"{prefix}{name}.")
            continue
        yield prefix + name, field
        yield from leaves(field.get("fields", {}), f"{prefix}{name}.")


FIELDS = dict(leaves(PROPERTIES))


def visualizations() -> list[dict[str, Any]]:
    return [item for item in SAVED if item["type"] == "visualization"]


def test_there_is_one_pattern_one_dashboard_and_its_visualisations() -> None:
    kinds = [item["type"] for item in SAVED]
    assert (kinds.count("index-pattern"), kinds.count("dashboard")) == (1, 1)
    assert 5 <= kinds.count("visualization") == len(SAVED) - 2
    assert len(BY_ID) == len(SAVED)
    pattern = next(item for item in SAVED if item["type"] == "index-pattern")["attributes"]
    assert [pattern["title"]] == TEMPLATE["index_patterns"]
    assert FIELDS[pattern["timeFieldName"]]["type"] == "date"


@pytest.mark.parametrize("item", SAVED, ids=lambda item: str(item["id"]))
def test_every_object_has_its_version_and_its_references_resolve(item: dict[str, Any]) -> None:
    assert item["migrationVersion"] == {item["type"]: VERSIONS[item["type"]]}
    for reference in item["references"]:
        assert (reference["type"], reference["id"]) in BY_ID
    names = {reference["name"] for reference in item["references"]}
    if item["type"] == "visualization":
        source = orjson.loads(item["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
        assert {source["indexRefName"]} == names
    if item["type"] == "dashboard":
        panels = orjson.loads(item["attributes"]["panelsJSON"])
        assert {panel["panelRefName"] for panel in panels} == names
        assert {reference["id"] for reference in item["references"]} == {found["id"] for found in visualizations()}
        places = {(panel["gridData"]["x"], panel["gridData"]["y"]) for panel in panels}
        assert len(places) == len({panel["panelIndex"] for panel in panels}) == len(panels)
        assert orjson.loads(item["attributes"]["optionsJSON"])


@pytest.mark.parametrize("item", visualizations(), ids=lambda item: str(item["id"]))
def test_every_field_that_is_named_exists_and_can_be_aggregated(item: dict[str, Any]) -> None:
    state = orjson.loads(item["attributes"]["visState"])
    assert state["title"] == item["attributes"]["title"]
    numbers = [aggregation["id"] for aggregation in state["aggs"]]
    assert len(set(numbers)) == len(numbers)
    for aggregation in state["aggs"]:
        parameters = aggregation["params"]
        assert parameters.get("orderBy", numbers[0]) in numbers
        if "field" in parameters:
            field = FIELDS[parameters["field"]]
            assert field["type"] != "text"
            assert field.get("doc_values", True)
    query = orjson.loads(item["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]
    assert query["language"] == "kuery"
    for part in query["query"].split(" and "):
        name, _, value = part.partition(":")
        assert FIELDS[name]
        assert name != "kind" or value in {"query", "feedback"}


def test_the_patterns_own_list_of_fields_is_that_of_the_template() -> None:
    pattern = next(item for item in SAVED if item["type"] == "index-pattern")["attributes"]
    listed = {field["name"]: field["esTypes"] for field in orjson.loads(pattern["fields"])}
    searchable = {name: [field["type"]] for name, field in FIELDS.items() if field.get("index", True)}
    assert listed == searchable


def test_the_template_is_strict_and_ours() -> None:
    assert TEMPLATE["template"]["mappings"]["dynamic"] == "strict"
    assert TEMPLATE["_meta"]["managed_by"] == "braid"
