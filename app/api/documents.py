"""``POST /v1/documents``, ``GET``, ``PATCH`` and ``DELETE /v1/documents/{document_id}``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

from flask import Response, request
from flask.blueprints import BlueprintSetupState
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.routing import PathConverter

from app.access import ACCESS_FIELDS
from app.api import schemas
from app.api.bodies import (
    at_end,
    cancel_at_end,
    parse,
    read_body,
    read_json,
    scope,
    services,
    spool,
    spooled,
    write_json,
)
from app.api.endpoint import ApiBlueprint, Endpoint
from app.api.openapi import UPLOAD_FORM
from app.api.problems import from_validation
from app.errors import BraidError, FieldProblem, InvalidInput, NotFound
from app.gateway.audit import later_line, note
from app.gateway.roles import Role
from app.passage import FIELDS, Document
from app.serving.documents import ready_document
from app.serving.jobs import Job
from app.serving.spool import SpooledFile
from app.serving.tasks import IngestOutcome, RecordFile, UploadedFile
from app.serving.writes import owner
from app.values import nfc

Outcome = TypeVar("Outcome")

blueprint = ApiBlueprint("documents", "documents")


class _DocumentId(PathConverter):
    """An id in a URL: any text, including leading slashes (which Werkzeug's paths exclude)."""

    regex = ".+?"
    part_isolating = False


def _of_id(document_id: str, call: Callable[[str], Outcome]) -> Outcome:
    """Return `call` of the id as it was sent (an older Braid stored ids so), or else in NFC. Raises as `call`."""
    try:
        return call(document_id)
    except NotFound:
        if nfc(document_id) == document_id:
            raise
        return call(nfc(document_id))


@blueprint.record_once
def _converters(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["document_id"] = _DocumentId


@dataclass(frozen=True, slots=True)
class _DocumentUpload:
    """A document whose caller waits; `file` is the uploaded one."""

    document_id: str
    source: Document | UploadedFile
    file: SpooledFile | None = None


@dataclass(frozen=True, slots=True)
class _JobUpload:
    """A document in a file, to be stored by a job."""

    document_id: str
    source: RecordFile | UploadedFile
    file: SpooledFile


@blueprint.declare(
    Endpoint(
        "POST",
        "/v1/documents",
        schemas.DocumentRequest,
        schemas.DocumentResponse,
        role=Role.INGEST,
        audit="ingest",
        problems=(409,),
        accepted=schemas.JobResponse,
        form=UPLOAD_FORM,
    )
)
def add_document() -> Response:
    """Add or replace a document: a file, or ready text.

    On response it is searchable, or the response names the job that stores it.
    """
    _take_place()
    sent = _from_upload() if request.mimetype == "multipart/form-data" else _from_json()
    note(document_id=sent.document_id)
    if isinstance(sent, _JobUpload):
        return _start_job(sent)
    if sent.file is not None:
        cancel_at_end(sent.file.release)
    outcome = services().documents.put(sent.source, scope(), sent.file)
    note(outcome=outcome.stored.status, passages=outcome.stored.passages)
    return write_json(
        schemas.DocumentResponse(
            document_id=outcome.document_id,
            passages=outcome.stored.passages,
            status=outcome.stored.status,
            warnings=list(outcome.warnings),
        )
    )


def _start_job(sent: _JobUpload) -> Response:
    """Accept the document, and respond with the job's address."""
    line = later_line()

    def ended(job: Job, outcome: IngestOutcome | BraidError) -> None:
        if isinstance(outcome, IngestOutcome):
            found: dict[str, Any] = {"outcome": outcome.stored.status, "passages": outcome.stored.passages}
        else:
            found = {"outcome": outcome.kind}
        line(200 if isinstance(outcome, IngestOutcome) else outcome.status, job_id=job.id, **found)

    job = services().documents.start_job(sent.source, sent.file, scope(), sent.document_id, ended)
    cancel_at_end(sent.file.release)
    note(job_id=job.id)
    response = write_json(schemas.JobResponse.model_validate(job.record()), 202)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if _prefers_job():
        response.headers["Preference-Applied"] = "respond-async"
    return response


@blueprint.declare(
    Endpoint(
        "GET",
        "/v1/documents/<document_id:document_id>",
        answer=schemas.StoredDocument,
        role=Role.SEARCH,
        audit="read-document",
    )
)
def get_document(document_id: str) -> Response:
    """Return a document's passages."""
    found = _of_id(document_id, lambda key: services().documents.show(scope(), key))
    return write_json(schemas.StoredDocument.model_validate(found), only_set=True)


@blueprint.declare(
    Endpoint(
        "PATCH",
        "/v1/documents/<document_id:document_id>",
        schemas.ReadersRequest,
        schemas.ReadersResponse,
        role=Role.INGEST,
        audit="change",
        problems=(409,),
    )
)
def change_readers(document_id: str) -> Response:
    """Change who may read a document. Effective on response."""
    _take_place()
    change = read_json(schemas.ReadersRequest).change
    if not change:
        message = f"names no list of readers: send at least one of {', '.join(ACCESS_FIELDS)}"
        raise InvalidInput(message, problems=[FieldProblem(("body", "acl"), message)])
    stored = _of_id(document_id, lambda key: services().documents.change_readers(scope(), key, change))
    note(outcome=stored.status, passages=stored.passages)
    status: Literal["updated", "unchanged"] = "unchanged" if stored.status == "unchanged" else "updated"
    return write_json(
        schemas.ReadersResponse.model_validate(
            {**stored.access.fields(), "document_id": document_id, "passages": stored.passages, "status": status}
        ),
        only_set=True,
    )


@blueprint.declare(
    Endpoint(
        "DELETE",
        "/v1/documents/<document_id:document_id>",
        role=Role.INGEST,
        audit="delete",
        status=204,
        problems=(409, 504),
    )
)
def delete_document(document_id: str) -> Response:
    """Remove a document. On response it can't be found any more."""
    _take_place()
    stored = _of_id(document_id, lambda key: services().documents.delete(scope(), key))
    note(outcome="deleted", passages=stored.passages)
    return Response(status=204)


def _take_place() -> None:
    """Take a place among the running writes. Raises Overloaded before any of the body is read."""
    at_end(services().writes.places.take(owner(scope())).release)


def _prefers_job() -> bool:
    """Return whether the caller asks for a job (RFC 7240)."""
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    return any(item.partition(";")[0].strip().lower() == "respond-async" for item in preferences)


def _is_job(size: int) -> bool:
    return size >= services().settings.limits.job_bytes or _prefers_job()


def _from_json() -> _DocumentUpload | _JobUpload:
    body = read_body(services().settings.limits.max_text_bytes, "BRAID_MAX_TEXT_BYTES")
    asked = parse(schemas.DocumentRequest, body)
    document = ready_document(asked.model_dump(exclude_unset=True), scope().tenant)
    if _is_job(len(body)):
        file = spool(body)
        return _JobUpload(document.document_id, RecordFile(file.path), file)
    return _DocumentUpload(document.document_id, document)


def _from_upload() -> _DocumentUpload | _JobUpload:
    """Return a file and its fields; the untrusted file name only names the document."""
    length = request.content_length or services().settings.limits.max_body_bytes
    if length <= services().settings.limits.max_body_bytes:  # otherwise it is rejected by its length alone
        disk = services().writes.hold_disk(scope(), length)
        at_end(disk.release)
    upload = request.files.get("file")
    if not isinstance(upload, FileStorage) or not upload.filename:
        message = "send the document as the multipart field 'file', with a file name"
        raise InvalidInput(message, problems=[FieldProblem(("body", "file"), message)])
    name = PurePosixPath(upload.filename.replace("\\", "/")).name
    fields: dict[str, object] = {key: value for key, value in request.form.items() if value}
    for field in request.form:
        if field in ACCESS_FIELDS:
            fields[field] = _readers(field, request.form.getlist(field))
        elif field in FIELDS and FIELDS[field].many and isinstance(value := fields.get(field), str):
            fields[field] = [item.strip() for item in value.split(",") if item.strip()]
    try:
        asked = schemas.UploadFields.model_validate({"document_id": name, **fields})
    except ValidationError as error:
        raise from_validation(error) from error
    file = spooled(upload.stream)
    cancel_at_end(disk.release)
    file.holds.append(disk)
    upload.stream.close()
    size = file.path.stat().st_size
    source = UploadedFile(file.path, name, asked.model_dump(exclude_unset=True))
    return (_JobUpload if _is_job(size) else _DocumentUpload)(asked.document_id, source, file)


def _readers(field: str, values: list[str]) -> list[str]:
    """Return a list of readers in a form: names separated by commas, or a repeated field.

    Raises:
        InvalidInput: it is empty: in a form that may be an oversight, and nobody could read the document.
    """
    # only the spaces that people type after commas: any other character may be part of a name
    names = [name.strip(" ") for value in values for name in value.split(",")]
    found = [name for name in names if name]
    if not found:
        json_too = " (JSON takes an empty list)" if field == "acl" else ""
        message = f"{field} is empty: add names of readers, or omit the field{json_too}"
        raise InvalidInput(message, problems=[FieldProblem(("body", field), message)])
    return found
