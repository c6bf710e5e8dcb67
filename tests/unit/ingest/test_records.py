from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from app.access import Access
from app.errors import DocumentRejected
from app.ingest.records import BadLine, read_records, ready_document
from app.passage import Document


def ready(**fields: Any) -> Document:
    return ready_document(fields, tenant="acme", source_id="s", title_is_enough=True)


def test_the_fields_of_the_api_and_of_beir() -> None:
    document = ready(
        document_id="d", title=" A  title ", text=" Text. ", topic_tags=["B", "a"], acl=["hr"], timestamp="2024-05-31"
    )
    assert (document.document_id, document.tenant, document.source_id, document.acl) == ("d", "acme", "s", ("hr",))
    assert (document.parsed.title, document.parsed.blocks[0].text) == ("A title", "Text.")
    assert document.tags == ("b", "a")
    assert str(document.timestamp) == "2024-05-31 00:00:00+00:00"
    assert ready(_id="b", text="x", metadata={"url": "u"}).document_id == "b"
    assert ready(id=7, text="x").document_id == "7"


def test_readers_are_taken_as_they_are_and_kept_where_none_are_named() -> None:
    alike = ["HR", "hr", "\uff28\uff32", "h\u200br", " hr", "e\u0301quipe", "\u00e9quipe"]
    named = ready(document_id="d", text="x", acl=alike)
    assert (named.acl, named.keeps_acl) == (tuple(alike), False)
    assert ready(document_id="d", text="x", acl=[]).acl == ()
    unnamed = ready(document_id="d", text="x")
    assert (unnamed.acl, unnamed.keeps_acl) == (("public",), True)
    by_default = ready_document({"_id": "d", "text": "x"}, tenant="t", source_id="s", acl=("hr",))
    assert (by_default.acl, by_default.keeps_acl) == (("hr",), False)
    stored = Access(("legal", "hr"), acl_2=("board",))
    assert stored.changed(unnamed.access) == stored
    assert Access().changed(unnamed.access) == Access()
    assert stored.changed(named.access).acl == tuple(alike)


def test_the_content_hash_says_nothing_of_readers() -> None:
    first, second = (ready(document_id="d", text="x", acl=acl, acl_1=["b"]) for acl in (["a"], ["c"]))
    assert first.content_hash("r") == second.content_hash("r")
    assert ready(document_id="d", text="y", acl=["c"]).content_hash("r") != second.content_hash("r")
    assert ready(document_id="d", text="x", language="de").content_hash("r") != second.content_hash("r")


def test_restrictions_and_the_language_are_taken_where_they_are_named() -> None:
    document = ready(document_id="d", text="x", acl=["hr"], acl_1=["a", "b", "a"], acl_4=["c"], language="zh-Hant")
    assert document.restrictions == {"acl_1": ("a", "b"), "acl_4": ("c",)}
    assert document.access == {"acl": ("hr",), "acl_1": ("a", "b"), "acl_4": ("c",)}
    assert (document.extra, ready(document_id="d", text="x").extra) == ({"language": "zh-hant"}, {})
    # what a record names goes before what the caller says of all of them
    given: dict[str, tuple[str, ...]] = {"acl_1": ("x",), "acl_2": ("y",)}
    fields = {"document_id": "d", "text": "x", "acl_1": ["a"]}
    mixed = ready_document(fields, tenant="t", source_id="s", restrictions=given)
    assert mixed.access == {"acl_1": ("a",), "acl_2": ("y",)}


def test_a_title_alone_is_text_where_that_is_wanted() -> None:
    assert ready(_id="b", title="Only a title", text="").parsed.blocks[0].text == "Only a title"
    with pytest.raises(DocumentRejected) as caught:
        ready_document({"_id": "b", "title": "x", "text": " "}, tenant="t", source_id="s")
    assert caught.value.reason == "empty"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"document_id": "d"}, "text"),
        ({"text": "x"}, "document_id"),
        ({"document_id": "d", "text": "x", "colour": "red"}, "colour"),
        ({"document_id": "d", "text": 5}, "text"),
        ({"document_id": "d", "text": "x", "timestamp": "yesterday"}, "timestamp"),
        ({"document_id": "d\x07", "text": "x"}, "document_id"),
        ({"document_id": "d", "text": "x", "acl": [" "]}, "acl"),
        ({"document_id": "d", "text": "x", "acl": ["hr", "a\nb"]}, "acl"),
        ({"document_id": "d", "text": "x", "acl": ["a\u2028b"]}, "acl"),
        ({"document_id": "d", "text": "x", "acl": ["g" * 262]}, "acl"),
        ({"document_id": "d", "text": "x", "acl": [f"g{n}" for n in range(1001)]}, "acl"),
        ({"document_id": "d", "text": "x", "acl_1": []}, "acl_1: Value error, is empty"),
        ({"document_id": "d", "text": "x", "acl_2": [" "]}, "acl_2"),
        ({"document_id": "d", "text": "x", "acl_5": ["hr"]}, "acl_5"),
        ({"document_id": "d", "text": "x", "language": "German"}, "language"),
        ({"document_id": "d" * 513, "text": "x"}, "document_id"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(DocumentRejected) as caught:
        ready(**fields)
    assert caught.value.reason == "invalid-record"
    assert named in caught.value.detail


def test_lines_are_read_one_by_one_and_bad_ones_do_not_stop_them(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"_id": "1"}\n\nnot json\n[1]\n{"_id": "2"}'
    plain, packed, cut = tmp_path / "a.jsonl", tmp_path / "a.jsonl.gz", tmp_path / "cut.jsonl.gz"
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    cut.write_bytes(gzip.compress(data)[:-20])
    found = list(read_records(plain))
    assert [item if isinstance(item, tuple) else (item.number, item.reason) for item in found] == [
        (1, {"_id": "1"}),
        (3, "not-json"),
        (4, "invalid-record"),
        (5, {"_id": "2"}),
    ]
    assert list(read_records(packed)) == found
    last = list(read_records(cut))[-1]
    assert isinstance(last, BadLine)
    assert (last.reason, last.ends) == ("broken", True)


def test_a_ready_record_is_composed() -> None:
    row = {
        "document_id": "cafe\u0301",
        "title": "Cafe\u0301",
        "text": "Le cafe\u0301.",
        "topic_tags": ["e\u0301te\u0301"],
    }
    made = ready_document(row, tenant="t", source_id="s")
    assert (made.document_id, made.parsed.title, made.tags) == ("caf\u00e9", "Caf\u00e9", ("\u00e9t\u00e9",))
    assert made.parsed.blocks[0].text == "Le caf\u00e9."
