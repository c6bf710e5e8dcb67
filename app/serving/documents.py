"""Use cases of documents: write, show, delete. A write: turn, work, invalidate.

All calls are limited to what the caller can read: an inaccessible document is treated as missing, and is neither
replaced nor removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from app.access import Access, AccessChange
from app.deadline import Deadline
from app.errors import (
    BraidError,
    DocumentRejected,
    EncoderError,
    FieldProblem,
    InvalidInput,
    NotFound,
    Overloaded,
    WriteConflict,
)
from app.ingest import records, single
from app.ingest.change import StoredDocument
from app.passage import Document
from app.search.readiness_gate import ReadinessGate, StoreState, require_changeable, require_writable, wait_for
from app.serving.jobs import Job
from app.serving.readiness import CHECK_TIMEOUT_S
from app.serving.spool import SpooledFile
from app.serving.tasks import IngestOutcome, RecordFile, UploadedFile
from app.serving.writes import Announce, Told, Writes
from app.store import documents
from app.store.client import Cluster
from app.store.filters import Scope
from app.store.passages import shown_fields

_PER_PASSAGE = ("id", "position", "token_count")
"""Fields of a document's passages that are shown in addition to the returned fields."""

Done = TypeVar("Done")


def ready_document(fields: Mapping[str, Any], tenant: str) -> Document:
    """Return the document described by the fields of ``POST /v1/documents``. Raises InvalidInput."""
    try:
        return records.ready_document(fields, tenant=tenant, source_id="api")
    except DocumentRejected as error:
        raise InvalidInput(error.detail, problems=[FieldProblem(("body",), error.detail)]) from error


@dataclass(frozen=True, slots=True)
class DocumentService:
    """Writes, shows and deletes documents. Thread-safe."""

    cluster: Cluster
    gate: ReadinessGate
    writes: Writes
    announce: Announce

    def put(self, source: Document | UploadedFile, scope: Scope, file: SpooledFile | None = None) -> IngestOutcome:
        """Store one document as `scope` may; searchable on return.

        Args:
            file: the spooled file, if any; released here on every path.

        Raises:
            StoreNotReady, StoreReadOnly: writes are not possible.
            BraidError: as `Writes.store`.
        """
        deadline = self.writes.deadline()
        try:
            self._require_writable(deadline)
        except BraidError:
            if file is not None:
                file.release()
            raise
        return self._write(
            scope, lambda: self.writes.store(source, scope, deadline, file), lambda outcome: outcome.stored
        )

    def start_job(
        self, source: RecordFile | UploadedFile, file: SpooledFile, scope: Scope, document_id: str, told: Told
    ) -> Job:
        """Accept a document to be stored in the background; the job owns `file` from here on, unless this raises.

        Raises:
            StoreNotReady, StoreReadOnly: writes are not possible.
            BraidError: as `Writes.start_job`.
        """
        self._require_writable(self.writes.deadline())
        return self.writes.start_job(source, file, scope, document_id, told)

    def change_readers(self, scope: Scope, document_id: str, change: AccessChange) -> StoredDocument:
        """Change the readers of a document; effective on return. An encoder elsewhere is not needed.

        Raises:
            StoreNotReady, StoreReadOnly: changes are not possible.
            NotFound, WriteConflict, StoreError.
            DeadlineExceeded: the change may have been made.
        """
        deadline = self.writes.deadline()
        self._require_changeable(deadline)
        cluster = self.cluster.by(deadline)
        return self._write(
            scope, lambda: single.change_readers(cluster, scope, document_id, change), lambda stored: stored
        )

    def delete(self, scope: Scope, document_id: str) -> StoredDocument:
        """Delete a document, as far as the scope sees it; not found on return. Raises as `change_readers`."""
        deadline = self.writes.deadline()
        self._require_changeable(deadline)
        cluster = self.cluster.by(deadline)
        return self._write(scope, lambda: single.delete_document(cluster, scope, document_id), lambda stored: stored)

    def show(self, scope: Scope, document_id: str) -> dict[str, Any]:
        """Return the body of ``GET /v1/documents/{id}``. Raises NotFound."""
        state = self.gate.state(self.gate.begin(), CHECK_TIMEOUT_S)
        get = documents.get_document if state.read_only is None else documents.get_headless_document
        head, passages = get(self.cluster, scope, document_id)
        return {
            **shown_fields(passages[0], per_passage=False),
            **(head.access or Access()).fields(),
            "ingested_at": passages[0].get("ingested_at"),
            "passages": [
                {**shown_fields(item, per_passage=True), **{name: item.get(name) for name in _PER_PASSAGE}}
                for item in passages
            ],
        }

    def _write(self, scope: Scope, write: Callable[[], Done], stored_of: Callable[[Done], StoredDocument]) -> Done:
        """Return the result of `write`; caches are notified, even if it was interrupted."""
        try:
            done = write()
        except (NotFound, InvalidInput, DocumentRejected, Overloaded, WriteConflict):  # it changed nothing
            raise
        except BaseException:
            self.announce(scope.tenant, None)
            raise
        self.announce(scope.tenant, stored_of(done))
        return done

    def _require_writable(self, deadline: Deadline) -> None:
        """Raise StoreNotReady, or StoreReadOnly unless the aliases have been moved since the last check."""
        self._require(require_writable, deadline)

    def _require_changeable(self, deadline: Deadline) -> None:
        """Raise as `_require_writable`, but not because of an encoder elsewhere: a revocation must not wait for it."""
        # without kept vectors the check asks the encoder's server for their dimension; heads decide without it
        with contextlib.suppress(EncoderError):
            self._require(require_changeable, deadline)

    def _require(self, check_state: Callable[[StoreState], StoreState], deadline: Deadline) -> None:
        left = min(CHECK_TIMEOUT_S, deadline.remaining_s("readiness"))
        check = self.gate.begin()
        state = self.gate.state(check, left)
        check_state(state if state.closed is None else wait_for(check, left))
