"""Templates and pipelines on a real node: applied, compared field by field, repaired, refused."""

from __future__ import annotations

import math
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from app.api.factory import create_app
from app.api.services import Services
from app.assets import asset_folder
from app.config import Settings, load_settings
from app.config.section import VectorVariant
from app.dev.checks import examine
from app.errors import CapabilityError, StoreNotReady
from app.passage import Passage
from app.serving.readiness import StoreCheck
from app.store import templates
from app.store.bulk import bulk_index
from app.store.capabilities import Capabilities
from app.store.client import HEADS_INDEX, READ_ALIAS, WRITE_ALIAS, Cluster
from app.store.documents import read_version, refresh
from app.store.heads import Head, Version
from app.store.majors import shipped_file
from app.store.rendering import FIELDS_TEMPLATE, FIRST_INDEX, RenderedResources, render
from tests.writers.encoder import WordEncoder

pytestmark = pytest.mark.majors

VARIANTS: tuple[str, ...] = get_args(VectorVariant)


def fields(cluster: Cluster, rendered: RenderedResources) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Drifts by (name, field)."""
    return {
        (drift.name, drift.field): (drift.expected, drift.found) for drift in templates.compare(cluster, rendered)[0]
    }


def put(
    cluster: Cluster, rendered: RenderedResources, kind: str, name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    """PUT a resource as somebody who altered it would."""
    resource = next(item for item in rendered.of_kind(kind) if item.name == name)
    body = orjson.loads(orjson.dumps(resource.body))
    change(body)
    cluster.request("PUT", resource.path, body=body)


def test_apply_creates_everything_and_a_second_apply_changes_nothing(
    cluster: Cluster, capabilities: Capabilities, rendered: RenderedResources
) -> None:
    missing = {(drift.kind, drift.name) for drift in templates.compare(cluster, rendered)[0]}
    made = {("alias", READ_ALIAS), ("index", HEADS_INDEX)}
    assert missing == {(item.kind, item.name) for item in rendered.resources} | made

    first = templates.apply(cluster, capabilities, rendered)
    assert {change.action for change in first} == {"created"}
    assert templates.compare(cluster, rendered)[0] == []
    second = templates.apply(cluster, capabilities, rendered)
    assert {change.action for change in second} == {"unchanged"}
    assert len(second) == len(rendered.resources)


def test_an_older_index_of_heads_gets_the_copies_of_a_new_one(
    store: Cluster, capabilities: Capabilities, rendered: RenderedResources
) -> None:
    settings = f"/{HEADS_INDEX}/_settings"
    store.request("PUT", settings, body={"index.auto_expand_replicas": "0-1"})
    changes = templates.apply(store, capabilities, rendered)
    assert [item.name for item in changes if item.action != "unchanged"] == [HEADS_INDEX]
    found = store.request("GET", settings, params={"flat_settings": "true"})[HEADS_INDEX]["settings"]
    assert found["index.auto_expand_replicas"] == "0-2"


def test_token_vectors_are_a_template_of_their_own_that_a_setting_leaves_out(
    cluster: Cluster, capabilities: Capabilities, rendered: RenderedResources, store_settings: Settings
) -> None:
    templates.apply(cluster, capabilities, rendered)
    without = render(store_settings.with_values(token_vectors=False), rendered.variant, 384)
    assert "braid-token-vectors" not in {item.name for item in without.resources}
    # an index that has the field serves on without it being used
    assert {(drift.kind, drift.field) for drift in templates.compare(cluster, without)[0]} == {
        ("index template", "composed_of")
    }
    changes = templates.apply(cluster, capabilities, without)
    assert [item.name for item in changes if item.action == "updated"] == ["braid-passages"]
    assert templates.compare(cluster, without)[0] == []
    templates.apply(cluster, capabilities, rendered)
    assert templates.compare(cluster, rendered)[0] == []


def test_an_index_without_the_field_for_token_vectors_is_refused_with_the_way_out(
    cluster: Cluster, capabilities: Capabilities, rendered: RenderedResources, store_settings: Settings
) -> None:
    without = render(store_settings.with_values(token_vectors=False), rendered.variant, 384)
    templates.apply(cluster, capabilities, without)
    with pytest.raises(StoreNotReady, match="token_vectors"):
        templates.apply(cluster, capabilities, rendered)


def test_an_index_gets_a_new_field_in_place(
    store: Cluster, capabilities: Capabilities, rendered: RenderedResources
) -> None:
    author = {"author": {"type": "keyword"}}
    resources = []
    for item in rendered.resources:
        body = orjson.loads(orjson.dumps(item.body))
        if item.name == FIELDS_TEMPLATE:
            body["template"]["mappings"]["properties"] |= author
        resources.append(replace(item, body=body))
    later = replace(rendered, resources=tuple(resources))
    with pytest.raises(StoreNotReady, match="author"):
        templates.apply(store, capabilities, later)
    store.request("PUT", f"/{FIRST_INDEX}/_mapping", body={"properties": author})
    templates.apply(store, capabilities, later)
    assert templates.compare(store, later)[0] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_node_takes_the_templates_of_every_variant_and_gives_them_back_the_same(
    cluster: Cluster, capabilities: Capabilities, store_settings: Settings, variant: str
) -> None:
    wanted = render(store_settings, variant, 384, version=capabilities.version)
    for resource in wanted.resources:
        cluster.request("PUT", resource.path, body=resource.body)
    assert {drift.kind for drift in templates.compare(cluster, wanted)[0]} <= {"alias", "trained model", "index"}
    # an index without passages builds no graph
    cluster.request("PUT", f"/{FIRST_INDEX}", body=wanted.first_index)
    cluster.request("PUT", f"/{HEADS_INDEX}")
    left = templates.compare(cluster, wanted)[0]
    assert [drift.name for drift in left] == (["braid-ivfpq"] if variant == "faiss-ivfpq" else [])


@pytest.mark.parametrize("variant", VARIANTS)
def test_apply_refuses_the_variants_that_would_end_the_node(
    cluster: Cluster, capabilities: Capabilities, store_settings: Settings, variant: str
) -> None:
    wanted = render(store_settings, variant, 384, version=capabilities.version)
    if variant in {"faiss-exact", "lucene-hnsw"}:
        templates.apply(cluster, capabilities, wanted)
        assert templates.compare(cluster, wanted)[0] == []
        return
    with pytest.raises(CapabilityError, match=f"{variant}.*{capabilities.version_text}.*native FAISS.*faiss-exact"):
        templates.apply(cluster, capabilities, wanted)
    assert all(drift.found == "(missing)" for drift in templates.compare(cluster, wanted)[0])


@pytest.mark.parametrize("variant", ["faiss-exact", "lucene-hnsw"])
def test_both_variants_of_this_node_find_the_nearest_passage(
    cluster: Cluster,
    capabilities: Capabilities,
    store_settings: Settings,
    make_passage: Callable[..., Passage],
    variant: str,
) -> None:
    templates.apply(cluster, capabilities, render(store_settings, variant, 384, version=capabilities.version))
    passages = [make_passage("doc", position) for position in range(30)]
    assert bulk_index(cluster, passages).indexed == 30
    refresh(cluster)
    query = {"knn": {"embedding": {"vector": passages[17].embedding, "k": 3}}}
    hits = cluster.request("POST", f"/{READ_ALIAS}/_search", body={"query": query, "_source": False})["hits"]["hits"]
    assert hits[0]["_id"] == passages[17].id
    assert hits[0]["_score"] == pytest.approx(2.0, abs=1e-4)  # 1 + cosine


def test_folded_words_and_bigrams_are_cut_as_they_are_meant(store: Cluster) -> None:
    def tokens(field: str, text: str) -> list[str]:
        found = store.request("POST", f"/{FIRST_INDEX}/_analyze", body={"field": field, "text": text})
        return [item["token"] for item in found["tokens"]]

    assert tokens("content.folded", "Café ÉQUIPE Straße ｃａｆé running") == [
        "cafe",
        "equipe",
        "strasse",
        "cafe",
        "running",
    ]
    assert tokens("content.bigrams", "The pump ERR-4711 of Müller, 2024; насос") == []
    assert tokens("content.bigrams", "東京都 pump") == ["東京", "京都"]
    assert tokens("content.bigrams", "人 ﾎﾟﾝﾌﾟ 펌프가") == ["人", "ポン", "ンプ", "펌프", "프가"]


def test_a_passage_is_found_without_its_accents_and_by_two_of_its_characters(
    store: Cluster, make_passage: Callable[..., Passage]
) -> None:
    passages = [
        make_passage("fr", 0, title="Le café", text="Il ouvre."),
        make_passage("ja", 0, text="東京都庁は新宿にある。"),
        make_passage("en", 0, text="The tea room opens."),
    ]
    assert bulk_index(store, passages).indexed == 3
    refresh(store)

    def found(field: str, query: str) -> list[str]:
        body = {"query": {"match": {field: {"query": query, "operator": "and"}}}}
        hits = store.request("POST", f"/{READ_ALIAS}/_search", body=body)["hits"]["hits"]
        return [hit["_source"]["document_id"] for hit in hits]

    assert found("content", "cafe") == []
    assert found("content.folded", "CAFE") == ["fr"]  # the title is part of it
    assert found("content.bigrams", "東京") == ["ja"]
    assert found("content.bigrams", "新東") == []
    assert found("content.bigrams", "tea") == []


def test_what_a_passage_says_of_its_readers_and_pages_is_read_back(
    store: Cluster, make_passage: Callable[..., Passage]
) -> None:
    given = make_passage("d", 0, acl_1=("a", "b"), acl_4=("user:c",), pages=(3, 4), language="de")
    plain = make_passage("plain", 0)
    assert bulk_index(store, [given, plain]).indexed == 2
    refresh(store)
    for passage in (given, plain):
        version = Version(passage.content_hash, 1, store.read_alias)
        (read,) = read_version(store, Head("default", passage.document_id, version=version))
        assert (read.acl, read.acl_1, read.acl_2, read.acl_4) == (passage.acl, passage.acl_1, (), passage.acl_4)
        assert (read.pages, read.language) == (passage.pages, passage.language)


def test_every_altered_field_is_shown_and_put_right(
    store: Cluster, capabilities: Capabilities, rendered: RenderedResources
) -> None:
    def weights(body: dict[str, Any]) -> None:
        processor = body["phase_results_processors"][0]["normalization-processor"]
        processor["combination"]["parameters"]["weights"] = [0.9, 0.1]

    put(store, rendered, "search pipeline", "braid-hybrid-linear", weights)
    put(
        store,
        rendered,
        "search pipeline",
        "braid-hybrid-rrf",
        lambda body: body["phase_results_processors"][0]["score-ranker-processor"]["combination"].update(
            rank_constant=10
        ),
    )
    put(store, rendered, "ingest pipeline", "braid-passages", lambda body: body["processors"].pop(0))
    put(
        store,
        rendered,
        "component template",
        "braid-settings",
        lambda body: body["template"]["settings"]["index"].update(refresh_interval="30s"),
    )
    put(
        store,
        rendered,
        "component template",
        "braid-fields",
        lambda body: body["template"]["mappings"]["properties"].update(colour={"type": "keyword"}),
    )
    put(store, rendered, "index template", "braid-passages", lambda body: body.update(priority=7))

    found = fields(store, rendered)
    where = "phase_results_processors.0."
    assert found["braid-hybrid-linear", f"{where}normalization-processor.combination.parameters.weights"] == (
        ["0.6", "0.4"],
        ["0.9", "0.1"],
    )
    assert found["braid-hybrid-rrf", f"{where}score-ranker-processor.combination.rank_constant"] == ("60", "10")
    assert found["braid-settings", "template.settings.index.refresh_interval"] == ("1s", "30s")
    assert found["braid-fields", "template.mappings.properties.colour.type"] == ("(nothing)", "keyword")
    assert found["braid-passages", "priority"] == ("500", "7")
    assert ("braid-passages", "processors.0.fail.message") in found

    changed = {change.name for change in templates.apply(store, capabilities, rendered) if change.action == "updated"}
    assert changed == {"braid-hybrid-linear", "braid-hybrid-rrf", "braid-passages", "braid-settings", "braid-fields"}
    assert templates.compare(store, rendered)[0] == []


def test_another_spelling_is_no_difference(store: Cluster, rendered: RenderedResources) -> None:
    def respell(body: dict[str, Any]) -> None:
        analysis = body["template"]["settings"]["index"]["analysis"]
        analysis["analyzer.braid_text"] = analysis["analyzer"].pop("braid_text")
        body["template"]["settings"] = {"similarity.braid_bm25.type": "BM25", "similarity.braid_bm25.k1": "1.20"} | {
            "index.similarity.braid_bm25.b": 0.75,
            "analysis": analysis,
        }
        body["template"]["mappings"]["properties"]["text"]["copy_to"] = ["content"]
        body["template"]["aliases"] = {}

    put(store, rendered, "component template", "braid-fields", respell)
    assert templates.compare(store, rendered)[0] == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("search pipeline", "braid-hybrid-linear"),
        ("search pipeline", "braid-hybrid-rrf"),
        ("ingest pipeline", "braid-passages"),
        ("index template", "braid-passages"),
    ],
)
def test_a_deleted_resource_is_missing(store: Cluster, rendered: RenderedResources, kind: str, name: str) -> None:
    resource = next(item for item in rendered.of_kind(kind) if item.name == name)
    if kind == "ingest pipeline":  # OpenSearch lets a default pipeline be deleted under its index
        store.request("PUT", f"/{FIRST_INDEX}/_settings", body={"index.default_pipeline": None})
    store.request("DELETE", resource.path)
    assert f"{kind} {name} is missing" in [str(drift) for drift in templates.compare(store, rendered)[0]]


def test_settings_and_write_alias_of_the_index_are_put_right(
    store: Cluster, capabilities: Capabilities, rendered: RenderedResources
) -> None:
    off = {"index.default_pipeline": None, "index.knn.advanced.approximate_threshold": None}
    store.request("PUT", f"/{FIRST_INDEX}/_settings", body=off)
    store.request("DELETE", f"/{FIRST_INDEX}/_alias/{WRITE_ALIAS}")
    assert fields(store, rendered) == {
        (FIRST_INDEX, "index.default_pipeline"): ("braid-passages", "(missing)"),
        (FIRST_INDEX, "index.knn.advanced.approximate_threshold"): ("-1", "(missing)"),
        (WRITE_ALIAS, "is_write_index"): ("one index", "(missing)"),
    }
    changes = templates.apply(store, capabilities, rendered)
    assert [(change.kind, change.action) for change in changes if change.action != "unchanged"] == [
        ("index settings", "updated"),
        ("alias", "created"),
    ]
    assert templates.compare(store, rendered)[0] == []


def test_what_operators_may_change_is_no_drift(store: Cluster, rendered: RenderedResources) -> None:
    store.request("PUT", f"/{FIRST_INDEX}/_settings", body={"number_of_replicas": 1, "refresh_interval": "5s"})
    store.request("PUT", f"/{FIRST_INDEX}/_mapping", body={"properties": {"extra": {"type": "keyword"}}})
    assert templates.compare(store, rendered)[0] == []


@pytest.mark.parametrize(
    ("dimension", "variant", "model", "field"),
    [
        (512, "faiss-exact", "all-MiniLM-L6-v2", "properties.embedding.dimension"),
        (384, "lucene-hnsw", "all-MiniLM-L6-v2", "properties.embedding.method.engine"),
        (384, "faiss-exact", "e5-small-v2", "_meta.embedding_model"),
    ],
)
def test_an_index_of_other_vectors_is_refused_and_left_alone(
    store: Cluster,
    capabilities: Capabilities,
    rendered: RenderedResources,
    store_settings: Settings,
    dimension: int,
    variant: str,
    model: str,
    field: str,
) -> None:
    other = render(store_settings.with_values(embedding_model=model), variant, dimension)
    assert (FIRST_INDEX, field) in fields(store, other)
    with pytest.raises(StoreNotReady, match=rf"index {FIRST_INDEX}, field"):
        templates.apply(store, capabilities, other)
    assert templates.compare(store, rendered)[0] == []  # nothing was changed


def test_aliases_that_are_indexes_or_gone_are_refused(
    store: Cluster, capabilities: Capabilities, rendered: RenderedResources
) -> None:
    store.request("DELETE", f"/{FIRST_INDEX}/_alias/{READ_ALIAS}")
    assert "alias braid-passages is missing" in [str(drift) for drift in templates.compare(store, rendered)[0]]
    with pytest.raises(StoreNotReady, match=f"{FIRST_INDEX} exists"):
        templates.apply(store, capabilities, rendered)

    store.request("DELETE", f"/{FIRST_INDEX}")
    store.request("PUT", f"/{READ_ALIAS}")
    with pytest.raises(StoreNotReady, match="is an index, but must be an alias"):
        templates.apply(store, capabilities, rendered)
    assert ("braid-passages", "") in fields(store, rendered)


def test_a_write_index_that_searches_do_not_include_is_named_and_added(
    store: Cluster,
    capabilities: Capabilities,
    rendered: RenderedResources,
    store_settings: Settings,
    make_passage: Callable[..., Passage],
) -> None:
    """A rollover moves the write alias only: what is written afterwards would be stored and not found."""
    rolled = store.request("POST", f"/{WRITE_ALIAS}/_rollover")["new_index"]
    assert bulk_index(store, [make_passage("new")]).indexed == 1
    refresh(store)

    def found() -> int:
        return int(store.request("GET", f"/{READ_ALIAS}/_count")["count"])

    assert found() == 0
    services = Services.open(store_settings)
    try:
        client = create_app(services).test_client()
        for answer in (client.get("/readyz"), client.post("/v1/search", json={"query": "passage"})):
            assert answer.status_code == 503
            assert rolled in answer.get_data(as_text=True)
        (drift,) = templates.compare(store, rendered)[0]
        assert (drift.name, drift.expected, drift.found) == (READ_ALIAS, [FIRST_INDEX, rolled], [FIRST_INDEX])
        finding = next(item for item in examine(store_settings) if item.check == "templates")
        assert finding.status == "failed"
        assert rolled in finding.found
        assert "braid templates apply" in finding.remedy

        changes = templates.apply(store, capabilities, rendered)
        assert [(change.name, change.action) for change in changes if change.action != "unchanged"] == [
            (READ_ALIAS, "updated")
        ]
        assert templates.compare(store, rendered)[0] == []
        assert found() == 1
        time.sleep(0.6)  # a check is valid for half a second
        assert client.get("/readyz").status_code == 200
    finally:
        services.close()


def test_two_write_indexes_are_refused_and_two_read_indexes_are_counted(
    store: Cluster, capabilities: Capabilities, rendered: RenderedResources
) -> None:
    second = "braid-passages-000002"
    store.request("PUT", f"/{second}", body={"aliases": {READ_ALIAS: {}}, "settings": {"number_of_shards": 3}})
    drifts, live = templates.compare(store, rendered)
    assert drifts == []
    assert live.shards == 4
    actions = [
        {"add": {"index": name, "alias": WRITE_ALIAS, "is_write_index": False}} for name in (FIRST_INDEX, second)
    ]
    store.request("POST", "/_aliases", body={"actions": actions})
    assert (WRITE_ALIAS, "is_write_index") in fields(store, rendered)
    with pytest.raises(StoreNotReady, match=WRITE_ALIAS):
        templates.apply(store, capabilities, rendered)


@pytest.mark.parametrize("variant", VARIANTS)
def test_simulating_needs_nothing_on_the_cluster(
    cluster: Cluster, capabilities: Capabilities, store_settings: Settings, variant: str
) -> None:
    wanted = render(store_settings, variant, 384, version=capabilities.version)
    assert templates.simulate(cluster, wanted) == []
    assert cluster.request("GET", f"/{READ_ALIAS}*") == {}


def test_simulating_finds_what_the_cluster_refuses_and_who_wins_over_us(
    cluster: Cluster, rendered: RenderedResources
) -> None:
    def broken(name: str, change: Callable[[dict[str, Any]], None]) -> RenderedResources:
        resources = []
        for item in rendered.resources:
            body = orjson.loads(orjson.dumps(item.body))
            if item.name == name:
                change(body)
            resources.append(replace(item, body=body))
        return replace(rendered, resources=tuple(resources))

    def no_such_type(body: dict[str, Any]) -> None:
        body["template"]["mappings"]["properties"]["page"]["type"] = "no-such-type"

    def pass_blank(body: dict[str, Any]) -> None:
        if "processors" in body:
            body["processors"] = body["processors"][1:]

    def no_such_type_in_the_log(body: dict[str, Any]) -> None:
        body["template"]["mappings"]["properties"]["label"]["type"] = "no-such-type"

    def no_such_type_of_a_key(body: dict[str, Any]) -> None:
        body["template"]["mappings"]["properties"]["tenant"]["type"] = "no-such-type"

    assert "no-such-type" in templates.simulate(cluster, broken("braid-fields", no_such_type))[0]
    assert "no-such-type" in templates.simulate(cluster, broken("braid-queries", no_such_type_in_the_log))[0]
    assert "no-such-type" in templates.simulate(cluster, broken("braid-keys", no_such_type_of_a_key))[0]
    assert templates.simulate(cluster, broken("braid-passages", pass_blank)) == [
        "ingest pipeline braid-passages: a passage without text is not rejected"
    ]
    cluster.request("PUT", "/_index_template/rival", body={"index_patterns": ["braid-*"], "priority": 900})
    problems = templates.simulate(cluster, rendered)
    assert len(problems) == 5
    assert all("rival (priority 900)" in problem for problem in problems)
    assert "braid-passages-000001" in problems[0]
    assert "braid-queries-" in problems[1]
    assert "braid-keys" in problems[2]
    assert "braid-heads" in problems[3]
    assert "braid-jobs" in problems[4]


def test_the_exported_script_alone_makes_the_cluster_ready(
    cluster: Cluster, rendered: RenderedResources, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not on the PATH: the exported script calls it")
    templates.export(rendered, tmp_path)
    done = subprocess.run(
        ["sh", str(tmp_path / "apply.sh")],
        env={"OPENSEARCH": cluster.url, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert templates.compare(cluster, rendered)[0] == []


def test_the_shipped_files_are_put_as_they_are(cluster: Cluster, capabilities: Capabilities) -> None:
    """As an operator does: every file for this release, unchanged, in any order that the docs give."""
    calls = [
        ("/_ingest/pipeline", "pipelines", "ingest/*.json"),
        ("/_search/pipeline", "pipelines", "search/*.json"),
        ("/_component_template", "mappings", "component_templates/*.json"),
        ("/_index_template", "mappings", "index_templates/*.json"),
        ("", "mappings", "indexes/*.json"),
    ]
    for path, folder, pattern in calls:
        files = sorted(asset_folder(folder).glob(pattern))
        assert files
        for file in files:
            ours = shipped_file(asset_folder(folder), f"{file.parent.name}/{file.name}", capabilities.version)
            cluster.request("PUT", f"{path}/{file.stem}", body=orjson.loads(ours.read_bytes()))
    defaults = load_settings(opensearch_url=cluster.url)
    assert templates.compare(cluster, render(defaults, "faiss-hnsw", 384))[0] == []


def test_a_comparison_holds_until_the_state_of_the_cluster_changes(
    store: Cluster, store_settings: Settings, rendered: RenderedResources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.serving.readiness._REUSED_S", math.inf)
    asked: list[str] = []
    send = store.request
    monkeypatch.setattr(store, "request", lambda method, path, **more: asked.append(path) or send(method, path, **more))
    check = StoreCheck(
        store_settings.with_values(vector_variant=rendered.variant), store, WordEncoder(rendered.dimension)
    )
    assert check.run().differences == ()
    asked.clear()
    assert check.run().differences == ()
    assert asked == ["/_cluster/state/version"]

    send("DELETE", "/_search/pipeline/braid-hybrid-rrf")
    assert any("braid-hybrid-rrf" in item for item in check.run().differences)
    resource = next(item for item in rendered.resources if item.name == "braid-hybrid-rrf")
    send("PUT", resource.path, body=resource.body)
    assert check.run().differences == ()
