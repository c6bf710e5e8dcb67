"""What the service asks its ingest process for, and what comes back; everything here passes between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.deadline import WriteDeadline
from app.ingest.single import StoredDocument
from app.passage import Document
from app.store.filters import Scope


@dataclass(frozen=True, slots=True)
class RecordFile:
    """The JSON body of ``POST /v1/documents``, checked already, in a file."""

    path: Path


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file that somebody sent: where it lies, what it was called, and the fields that came with it."""

    path: Path
    name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IngestTask:
    """One document to be stored as `scope` may. `job`: nobody waits, so others go first."""

    source: Document | RecordFile | UploadedFile
    scope: Scope
    deadline: WriteDeadline
    job: bool = False


@dataclass(frozen=True, slots=True)
class IngestOutcome:
    """What became of a task."""

    document_id: str
    stored: StoredDocument
    warnings: tuple[str, ...] = field(default=())
