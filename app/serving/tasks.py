"""Tasks for the ingest process and their outcomes; everything here passes between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.deadline import WriteDeadline
from app.ingest.change import StoredDocument
from app.passage import Document
from app.store.filters import Scope


@dataclass(frozen=True, slots=True)
class RecordFile:
    """The validated JSON body of ``POST /v1/documents`` in a file."""

    path: Path


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """An uploaded file: its path, its original name, and the fields sent with it."""

    path: Path
    name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IngestTask:
    """One document to store as `scope`. `job`: nobody waits, so others have priority."""

    source: Document | RecordFile | UploadedFile
    scope: Scope
    deadline: WriteDeadline
    job: bool = False


@dataclass(frozen=True, slots=True)
class IngestOutcome:
    """Outcome of a task."""

    document_id: str
    stored: StoredDocument
    warnings: tuple[str, ...] = field(default=())
