"""Identifiers, quoted phrases and typing errors on the real node; what a page is made into; another language.

The passages are a source of their own in the service that all tests share, and gone afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.config import load_settings
from app.embedding.encoder import load_encoder
from app.ingest.records import ready_document
from app.ingest.single import ingest_document
from app.search.readiness_gate import ReadinessGate, StoreState
from app.search.request import SearchRequest
from app.search.service import SearchService
from app.store import documents as documents_of_the_store
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.heads import ensure_index
from app.store.rendering import compose, render

pytestmark = pytest.mark.live

SOURCE = "text-leg"
Answer = dict[str, Any]

LONG = "To configure the cooling circuit pump, open the display panel and turn the dial; this is step"


def rows() -> Iterator[dict[str, str]]:
    for n in range(4709, 4719):
        yield {"_id": f"err-{n}", "text": f"ERR-{n}: the controller stopped. See the manual for what to do."}
    yield {"_id": "about errors", "text": "What to do when the controller stopped: read the error, read the manual."}
    for version in ("v2.19.1", "2.19.2", "2.19", "v2.91.1", "2.19.10"):
        yield {"_id": f"release {version}", "text": f"Release {version} mends the rotor driver."}
    for part in ("AB-12/34-X", "AB-12/34-Y", "AB-12/99-X", "AC-12/34-X"):
        yield {"_id": f"part {part}", "text": f"The spare part {part} fits the rotor. It is kept in the shed."}
    for n in range(24):
        yield {"_id": f"step {n}", "text": f"{LONG} {n}."}
    yield {"_id": "upload queue", "text": "When the upload queue is full, wait."}
    yield {"_id": "queue upload", "text": "The queue is long: the upload of a file takes a while, and the queue grows."}
    yield {"_id": "authentication", "text": "The server checks the authentication of each user."}
    for n in range(4):
        yield {"_id": f"server {n}", "text": f"The server room number {n} is cold."}
    yield {"_id": "form", "text": "Fill in the form."}
    yield {"_id": "from", "text": "The farm sells eggs."}
    yield {"_id": "titled", "title": "Harbour crane", "text": "It lifts forty tonnes at most, says the sheet."}
    yield {"_id": "untitled", "text": "Harbour crane: it lifts forty tonnes at most, says the sheet."}
    yield {"_id": "evil", "text": "The <script>alert('lantern')</script> lantern burns & glows <b>red</b>."}
    for n in range(5):
        log = "The lighthouse keeper writes the log at noon, cleans the lamp, winds the clock, feeds the hens,"
        text = f"{log} mends the nets and sleeps until dusk in the small room under the roof on day {n}."
        yield {"_id": f"keeper {n}", "text": text}
    yield {"_id": "ppr dash", "text": "The valve PPR-9087 closes on its own."}
    yield {"_id": "ppr space", "text": "Order the gasket ppr 9087 with it."}
    yield {"_id": "ppr near", "text": "The valve PPR-9088 is another."}
    yield {"_id": "wide", "text": "型番 ＷＸＹ－４４３２ の説明書。 Ｐｅｒｉｓｃｏｐｅ"}
    yield {"_id": "accent", "text": "The café at the pier serves smørrebrød to Zoë."}
    yield {"_id": "no accent", "text": "Another cafe is closed in winter."}
    yield {"_id": "composed", "text": "Le pa\u0302te\u0301 est froid."}
    yield {"_id": "stop words", "text": "Who is it? It is such as they will."}
    # a document of many passages
    lines = [
        f"Chapter {n}. The lighthouse of island {n} was built of {w}. " + f"{w.capitalize()} was brought by ship. " * 12
        for n, w in enumerate(("granite", "timber", "brick", "concrete", "limestone", "steel", "basalt", "marble"))
    ]
    yield {"_id": "lighthouses", "title": "Lighthouses", "text": "\n\n".join(lines)}


@pytest.fixture(scope="module")
def service(braid_up: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    path: Path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(json.dumps({**row, "source_id": SOURCE}) for row in rows()))
    env = {"BRAID_DATA_DIR": str(braid_up["data"]), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "app.cli", "ingest", str(path)]
    subprocess.run(command, check=True, env=env, capture_output=True, timeout=300)
    with httpx2.Client(base_url=braid_up["url"], timeout=60, trust_env=False) as client:
        yield client
        gone = client.post(
            f"{braid_up['opensearch_url']}/braid-passages/_delete_by_query?refresh=true",
            json={"query": {"term": {"source_id": SOURCE}}},
        )
        assert gone.json()["failures"] == []


def search(service: httpx2.Client, query: str, **body: Any) -> Answer:
    answer = service.post(
        "/v1/search", json={"query": query, "filter": {"source_id": [SOURCE]}, "explain": True, **body}
    )
    assert answer.status_code == 200, answer.text
    found: Answer = answer.json()
    assert found["degraded"] == []
    scores = [item["score"] for item in found["results"]]
    assert scores == sorted(scores, reverse=True) or body.get("mmr")
    return found


def documents(found: Answer) -> list[str]:
    return [item["document_id"] for item in found["results"]]


WAYS: list[dict[str, Any]] = [
    {},
    {"mode": "lexical"},
    {"fusion": {"method": "rrf"}},
    {"fusion": {"alpha": 1.0}},
    {"fusion": {"alpha": 0.5, "normalization": "z_score"}},
    {"fusion": {"alpha": 0.9, "normalization": "l2"}},
]


@pytest.mark.parametrize(
    ("query", "first", "code"),
    [
        ("ERR-4711", ["err-4711"], "err-4711"),
        ("what to do when the controller stopped with err-4711?", ["err-4711"], "err-4711"),
        ("v2.19.1", ["release v2.19.1"], "v2.19.1"),
        ("what does release 2.19.1 mend?", ["release v2.19.1"], "2.19.1"),
        ("v2.19.2", ["release 2.19.2"], "v2.19.2"),
        ("AB-12/34-X", ["part AB-12/34-X"], "ab-12/34-x"),
        ("where is the part (ab-12/99-x) kept", ["part AB-12/99-X"], "ab-12/99-x"),
    ],
)
def test_an_identifier_wins_over_its_neighbours(
    service: httpx2.Client, query: str, first: list[str], code: str
) -> None:
    for way in WAYS:
        found = search(service, query, **way)
        assert documents(found)[: len(first)] == first, way
        assert found["explanation"]["exact"] == [code]


def test_two_identifiers_are_both_found(service: httpx2.Client) -> None:
    for way in WAYS:
        found = search(service, "compare ERR-4711 with ERR-4715", **way)
        assert set(documents(found)[:2]) == {"err-4711", "err-4715"}
        assert found["explanation"]["exact"] == ["err-4711", "err-4715"]


@pytest.mark.parametrize("candidates", [10, 100])
def test_a_code_in_a_long_question_wins_over_all_its_other_words(service: httpx2.Client, candidates: int) -> None:
    """Two dozen passages match every other word, so that the one with the code is not among ten candidates."""
    question = "How do I configure the cooling circuit pump with the dial of the display panel when it shows ERR-4711?"
    for way in WAYS:
        found = search(service, question, candidates=candidates, size=5, **way)
        assert documents(found)[0] == "err-4711", way
        assert {name.split()[0] for name in documents(found)[1:]} == {"step"}


def test_an_identifier_that_nobody_wrote_changes_nothing(service: httpx2.Client) -> None:
    found = search(service, "the spare part of the rotor XY-99/1-Z")
    assert found["explanation"]["exact"] == []
    assert documents(found)[0].startswith("part")


def test_an_identifier_that_the_filter_hides_is_not_told(service: httpx2.Client) -> None:
    found = search(service, "ERR-4711", filter={"source_id": [SOURCE], "document_id": ["err-4712", "err-4713"]})
    assert found["explanation"]["exact"] == []
    assert set(documents(found)) == {"err-4712", "err-4713"}


def test_a_quoted_phrase_stands_before_its_words(service: httpx2.Client) -> None:
    for mode in ("lexical", "hybrid"):
        for query, first in (('"upload queue"', "upload queue"), ("„upload queue“ file", "upload queue")):
            assert documents(search(service, query, mode=mode))[0] == first


@pytest.mark.parametrize(
    "query", ["authentcation", "authentcation server", "athentication of the server", "how does autentication work"]
)
@pytest.mark.parametrize("way", WAYS[:3], ids=["hybrid", "lexical", "rrf"])
def test_a_typing_error_is_seen_through(service: httpx2.Client, query: str, way: dict[str, Any]) -> None:
    """Also where other words of the query match already: then a corrected word adds no passage, it only ranks."""
    found = search(service, query, **way)
    assert documents(found)[0] == "authentication"
    (word,) = found["explanation"]["corrected"]
    assert word in query
    if not way:
        legs = [search(service, query, mode=mode, size=100)["results"] for mode in ("lexical", "dense")]
        assert found["total"] == len({item["id"] for leg in legs for item in leg})


@pytest.mark.parametrize("query", ["form", "authentication", "server room", "farm eggs", "ERR-4711", "which lantern"])
def test_a_word_that_is_there_is_never_corrected(service: httpx2.Client, query: str) -> None:
    found = search(service, query)
    assert found["explanation"]["corrected"] == []
    if query == "form":  # and not taken for "farm", which is one letter away
        assert documents(search(service, query, mode="lexical")) == ["form"]


def test_what_no_word_is_like_is_not_corrected(service: httpx2.Client) -> None:
    found = search(service, "zzzzqqqq server")
    assert found["explanation"]["corrected"] == []
    assert documents(found)[0].startswith("server")
    assert search(service, "zzzzqqqq", mode="lexical")["total"] == 0


@pytest.mark.parametrize("query", ["IT", "who", "the who", "who will it be", "such as"])
def test_stop_words_alone_reach_the_lexical_leg(service: httpx2.Client, query: str) -> None:
    found = search(service, query, mode="lexical", size=100)
    assert "stop words" in documents(found)
    assert found["explanation"]["stop_words"]
    assert any(item["scores"]["lexical"] for item in search(service, query)["results"])
    assert not search(service, f"{query} lantern")["explanation"]["stop_words"]


def test_a_query_without_words_says_so(service: httpx2.Client) -> None:
    for query in ("?!", "…"):
        answer = service.post("/v1/search", json={"query": query, "mode": "lexical"}).json()
        assert (answer["total"], [item["reason"].split(":")[0] for item in answer["degraded"]]) == (0, ["no-words"])


def test_an_identifier_is_found_in_each_spelling(service: httpx2.Client) -> None:
    for query in ("ppr9087", "PPR-9087", "ppr 9087", "ＰＰＲ－９０８７"):
        found = documents(search(service, query, mode="lexical"))
        assert set(found[:2]) == {"ppr dash", "ppr space"}, query
    assert documents(search(service, "ppr9087"))[0] == "ppr dash"
    for way in WAYS:
        assert documents(search(service, "wxy-4432", **way))[0] == "wide"


@pytest.mark.parametrize(
    ("query", "found", "accents"),
    [
        ("cafe", ["no accent", "accent"], ["cafe"]),
        ("café", ["accent", "no accent"], ["café"]),
        ("cafe\u0301", ["accent", "no accent"], ["café"]),
        ("smorrebrod", ["accent"], ["smorrebrod"]),
        ("zoe", ["accent"], ["zoe"]),
        ("periscope", ["wide"], ["periscope"]),
        ("ｌａｎｔｅｒｎ", ["evil"], ["ｌａｎｔｅｒｎ"]),
        ("pate froid", ["composed"], ["pate"]),
        ("pâté", ["composed"], []),
    ],
)
def test_accents_and_width_do_not_matter(
    service: httpx2.Client, query: str, found: list[str], accents: list[str]
) -> None:
    lexical = search(service, query, mode="lexical", exact_total=True)
    assert documents(lexical) == found
    assert (lexical["explanation"]["accents"], lexical["explanation"]["corrected"]) == (accents, [])
    assert not lexical["explanation"]["stop_words"]
    assert lexical["total"] == len(found)


LONG_QUERIES = {
    "ideographs": "".join(chr(0x4E00 + n) for n in range(400)),
    "one word": "漢" * 4000,
    "emoji": "".join(chr(0x1F300 + n) for n in range(1100)),
    "words": " ".join(f"{chr(0x4E00 + n)}" for n in range(2000)),
    "mixed": " ".join(
        f"{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz0123456789" for b in "abcdefghijklmnopqrstuvwxyz012345"
    ),
    "thai": "ภาษาไทย" * 500,
}


@pytest.mark.parametrize("name", LONG_QUERIES)
def test_a_long_question_is_answered(service: httpx2.Client, name: str) -> None:
    body = {
        "query": f"{LONG_QUERIES[name]} lantern"[:4096],
        "filter": {"source_id": [SOURCE]},
        "highlight": True,
        "size": 60,
    }
    for mode in ("lexical", "hybrid"):
        answer = service.post("/v1/search", json={**body, "mode": mode})
        assert answer.status_code == 200, answer.text
        stages = [(item["stage"], item["reason"].split(":")[0]) for item in answer.json()["degraded"]]
        cut = name in {"emoji", "words", "mixed"}
        assert [item for item in stages if item[0] == "lexical"] == [("lexical", "query-cut")] * cut
        assert ("correction", "store-error") not in stages
        assert name == "thai" or "evil" in documents(answer.json())


def test_a_cluster_that_takes_few_clauses_gets_fewer_words(service: httpx2.Client, braid_up: dict[str, Any]) -> None:
    name = "indices.query.bool.max_clause_count"
    address = f"{braid_up['opensearch_url']}/_cluster/settings"
    assert service.put(address, json={"transient": {name: 64}}).status_code == 200
    try:
        query = " ".join(f"{a}{b}{a}" for a in "bcdfghjklm" for b in "bcdfghjklmnpqrs") + " authentication"
        for mode in ("lexical", "hybrid"):
            body = {"query": query, "mode": mode, "filter": {"source_id": [SOURCE]}, "highlight": True, "cache": False}
            answer = service.post("/v1/search", json=body)
            assert answer.status_code == 200, answer.text
            assert [item["reason"].split(":")[0] for item in answer.json()["degraded"]] == ["query-cut"]
            assert "authentication" in documents(answer.json())
    finally:
        service.put(address, json={"transient": {name: None}})


def test_what_a_filter_leaves_out(service: httpx2.Client) -> None:
    for mode in ("lexical", "dense", "hybrid"):
        chosen = {"source_id": [SOURCE], "not": {"document_id": ["err-4711", "about errors"]}}
        found = search(service, "ERR-4711 controller stopped manual", mode=mode, filter=chosen, size=50)
        assert {"err-4711", "about errors"}.isdisjoint(documents(found))
        assert "err-4712" in documents(found)
    nothing = search(service, "controller", filter={"source_id": [SOURCE], "not": {"source_type": ["json"]}})
    assert (nothing["results"], nothing["total"]) == ([], 0)


def test_a_word_counts_more_in_the_title(service: httpx2.Client) -> None:
    found = search(service, "harbour crane", mode="lexical")
    assert documents(found)[:2] == ["titled", "untitled"]
    first, second = (item["score"] for item in found["results"][:2])
    assert first > second


# what a page is made into


def pages(service: httpx2.Client, query: str, upto: int, step: int, **body: Any) -> list[str]:
    return [
        item["id"]
        for start in range(0, upto, step)
        for item in search(service, query, size=min(step, upto - start), **body, **{"from": start})["results"]
    ]


SHAPES: list[dict[str, Any]] = [
    {"max_per_document": 1},
    {"max_per_document": 2},
    {"fold_duplicates": True},
    {"mmr": True},
    {"mmr": {"lambda": 0.2}},
    {"mmr": {"lambda": 0.5}, "max_per_document": 2, "fold_duplicates": True, "highlight": True},
]


@pytest.mark.parametrize("shape", SHAPES, ids=json.dumps)
def test_shaped_pages_are_cuts_of_one_list(service: httpx2.Client, shape: dict[str, Any]) -> None:
    whole = [item["id"] for item in search(service, "the lighthouse was built", size=12, **shape)["results"]]
    assert len(set(whole)) == 12
    assert pages(service, "the lighthouse was built", 12, 5, **shape) == whole


def test_at_most_so_many_of_a_document(service: httpx2.Client) -> None:
    free = documents(search(service, "lighthouses and what they were built of", size=10))
    assert free.count("lighthouses") > 2
    for most in (1, 2):
        bound = documents(search(service, "lighthouses and what they were built of", size=10, max_per_document=most))
        assert (bound.count("lighthouses"), len(bound)) == (most, 10)


def test_near_copies_are_folded_into_the_best(service: httpx2.Client) -> None:
    query = "the lighthouse keeper winds the clock"
    free = search(service, query, size=30)["results"]
    copies = [item["id"] for item in free if item["document_id"].startswith("keeper")]
    assert len(copies) == 5
    assert not any(item["duplicates"] for item in free)
    folded = search(service, query, size=30, fold_duplicates=True)["results"]
    shown = [item for item in folded if item["document_id"].startswith("keeper")]
    assert [(item["id"], item["duplicates"]) for item in shown] == [(copies[0], copies[1:])]


def test_mmr_varies(service: httpx2.Client) -> None:
    query = "the lighthouse keeper winds the clock"
    plain = documents(search(service, query, size=5))
    assert all(name.startswith("keeper") for name in plain)
    assert documents(search(service, query, size=5, mmr={"lambda": 1})) == plain
    varied = documents(search(service, query, size=5, mmr={"lambda": 0.3}))
    assert varied[0] == plain[0]
    assert sum(name.startswith("keeper") for name in varied) < 5


def test_what_was_matched_is_marked_and_what_looks_like_a_tag_is_text(service: httpx2.Client) -> None:
    for way in WAYS[:3]:
        first = search(service, "lantern", highlight=True, **way)["results"][0]
        assert first["document_id"] == "evil"
        assert first["text"].startswith("The <script>")  # as it was written: that is JSON, not HTML
        (fragment,) = first["highlights"]["text"]
        assert fragment.count("<mark>lantern</mark>") == 2
        bare = fragment.replace("<mark>", "").replace("</mark>", "")
        assert "<" not in bare
        assert "&lt;script&gt;" in bare
    assert search(service, "lantern")["results"][0]["highlights"] is None


def test_marks_follow_stems_titles_and_corrections(service: httpx2.Client) -> None:
    titled = search(service, "harbours with cranes", mode="lexical", highlight=True)["results"][0]
    assert titled["highlights"]["title"] == ["<mark>Harbour</mark> <mark>crane</mark>"]
    corrected = search(service, "authentcation", highlight=True)["results"][0]
    assert "<mark>authentication</mark>" in corrected["highlights"]["text"][0]
    dense = search(service, "harbour crane", mode="dense", highlight=True, size=3)["results"]
    assert any(item["highlights"] for item in dense)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"candidates": 5}, "candidates"),
        ({"candidates": 1001}, "candidates"),
        ({"candidates": "all"}, "candidates"),
        ({"max_per_document": 0}, "max_per_document"),
        ({"max_per_document": 1.5}, "max_per_document"),
        ({"fold_duplicates": "yes"}, "fold_duplicates"),
        ({"mmr": "yes"}, "mmr"),
        ({"mmr": {"lambda": 2}}, "mmr"),
        ({"mmr": {"lamda": 0.5}}, "mmr"),
        ({"highlight": 1}, "highlight"),
        ({"explain": "no"}, "explain"),
        ({"fusion": {"learned": "yes"}}, "fusion.learned"),
        ({"fusion": {"normalization": "softmax"}}, "fusion.normalization"),
        ({"fusion": {"learned": True, "alpha": 0.5}}, "fusion"),
        ({"fusion": {"method": "rrf", "normalization": "l2"}}, "fusion"),
        ({"size": 50, "from": 51}, "size"),
        ({"size": 11, "candidates": 10}, "size"),
        ({"boost": 2}, "boost"),
    ],
)
def test_bad_input_names_its_field(service: httpx2.Client, body: dict[str, Any], place: str) -> None:
    answer = service.post("/v1/search", json={"query": "x", **body})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    places = [".".join(str(part) for part in item["loc"]) for item in answer.json()["errors"]]
    assert any(found == f"body.{place}" or found.startswith(f"body.{place}.") for found in places), places


# another language: an index rendered with BRAID_LANGUAGE=german on the same node, ingested and searched in this process


@pytest.fixture(scope="module")
def german(braid_up: dict[str, Any]) -> Iterator[SearchService]:
    texts = {
        "Häuser": "Die Häuser am Hafen wurden 1920 gebaut.",
        "Schule": "Die Schule liegt am Markt, und nicht am Fluss.",
        "Straße": "Die Straße wurde gesperrt, oder jedenfalls eine davon.",
    }
    name = "text-leg-german"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BRAID_LANGUAGE", "german")
        own = load_settings(opensearch_url=braid_up["opensearch_url"], opensearch_timeout_s=60)
    encoder = load_encoder(own)
    cluster = Cluster(own.opensearch).within(name)
    body = {**compose(render(own, "faiss-exact", encoder.dimension)), "aliases": {name: {"is_write_index": True}}}
    cluster.request("PUT", f"/{name}-000001", body=body)
    ensure_index(cluster)
    for document, text in texts.items():
        made = ready_document({"document_id": document, "text": text}, tenant=own.access.tenant, source_id="german")
        ingest_document(made, settings=own, cluster=cluster, encoder=encoder)
    documents_of_the_store.refresh(cluster)
    state = StoreState((), shards=1, native_rrf_across_shards=False)
    with ThreadPoolExecutor(4) as executor:
        yield SearchService(own, cluster, encoder, ReadinessGate(lambda: state, executor), executor)
    cluster.request("DELETE", f"/{name}-000001,{cluster.heads_index}")
    cluster.close()


@pytest.mark.parametrize(
    ("query", "found", "corrected"),
    [
        ("Haus", ["Häuser"], ()),
        ("Hauses", ["Häuser"], ()),
        ("Schulen", ["Schule"], ()),
        ("Strassen", ["Straße"], ()),
        ("nicht oder eine", ["Straße", "Schule"], ()),  # stop words alone; they are no typing errors
        ("nicht die Schuhle", ["Schule"], ("Schuhle",)),
    ],
)
def test_german(german: SearchService, query: str, found: list[str], corrected: tuple[str, ...]) -> None:
    for mode in ("lexical", "hybrid"):
        result = german.search(SearchRequest.model_validate({"query": query, "mode": mode}), Scope("default"))
        assert [hit.document_id for hit in result.hits if hit.lexical is not None] == found
        assert result.corrected == corrected
