"""Languages on a real node: every analyzer exists, each passage is in the field of its own language, queries ask it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.config import Settings
from app.languages import ANALYZERS
from app.passage import Passage
from app.querytext import read_query
from app.store import queries, templates
from app.store.bulk import bulk_index
from app.store.capabilities import Capabilities
from app.store.client import READ_ALIAS, Cluster
from app.store.documents import refresh
from app.store.languages import QueryFields
from app.store.reindex import reindex
from app.store.rendering import FIRST_INDEX, RenderedResources, render
from app.tuning import Boosts

TEXTS = {
    "de": "Die Schlösser der Häuser werden jährlich geprüft und anschließend geölt.",
    "en": "The locks of the houses are checked once a year and oiled afterwards.",
    "ru": "Замки домов проверяют каждый год, а затем смазывают маслом.",
    "zh": "每年检查一次房屋的门锁，然后上油。",
    "th": "ล็อคของบ้านจะถูกตรวจสอบทุกปีแล้วหยอดน้ำมัน",
    "names": "😀 4711",
}
INFLECTED = {"de": "Wann wird ein Schloss im Haus geprüft?", "ru": "проверка замка дома", "zh": "门锁", "th": "บ้าน"}


def rendered_for(settings: Settings, capabilities: Capabilities, languages: str) -> RenderedResources:
    chosen = settings.with_values(languages=languages)
    return render(chosen, "faiss-exact", 384, version=capabilities.version)


def found(cluster: Cluster, query: str, fields: tuple[str, ...]) -> list[str]:
    leg = queries.lexical_leg(read_query(query, fields), Boosts(), [])
    hits = cluster.request("POST", f"/{READ_ALIAS}/_search", body={"query": leg})["hits"]["hits"]
    return [hit["_source"]["document_id"] for hit in hits]


def in_field(cluster: Cluster, field: str) -> set[str]:
    body = {"query": {"exists": {"field": field}}}
    hits = cluster.request("POST", f"/{READ_ALIAS}/_search", body=body)["hits"]["hits"]
    assert not any("content_in" in hit["_source"] for hit in hits)
    return {hit["_source"]["document_id"] for hit in hits}


@pytest.fixture
def languages(
    cluster: Cluster,
    capabilities: Capabilities,
    rendered: RenderedResources,
    store_settings: Settings,
    make_passage: Callable[..., Passage],
) -> RenderedResources:
    """Passages in an index without languages; the templates with them, which are returned, are applied afterwards."""
    templates.apply(cluster, capabilities, rendered)
    # as an older Braid wrote them, without the detected language
    passages = [make_passage(name, title="", text=text) for name, text in TEXTS.items()]
    passages.append(make_passage("stated", title="", text="Schloss 4711", language="de-at"))
    assert bulk_index(cluster, passages).indexed == len(passages)
    refresh(cluster)
    return rendered_for(store_settings, capabilities, "en,de,ru,zh,th,pl")


def test_an_index_gets_its_languages_by_reindex(
    languages: RenderedResources, cluster: Cluster, capabilities: Capabilities, store_settings: Settings
) -> None:
    chooser = QueryFields(store_settings.with_values(languages="en,de,ru,zh,th,pl").index)
    templates.apply(cluster, capabilities, languages)
    drifts, live = templates.compare(cluster, languages)
    assert drifts == []
    assert FIRST_INDEX in str(templates.other_languages(live, languages))
    there = templates.text_fields(live, languages)
    assert there == {"en": "content", "zh": "content.bigrams"}
    assert chooser.of(INFLECTED["de"], there) == ()
    assert found(cluster, INFLECTED["zh"], chooser.of(INFLECTED["zh"], there))[0] == "zh"

    reindex(cluster, languages, None, lambda copied: None)
    drifts, live = templates.compare(cluster, languages)
    assert (drifts, templates.other_languages(live, languages)) == ([], None)
    assert in_field(cluster, "content_in.de") == {"de", "stated"}
    assert in_field(cluster, "content_in.ru") == {"ru"}
    assert in_field(cluster, "content_in.th") == {"th"}
    assert in_field(cluster, "content_in.pl") == set()
    for language, query in INFLECTED.items():
        fields = chooser.of(query, templates.text_fields(live, languages))
        assert found(cluster, query, fields)[0] == language, (language, fields)
    # without accents, and in no language of the setting
    assert found(cluster, "schlosser hauser", ("content_in.de",))[0] == "de"
    assert set(found(cluster, "4711", chooser.of("4711"))) == {"stated", "names"}


def test_apply_adds_the_detected_language_to_an_index_of_this_version(
    store: Cluster, capabilities: Capabilities, rendered: RenderedResources
) -> None:
    body: dict[str, Any] = store.request("GET", f"/{FIRST_INDEX}")[FIRST_INDEX]
    mappings = body["mappings"]
    for name in templates.ADDED_FIELDS:
        del mappings["properties"][name]
    store.request("DELETE", f"/{FIRST_INDEX}")
    template = rendered.body("index template", "braid-passages")
    store.request("DELETE", "/_index_template/braid-passages")
    kept = {"analysis", "similarity", "knn", "default_pipeline", "gc_deletes", "knn.advanced.approximate_threshold"}
    settings = {key: value for key, value in body["settings"]["index"].items() if key in kept}
    store.request(
        "PUT",
        f"/{FIRST_INDEX}",
        body={"settings": {"index": settings}, "mappings": mappings, "aliases": body["aliases"]},
    )
    store.request("PUT", "/_index_template/braid-passages", body=template)
    lacks = {drift.field for drift in templates.compare(store, rendered)[0]}
    assert "properties.detected_language.type" in lacks
    changes = templates.apply(store, capabilities, rendered)
    assert ("index fields", FIRST_INDEX) in {(change.kind, change.name) for change in changes}
    assert templates.compare(store, rendered)[0] == []


def test_every_language_of_the_table_can_be_indexed(
    cluster: Cluster, capabilities: Capabilities, store_settings: Settings
) -> None:
    everything = rendered_for(store_settings, capabilities, ",".join(ANALYZERS))
    templates.apply(cluster, capabilities, everything)
    for code in (code for code, field in everything.text_fields.items() if field.startswith("content_in.")):
        body = {"field": f"content_in.{code}", "text": "0815 text ไทย"}
        assert cluster.request("POST", f"/{FIRST_INDEX}/_analyze", body=body)["tokens"], code
    assert templates.compare(cluster, everything)[0] == []
