"""``POST /v1/documents``, ``GET``, ``PATCH`` and ``DELETE /v1/documents/{document_id}``.

All of them see what the caller may read, and nothing else: a document that it may not read is answered as one that is
not there, and is neither replaced nor removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from pydantic import ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.routing import PathConverter

from app.access import ACCESS_FIELDS
from app.api import schemas
from app.api.bodies import (
    at_end,
    not_at_end,
    parse,
    read_body,
    read_json,
    scope,
    services,
    spool,
    spooled,
    write_json,
)
from app.api.problems import from_validation
from app.errors import BraidError, DocumentRejected, FieldProblem, InvalidInput, NotFound, Overloaded, Overtaken
from app.gateway.audit import later_line, note
from app.ingest.single import StoredDocument
from app.passage import Document
from app.serving.jobs import Job
from app.serving.spool import SpooledFile
from app.serving.tasks import IngestOutcome, RecordFile, UploadedFile
from app.serving.writes import owner

blueprint = Blueprint("documents", __name__)

Done = TypeVar("Done")


class _DocumentId(PathConverter):
    """An id in an address: any text, slashes in front too (Werkzeug's paths begin with something else)."""

    regex = ".+?"
    part_isolating = False


@blueprint.record_once
def _converters(state: BlueprintSetupState) -> None:
    state.app.url_map.converters["document_id"] = _DocumentId


@dataclass(frozen=True, slots=True)
class _Sent:
    """A document that the caller waits for; `file` is the uploaded one."""

    document_id: str
    source: Document | UploadedFile
    file: SpooledFile | None = None


@dataclass(frozen=True, slots=True)
class _SentForJob:
    """A document that a job is to store, in a file."""

    document_id: str
    source: RecordFile | UploadedFile
    file: SpooledFile


@blueprint.post("/v1/documents")
def add() -> Response:
    """Add or replace one document: it is searchable when the answer comes, or the answer names the job that does it."""
    _take_place()
    sent = _from_upload() if request.mimetype == "multipart/form-data" else _from_json()
    note(document_id=sent.document_id)
    deadline = services().writes.deadline()
    services().require_writable(deadline)
    if isinstance(sent, _SentForJob):
        return _start_job(sent)
    if sent.file is not None:
        not_at_end(sent.file.release)
    outcome = _write(lambda: services().ingest(sent.source, scope(), deadline, sent.file), lambda found: found.stored)
    return write_json(
        schemas.DocumentResponse(
            document_id=outcome.document_id,
            passages=outcome.stored.passages,
            status=outcome.stored.status,
            warnings=list(outcome.warnings),
        )
    )


def _start_job(sent: _SentForJob) -> Response:
    """Take the document on, and say where its progress is shown."""
    line = later_line()

    def ended(job: Job, outcome: IngestOutcome | BraidError) -> None:
        if isinstance(outcome, IngestOutcome):
            found: dict[str, Any] = {"outcome": outcome.stored.status, "passages": outcome.stored.passages}
        else:
            found = {"outcome": outcome.kind}
        line(200 if isinstance(outcome, IngestOutcome) else outcome.status, job_id=job.id, **found)

    job = services().writes.start_job(sent.source, sent.file, scope(), sent.document_id, ended)
    not_at_end(sent.file.release)
    note(job_id=job.id)
    response = write_json(schemas.JobResponse.model_validate(job.record()), 202)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if _prefers_job():
        response.headers["Preference-Applied"] = "respond-async"
    return response


@blueprint.get("/v1/documents/<document_id:document_id>")
def get(document_id: str) -> Response:
    """A document's passages in their order."""
    found = services().stored_document(scope(), document_id)
    return write_json(schemas.StoredDocument.model_validate(found), only_set=True)


@blueprint.patch("/v1/documents/<document_id:document_id>")
def change(document_id: str) -> Response:
    """Change who may read a document; in force when the answer comes."""
    _take_place()
    change = read_json(schemas.ReadersRequest).change
    if not change:
        message = f"names no list of readers: give at least one of {', '.join(ACCESS_FIELDS)}"
        raise InvalidInput(message, problems=[FieldProblem(("body", "acl"), message)])
    deadline = services().writes.deadline()
    stored = _write(lambda: services().change_readers(scope(), document_id, change, deadline), lambda found: found)
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
    _take_place()
    deadline = services().writes.deadline()
    _write(lambda: services().delete_document(scope(), document_id, deadline), lambda found: found)
    note(outcome="deleted")
    return Response(status=204)


def _take_place() -> None:
    """Be one of the writes that are under way. Raises Overloaded, before anything of the body is read."""
    at_end(services().writes.places.take(owner(scope())).release)


def _write(write: Callable[[], Done], stored_of: Callable[[Done], StoredDocument]) -> Done:
    """What `write` did; caches are told of it, also where it broke off half way."""
    changed, revoking = True, True
    try:
        done = write()
        stored = stored_of(done)
        changed, revoking = stored.status != "unchanged" or stored.revoking, stored.revoking
    except (NotFound, InvalidInput, DocumentRejected, Overloaded, Overtaken):
        changed = False
        raise
    finally:
        if changed:
            services().generation.advance(scope().tenant, revoking=revoking)
    note(outcome=stored.status, passages=stored.passages)
    return done


def _prefers_job() -> bool:
    """Whether the caller asks for a job (RFC 7240)."""
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    return any(item.partition(";")[0].strip().lower() == "respond-async" for item in preferences)


def _is_job(size: int) -> bool:
    return size >= services().settings.job_bytes or _prefers_job()


def _from_json() -> _Sent | _SentForJob:
    body = read_body(services().settings.max_text_bytes, "BRAID_MAX_TEXT_BYTES")
    asked = parse(schemas.DocumentRequest, body)
    document = services().ready_document(asked.model_dump(exclude_unset=True), scope().tenant)
    if _is_job(len(body)):
        file = spool(body)
        return _SentForJob(document.document_id, RecordFile(file.path), file)
    return _Sent(document.document_id, document)


def _from_upload() -> _Sent | _SentForJob:
    """A file and its fields; the file's name is untrusted and only names the document."""
    length = request.content_length or services().settings.max_body_bytes
    if length <= services().settings.max_body_bytes:  # else it is refused, by its length alone
        disk = services().writes.hold_disk(scope(), length)
        at_end(disk.release)
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
    file = spooled(upload.stream)
    not_at_end(disk.release)
    file.holds.append(disk)
    upload.stream.close()
    size = file.path.stat().st_size
    source = UploadedFile(file.path, name, asked.model_dump(exclude_unset=True))
    return (_SentForJob if _is_job(size) else _Sent)(asked.document_id, source, file)


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
