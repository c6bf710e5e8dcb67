"""Checks that everything follows the new field `author`; `test_new_field` runs them in a copy of the sources."""

from __future__ import annotations

from datetime import datetime

import orjson
from flask import Flask

from app.api import schemas
from app.api.openapi import UPLOAD_FORM
from app.api.web_page import blueprint
from app.commands.search import command
from app.config import load_settings
from app.ingest.cutting import to_passages
from app.ingest.records import ready_document
from app.passage import FIELDS
from app.search.request import FilterRequest
from app.store.filters import Scope, clauses
from app.store.passages import READ_FIELDS, read_hit, read_passage, shown_fields, source_of
from app.store.rendering import VARIANTS, compose, render


class Encoder:
    name, dimension, gives_tokens = "m", 2, False
    max_tokens, passage_prefix = 256, ""

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


mapped = compose(render(load_settings(), VARIANTS[0], 384))["mappings"]["properties"]
assert mapped["author"]["type"] == FIELDS["author"].type == "keyword"

request = schemas.DocumentRequest.model_validate_json('{"document_id": "d", "text": "t", "author": "Ann"}')
document = ready_document(request.model_dump(exclude_unset=True), tenant="t", source_id="s")
plain = ready_document({"document_id": "d", "text": "t"}, tenant="t", source_id="s")
assert document.content_hash("r") != plain.content_hash("r")
(passage,) = to_passages(document, settings=load_settings(), encoder=Encoder(), written=datetime(2024, 5, 6))
assert passage.author == "Ann"
source = orjson.loads(orjson.dumps(source_of(passage)))
assert source["author"] == "Ann"
assert read_passage({"_id": "", "_source": source}) == passage
assert "author" in READ_FIELDS
read = {name: source[name] for name in READ_FIELDS if name in source}
assert read_hit({"_id": "", "_source": read}, 1.0).author == "Ann"
assert read_hit({"_id": "", "_source": {}}, 1.0).author == ""
assert shown_fields(source, per_passage=False)["author"] == "Ann"

for model in (schemas.ResultItem, schemas.StoredDocument):
    assert model.model_json_schema()["properties"]["author"]["type"] == "string"
wanted = FilterRequest.model_validate_json('{"author": ["Ann"]}').passage_filter()
assert clauses(Scope("t"), wanted) == [{"term": {"tenant": "t"}}, {"terms": {"author": ["Ann"]}}]
unwanted = FilterRequest.model_validate_json('{"not": {"author": ["Ann"]}}').passage_filter()
assert clauses(Scope("t"), unwanted)[1:] == [{"bool": {"must_not": [{"terms": {"author": ["Ann"]}}]}}]
assert UPLOAD_FORM["properties"]["author"]["type"] == "string"
assert {"--author", "--not-author"} <= {name for option in command.params for name in option.opts}
app = Flask("page")
app.register_blueprint(blueprint)
page = app.test_client().get("/").text
assert 'data-filter="author" data-kind="keyword" data-label="Author"' in page
assert 'data-filter="not.author" data-kind="keyword" data-label="Without author"' in page
