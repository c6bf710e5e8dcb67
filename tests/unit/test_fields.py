"""The table of fields agrees with the mapping, the models and docs/fields.md.

To write docs/fields.md anew: ``python -m tests.unit.test_fields``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import orjson
import pytest

from app.access import ACCESS_FIELDS
from app.api.schemas import DocumentRequest, ResultItem
from app.config import load_settings
from app.errors import DocumentRejected
from app.fields import stored_fields
from app.ingest.records import ready_document
from app.passage import EXTRA_FIELDS, FIELDS, Passage, SourceType
from app.search.request import ExclusionRequest, FilterRequest
from app.store.bulk import _lines
from app.store.filters import PassageFilter
from app.store.passages import TOKEN_VECTORS, read_passage
from app.store.rendering import VARIANTS, compose, render

DOCUMENTED = Path(__file__).resolve().parents[2] / "docs" / "fields.md"
MADE_BY_OPENSEARCH = {"content", "passage_id", "ingested_at", "spans"}
"""Mapped, but no fields of a passage: copied, or set by the ingest pipeline; `spans` is kept for later."""


ADDING = """
"returned": answers show it. "filter": a request may filter by it, and leave out by it (`filter.not`); the page's form
and `braid search` offer both. "writable": `POST /v1/documents` takes it. None of the three is the default, and readers,
tenant and what belongs to the write protocol have no filter and are never returned: `app/store/filters.py` writes out
their clauses.

## Adding a field

1. One line of `PassageContent` in `app/passage.py` (of `Passage`, if searches need not read the field):

   ```python
   author: Annotated[str, Stored("keyword", "Author", filter="any of", returned=True, writable=True)] = ""
   ```

2. Its mapping, in `mappings/component_templates/braid-fields.json`:

   ```json
   "author": {"type": "keyword"},
   ```

Everything else follows: what is stored and read back, the filter, requests and answers, JSON Lines, uploads,
`/openapi.json`, the page's form, `--author` and `--not-author` of `braid search` and `braid ask`.
`tests/unit/test_new_field.py` does these two steps in a copy of the sources and looks for each of them. On a running
service they were tried over HTTP and in a browser, with a change of readers in between: two files, four lines. The
tests ask for a value in `tests/unit/test_fields.py`, and for the generated pages to be made anew.

* **A rule of its own** (a pattern, a range) is the pydantic type `value=` of the annotation; a list of all values is
  `choices=`, an enumeration whose members have a label. Several values: `tuple[str, ...]`. A time: `Stored("date", ...,
  filter="range")`. `per_passage=True`: the passages of one document differ in it, so a parser must give it.
* **An index that exists** gets the field in place, before the new Braid starts; until then the service is not ready
  and names the field. Passages that are stored lack it: they read as the empty value, and filters do not find them.

  ```sh
  curl -fsS $AUTH -X PUT "$OS/braid-passages-000001/_mapping" -H 'Content-Type: application/json' -d '{
    "properties": {"author": {"type": "keyword"}}}'
  braid templates apply
  ```
"""


def table() -> str:
    """docs/fields.md."""
    lines = [
        "# Fields of a passage",
        "",
        "Made from `app/passage.py` by `python -m tests.unit.test_fields`; a unit test holds it current.",
        "",
        "| field | type | returned | filter | writable | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for name, stored in FIELDS.items():
        marks = ["yes" if mark else "" for mark in (stored.returned, stored.writable)]
        lines.append(f"| `{name}` | {stored.type} | {marks[0]} | {stored.filter or ''} | {marks[1]} | {stored.label} |")
    return "\n".join([*lines, ADDING])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_mapping_has_the_same_fields(variant: str) -> None:
    mapped = compose(render(load_settings(), variant, 384))["mappings"]["properties"]
    assert mapped.keys() - MADE_BY_OPENSEARCH == FIELDS.keys() - {"id"}
    types = {name: stored.type for name, stored in FIELDS.items() if name != "id"}
    assert {name: mapped[name]["type"] for name in types} == types


def test_the_models_have_the_same_fields() -> None:
    returned = {name for name, stored in FIELDS.items() if stored.returned}
    assert returned == ResultItem.model_fields.keys() & FIELDS.keys() - {"id"}
    filters = {name for name, stored in FIELDS.items() if stored.filter}
    assert ExclusionRequest.model_fields.keys() == filters
    assert FilterRequest.model_fields.keys() == filters | {"not_"}
    assert DocumentRequest.model_fields.keys() == {name for name, stored in FIELDS.items() if stored.writable}


def test_every_field_is_read_as_it_was_written() -> None:
    passage = Passage(
        id="p",
        document_id="d",
        title="T",
        section_heading="H",
        text="t",
        source_id="wiki",
        source_type=SourceType.PDF,
        uri="file:d",
        page=3,
        pages=(3, 4),
        position=7,
        token_count=1,
        timestamp="2024-05-06T00:00:00+00:00",
        topic_tags=("a", "b"),
        language="de",
        detected_language="nl",
        language_confidence=0.625,
        tenant="acme",
        acl=("hr",),
        acl_1=("eu",),
        acl_2=("us",),
        acl_3=("x",),
        acl_4=("y",),
        content_hash="v1",
        embedding_model="m",
        embedding=(0.5, -0.5),
        token_vectors=b"packed",
    )
    unset = [item.name for item in fields(Passage) if getattr(passage, item.name) == item.default]
    assert unset == [], "give the new field a value above"
    source = orjson.loads(_lines(passage, {}).splitlines()[1])
    assert (
        read_passage({"_id": "p", "fields": {TOKEN_VECTORS: [source.pop(TOKEN_VECTORS)]}, "_source": source}) == passage
    )


def test_an_empty_optional_field_is_not_stored() -> None:
    passage = Passage(
        id="p",
        document_id="d",
        title="",
        section_heading="",
        text="t",
        source_id="s",
        source_type=SourceType.TEXT,
        uri="",
        page=None,
        position=0,
        token_count=1,
        timestamp="2024-05-06T00:00:00+00:00",
        topic_tags=(),
        tenant="acme",
        acl=(),
        content_hash="v1",
        embedding_model="m",
    )
    source = orjson.loads(_lines(passage, {}).splitlines()[1])
    kept = {name for name, stored in FIELDS.items() if stored.in_source and not stored.optional}
    assert source.keys() == kept | {"timestamp", "content_hash"}
    assert (source["acl"], source["topic_tags"], source["title"]) == ([], [], "")


def test_nothing_filters_by_readers_or_by_an_unknown_field() -> None:
    for name in (*ACCESS_FIELDS, "tenant", "author"):
        with pytest.raises(ValueError, match=f"can't be filtered by {name}"):
            PassageFilter(**{name: ("x",)})


def test_what_protects_documents_is_neither_sent_nor_shown() -> None:
    own = {"id", "tenant", "content_hash", "position", "token_count", "embedding_model", "embedding", "token_vectors"}
    assert [name for name in own if FIELDS[name].writable or FIELDS[name].returned or FIELDS[name].filter] == []
    assert [name for name in ACCESS_FIELDS if FIELDS[name].returned or FIELDS[name].filter] == []
    assert EXTRA_FIELDS.keys().isdisjoint(own | set(ACCESS_FIELDS))
    for name in own:
        with pytest.raises(DocumentRejected, match=name):
            ready_document({"document_id": "d", "text": "t", name: "x"}, tenant="acme", source_id="s")


def test_a_field_without_an_annotation_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Bare\.author needs one annotation"):
        stored_fields(Bare)


@dataclass
class Bare:
    author: str


def test_the_page_of_fields_is_current() -> None:
    assert DOCUMENTED.read_text() == table()


if __name__ == "__main__":
    DOCUMENTED.write_text(table())
