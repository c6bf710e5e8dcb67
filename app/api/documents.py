"""``POST /v1/documents``, ``GET``, ``PATCH`` and ``DELETE /v1/documents/{document_id}``.

All of them see what the caller may read, and nothing else: a document that it may not read is answered as one that is
not there, and is neither replaced nor removed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Literal

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.routing import PathConverter

from app.access import ACCESS_FIELDS
from app.api import schemas
from app.api.bodies import read_json, scope, services, write_json
from app.api.problems import from_validation
from app.errors import DocumentRejected, FieldProblem, InvalidInput, NotFound, Overtaken
from app.gateway.audit import note
from app.ingest.single import StoredDocument
from app.passage import Document

blueprint = Blueprint("documents", __name__)


class _DocumentId(PathConverter):
    """An id in an address: any text, slashes in front too (Werkzeug's paths begin with something else)."""

    regex = ".+?"
    part_isolating = False


@blueprint.record_once
def _converters(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["document_id"] = _DocumentId


@blueprint.post("/v1/documents")
def add() -> Response:
    """Add or replace one document; it is searchable when the answer comes."""
    document = _from_upload() if request.mimetype == "multipart/form-data" else _from_json()
    note(document_id=document.document_id)
    stored = _write(lambda: services().ingest(document, scope()))
    return write_json(
        schemas.DocumentResponse(
            document_id=document.document_id,
            passages=stored.passages,
            status=stored.status,
            warnings=list(document.parsed.warnings),
        )
    )


@blueprint.get("/v1/documents/<document_id:document_id>")
def get(document_id: str) -> Response:
    """A document's passages in their order."""
    found = services().stored_document(scope(), document_id)
    return write_json(schemas.StoredDocument.model_validate(found), only_set=True)


@blueprint.patch("/v1/documents/<document_id:document_id>")
def change(document_id: str) -> Response:
    """Change who may read a document; in force when the answer comes."""
    change = read_json(schemas.ReadersRequest).change
    if not change:
        message = f"names no list of readers: give at least one of {', '.join(ACCESS_FIELDS)}"
        raise InvalidInput(message, problems=[FieldProblem(("body", "acl"), message)])
    stored = _write(lambda: services().change_readers(scope(), document_id, change))
    status: Literal["updated", "unchanged"] = "unchanged" if stored.status == "unchanged" else "updated"
    in_force = stored.access.fields() if stored.access is not None else {}
    return write_json(
        schemas.ReadersResponse.model_validate(
            {**in_force, "document_id": document_id, "passages": stored.passages, "status": status}
        ),
        only_set=True,
    )


@blueprint.delete("/v1/documents/<document_id:document_id>")
def delete(document_id: str) -> Response:
    """Remove a document; it can't be found any more when the answer comes."""
    _write(lambda: services().delete_document(scope(), document_id))
    note(outcome="deleted")
    return Response(status=204)


def _write(write: Callable[[], StoredDocument]) -> StoredDocument:
    """What `write` did; caches are told of it, also where it broke off half way."""
    changed, revoking = True, True
    try:
        stored = write()
        changed, revoking = stored.status != "unchanged" or stored.revoking, stored.revoking
    except (NotFound, InvalidInput, DocumentRejected, Overtaken):
        changed = False
        raise
    finally:
        if changed:
            services().generation.advance(scope().tenant, revoking=revoking)
    note(outcome=stored.status, passages=stored.passages)
    return stored


def _from_json() -> Document:
    asked = read_json(schemas.DocumentRequest)
    return services().ready_document(asked.model_dump(exclude_unset=True), scope().tenant)


def _from_upload() -> Document:
    """A file and its fields; the file's name is untrusted and only names the document."""
    upload = request.files.get("file")
    if not isinstance(upload, FileStorage) or not upload.filename:
        message = "send the document as the multipart field 'file', with a file name"
        raise InvalidInput(message, problems=[FieldProblem(("body", "file"), message)])
    name = PurePosixPath(upload.filename.replace("\\", "/")).name
    fields: dict[str, object] = {key: value for key, value in request.form.items() if value}
    if isinstance(value := fields.get("topic_tags"), str):
        fields["topic_tags"] = [item.strip() for item in value.split(",") if item.strip()]
    for field in ACCESS_FIELDS:
        if field in request.form:
            fields[field] = _readers(field, request.form.getlist(field))
    try:
        asked = schemas.UploadFields.model_validate({"document_id": name, **fields})
    except ValidationError as error:
        raise from_validation(error) from error
    with tempfile.TemporaryFile() as content:  # has no name, so nothing of it is left by a service that is killed
        upload.save(content)
        # the suffix helps to tell Markdown from plain text
        path = Path(f"upload{PurePosixPath(name).suffix[:12].lower()}")
        return services().file_document(path, content, name, asked.model_dump(exclude_unset=True), scope().tenant)


def _readers(field: str, values: list[str]) -> list[str]:
    """A list of readers of a form: names separated by commas, or the field several times.

    Raises:
        InvalidInput: it names nobody: in a form that may be an oversight, and nobody could read the document.
    """
    # only the spaces that people put after commas: any other character may be part of a name
    names = [name.strip(" ") for value in values for name in value.split(",")]
    found = [name for name in names if name]
    if not found:
        json_too = " (JSON takes an empty list)" if field == "acl" else ""
        message = f"{field} is empty: name who may read the document, or leave the field out{json_too}"
        raise InvalidInput(message, problems=[FieldProblem(("body", field), message)])
    return found
