"""``POST /v1/documents``, ``GET`` and ``DELETE /v1/documents/{document_id}``."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath

from flask import Blueprint, Response, request
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage

from app.api import schemas
from app.api.bodies import read_json, scope, services, write_json
from app.api.problems import from_validation
from app.errors import FieldProblem, InvalidInput
from app.passage import Document

blueprint = Blueprint("documents", __name__)


@blueprint.post("/v1/documents")
def add() -> Response:
    """Add or replace one document; it is searchable when the answer comes."""
    document = _from_upload() if request.mimetype == "multipart/form-data" else _from_json()
    stored = services().ingest(document)
    services().generation.advance(scope().tenant)
    return write_json(
        schemas.DocumentResponse(
            document_id=document.document_id,
            passages=stored.passages,
            status=stored.status,
            warnings=list(document.parsed.warnings),
        )
    )


@blueprint.get("/v1/documents/<path:document_id>")
def get(document_id: str) -> Response:
    """A document's passages in their order."""
    return write_json(schemas.StoredDocument.model_validate(services().stored_document(scope(), document_id)))


@blueprint.delete("/v1/documents/<path:document_id>")
def delete(document_id: str) -> Response:
    """Remove a document; it can't be found any more when the answer comes."""
    services().delete_document(scope(), document_id)
    services().generation.advance(scope().tenant)
    return Response(status=204)


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
    for listed in ("topic_tags", "acl"):
        if isinstance(value := fields.get(listed), str):
            fields[listed] = [item.strip() for item in value.split(",") if item.strip()]
    try:
        asked = schemas.UploadFields.model_validate({"document_id": name, **fields})
    except ValidationError as error:
        raise from_validation(error) from error
    with tempfile.TemporaryDirectory(prefix="braid-upload-") as folder:
        # the suffix helps to tell Markdown from plain text; the rest of the name never reaches the file system
        path = Path(folder) / f"upload{PurePosixPath(name).suffix[:12].lower()}"
        upload.save(path)
        return services().file_document(path, name, asked.model_dump(exclude_unset=True), scope().tenant)
