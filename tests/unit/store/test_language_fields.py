"""Fields of the languages: in the templates, and in the lexical leg."""

from __future__ import annotations

from typing import Any

from app.config import load_settings
from app.querytext import MAX_TERMS, read_query
from app.store import languages, queries
from app.store.rendering import INGEST_PIPELINE, compose, render
from app.store.templates import LiveIndexes, _index_drift, other_languages, text_fields, validate
from app.tuning import Boosts

PLAIN = Boosts(title=0, heading=0, phrase=0, codes=0, quoted=0)
GERMAN = ("content_in.de",)


def must(text: str, *fields: str) -> dict[str, Any]:
    (found,) = queries.lexical_leg(read_query(text, fields), PLAIN, [])["bool"]["must"]
    return found


def index_of(**settings: Any) -> LiveIndexes:
    whole = compose(render(load_settings(**settings), "faiss-exact", 384))
    from app.store.drift import settings_fields

    item = {"mappings": whole["mappings"], "settings": settings_fields(whole["settings"])}
    return LiveIndexes(
        {"braid-passages-000001": {**item, "aliases": {"braid-passages": {}, "braid-passages-write": {}}}}
    )


def test_no_languages_change_nothing() -> None:
    plain = render(load_settings(), "faiss-exact", 384)
    assert render(load_settings(languages="en"), "faiss-exact", 384) == plain
    assert plain.text_fields == {}
    fields = languages.QueryFields(load_settings(languages="en").index)
    assert fields.of("find the pump") == ()
    assert must("find the pump", *fields.of("find the pump")) == {"match": {"content": {"query": "find the pump"}}}


def test_the_fields_of_the_languages() -> None:
    rendered = render(load_settings(languages="de,zh,pl,nb"), "faiss-exact", 384)
    whole = compose(rendered)
    assert rendered.text_fields == {
        "en": "content",
        "de": "content_in.de",
        "zh": "content.bigrams",
        "pl": "content_in.pl",
        "no": "content_in.no",
    }
    mappings, analyzers = whole["mappings"], whole["settings"]["index"]["analysis"]["analyzer"]
    assert mappings["_source"]["excludes"] == ["token_vectors", "content_in"]
    assert mappings["_meta"]["languages"] == ["de", "no", "pl"]
    assert set(mappings["properties"]["content_in"]["properties"]) == {"de", "no", "pl"}
    assert (analyzers["braid_de"], analyzers["braid_pl"]) == ({"type": "german"}, {"type": "standard"})
    script = rendered.body("ingest pipeline", INGEST_PIPELINE)["processors"][-1]["script"]
    assert script["params"]["fields"] == {"de": "de", "no": "no", "pl": "pl", "nb": "no", "nn": "no"}
    without = compose(render(load_settings(languages="de", token_vectors=False), "faiss-exact", 384))
    assert without["mappings"]["_source"] == {"excludes": ["content_in"]}
    assert validate(load_settings(languages="de,zh"), 384) == []


def test_the_main_language_needs_no_field_of_its_own() -> None:
    settings = load_settings(language="german", languages="de,en")
    assert languages.text_fields(settings.index) == {"de": "content", "en": "content_in.en"}


def test_a_query_asks_its_own_field_and_the_folded_one() -> None:
    assert must("die Pumpe", *GERMAN) == {
        "bool": {
            "should": [
                {"match": {"content_in.de": {"query": "die Pumpe", "boost": 0.77}}},
                {"match": {"content.folded": {"query": "die Pumpe", "boost": 0.23}}},
            ],
            "minimum_should_match": 1,
        }
    }


def test_an_uncertain_query_asks_several_and_the_main_one() -> None:
    first = must("Berlin", *GERMAN, "content_in.fr")["bool"]["should"][0]
    fields = ("content_in.de", "content_in.fr", "content")
    assert first == {
        "dis_max": {"queries": [{"match": {field: {"query": "Berlin", "boost": 0.77}}} for field in fields]}
    }


def test_chinese_is_pairs_and_its_latin_words_are_words() -> None:
    clauses = must("GIL 是什么", "content.bigrams")["bool"]["should"]
    assert clauses[0] == {"match": {"content.bigrams": {"query": "GIL 是什么", "boost": 0.77}}}
    assert clauses[2] == {"match": {"content": {"query": "GIL  ", "boost": 0.77}}}
    assert len(must("是什么", "content.bigrams")["bool"]["should"]) == 2


def test_words_on_their_own_are_matched_in_the_field_of_the_query() -> None:
    query = read_query('der "rote Knopf" der Pumpe', GERMAN)
    refining = queries.refinement(query, Boosts())
    assert {field for clause in refining for field in clause.get("match_phrase", {})} == {"content_in.de"}
    (quoted,) = queries.lexical_leg(query, Boosts(), [])["bool"]["should"]
    assert set(quoted["match_phrase"]) == {"content_in.de"}
    bodies = queries.lexical_searches(query, Boosts(), [], depth=10, timeout_ms=9, checked=["Pumpe"])
    in_either = bodies[-1]["query"]["bool"]["filter"][0]["bool"]["should"]
    assert [set(clause["match"]) for clause in in_either] == [{"content_in.de"}, {"content.folded"}]


def test_a_long_query_asks_fewer_fields() -> None:
    for fields in (GERMAN, ("content_in.de", "content_in.fr")):
        for words in (150, 200, 400, 5000):
            query = read_query(" ".join(f"w{n}" for n in range(words)), fields)
            body = queries.hybrid_query(query, Boosts(), (0.5,), 7, [])["hybrid"]["queries"][0]
            assert str(body).count(repr(query.text)) * query.terms <= MAX_TERMS, words


def test_an_index_without_the_languages_is_named_and_stays_as_it_is() -> None:
    wanted = render(load_settings(languages="de,zh"), "faiss-exact", 384)
    live = index_of()
    assert list(_index_drift(live, wanted)) == []
    reason = other_languages(live, wanted)
    assert reason is not None
    assert "braid-passages-000001 (none)" in reason
    assert "`braid reindex`" in reason
    assert text_fields(live, wanted) == {"en": "content", "zh": "content.bigrams"}
    assert other_languages(index_of(languages="de,zh"), wanted) is None
    # Chinese needs no field of its own, and so no new index
    assert other_languages(live, render(load_settings(languages="en,zh"), "faiss-exact", 384)) is None


def test_an_index_with_other_languages_is_named() -> None:
    plain = render(load_settings(), "faiss-exact", 384)
    live = index_of(languages="de,fr")
    assert list(_index_drift(live, plain)) == []
    assert "braid-passages-000001 (de, fr)" in str(other_languages(live, plain))


def test_a_query_relies_only_on_fields_that_are_there() -> None:
    fields = languages.QueryFields(load_settings(languages="de,zh").index)
    german = "Wie wird der Verbrauch der Pumpe gemessen?"
    assert fields.of(german) == GERMAN
    assert fields.of(german, {"en": "content", "zh": "content.bigrams"}) == ()
    assert fields.of("什么是泵", {"en": "content"}) == ()
