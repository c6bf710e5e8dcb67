"""Jobs: documents stored in the background, with a queue in memory, files on disk, and a record of each in OpenSearch.

    queued -> running -> done | failed          lost: whoever had it is gone

The process that accepted a job carries it out, and is the only writer of its record, with a heartbeat; a record in
state "running" without a heartbeat is a lost job, and is shown as one. Jobs are never resumed: the file may be gone
with the host, or the caller may have sent it again.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from app import telemetry
from app.config import Settings
from app.deadline import WriteDeadline
from app.errors import BraidError, IngestInterrupted, NotFound, StoreError
from app.serving.ingest_process import IngestProcess
from app.serving.tasks import IngestOutcome, IngestTask, RecordFile, UploadedFile
from app.store import job_records as records
from app.store.client import Cluster
from app.store.filters import Scope

_log = logging.getLogger("braid.jobs")

HEARTBEAT_S = 5.0
LOST_S = 30.0
"""Seconds without a heartbeat after which a job is lost."""
_PURGE_S = 3600.0
_OPEN = frozenset({"queued", "running"})
_AGAIN = "send the document again (POST /v1/documents)"
_ID = re.compile(r"[0-9a-f]{32}")

Release = Callable[[], None]
Ended = Callable[["Job", IngestOutcome | BraidError], None]


def now() -> str:
    """Return the time for records."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(slots=True, eq=False)
class Job:
    """A job of this process. `release` returns its part of the service's limits."""

    source: RecordFile | UploadedFile
    scope: Scope
    document_id: str
    release: Release
    ended: Ended
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    state: str = "queued"
    progress: int = 0
    created_at: str = field(default_factory=now)
    started_at: str | None = None
    ended_at: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """Return the record for the index."""
        return {
            "id": self.id,
            "kind": "ingest",
            "tenant": self.scope.tenant,
            "owner": self.scope.subject,
            "state": self.state,
            "document_id": self.document_id,
            "progress": self.progress,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "heartbeat_at": now(),
            "ended_at": self.ended_at,
            "result": self.result,
            "error": self.error,
        }


class FairQueue:
    """A queue in order of arrival for each owner, with owners in turn."""

    def __init__(self) -> None:
        self._owners: dict[object, deque[Job]] = {}

    def put(self, job: Job) -> None:
        """Add a job behind its owner's others."""
        self._owners.setdefault((job.scope.tenant, job.scope.subject), deque()).append(job)

    def take(self) -> Job | None:
        """Return the next job of the owner whose turn it is."""
        for owner, jobs in self._owners.items():
            job = jobs.popleft()
            del self._owners[owner]
            if jobs:
                self._owners[owner] = jobs  # at the end: the others come first
            return job
        return None


class Jobs:
    """The jobs of one process: one runs at a time."""

    def __init__(self, settings: Settings, cluster: Cluster, process: IngestProcess) -> None:
        self._settings = settings
        self._cluster = cluster
        self._process = process
        self._changed = threading.Condition()
        self._queue = FairQueue()
        self._known: dict[str, Job] = {}
        self._saving = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._purged = 0.0

    def submit(
        self, source: RecordFile | UploadedFile, scope: Scope, document_id: str, release: Release, ended: Ended
    ) -> Job:
        """Accept a document; its record exists on return.

        Args:
            document_id: id of the document, if known.
            release: called when the job has ended, and its file is no longer needed.
            ended: called with the outcome.

        Raises:
            StoreError: the record can't be written: the document was not accepted.
        """
        job = Job(source, scope, document_id, release, ended)
        self._begin()
        records.create_index(self._cluster)
        records.put(self._cluster, job.record())
        with self._changed:
            self._known[job.id] = job
            self._queue.put(job)
            self._changed.notify()
        return job

    def show(self, job_id: str, scope: Scope, *, every: bool) -> dict[str, Any]:
        """Return the record of a job for its owner; with `every`, of any in the tenant.

        Raises:
            NotFound: there is none, or it belongs to another caller.
            StoreError: OpenSearch is unavailable.
        """
        record = records.get(self._cluster, job_id) if _ID.fullmatch(job_id) else None
        if record is None or record["tenant"] != scope.tenant or not (every or record["owner"] == scope.subject):
            raise NotFound(f"there is no job {job_id!r}")
        silent_s = (datetime.now(UTC) - datetime.fromisoformat(record["heartbeat_at"])).total_seconds()
        if record["state"] in _OPEN and silent_s > LOST_S:
            lost = IngestInterrupted(f"the process that had the job is gone: {_AGAIN}")
            record |= {"state": "lost", "error": _problem(lost)}
        return record

    def close(self) -> None:
        """Abandon unfinished jobs, and record that as far as OpenSearch accepts it at once."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
            left = [job for job in self._known.values() if job.state in _OPEN]
        stopped = IngestInterrupted(f"the service was stopped before the job had ended: {_AGAIN}")
        for job in left:
            self._end(job, "lost", error=stopped)
        for thread in self._threads:
            thread.join(5)

    def _begin(self) -> None:
        """Start the threads with the first job, and restart one that a bug ended."""
        with self._changed:
            if self._stopping.is_set():
                return
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            running = {thread.name for thread in self._threads}
            for name, work in (("jobs", self._work), ("heartbeats", self._beat)):
                if name not in running:
                    thread = threading.Thread(target=work, name=name, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                job = self._queue.take()
                while job is None:
                    if self._stopping.is_set():
                        return
                    self._changed.wait()
                    job = self._queue.take()
            if not self._stopping.is_set():
                self._run(job)

    def _run(self, job: Job) -> None:
        job.state, job.started_at = "running", now()
        self._save([job])
        deadline = replace(
            WriteDeadline.after(self._settings.limits.job_timeout_s * 1000), setting="BRAID_JOB_TIMEOUT_S"
        )

        def progress(passages: int) -> None:
            job.progress = passages

        try:
            outcome = self._process.submit(IngestTask(job.source, job.scope, deadline, job=True), progress).result()
        except BraidError as error:
            self._end(job, "failed", error=error)
        else:
            self._end(job, "done", outcome=outcome)

    def _end(
        self, job: Job, state: str, *, outcome: IngestOutcome | None = None, error: BraidError | None = None
    ) -> None:
        with self._changed:
            if job.state not in _OPEN:  # the service is stopping, and the job has been abandoned
                return
            job.state, job.ended_at = state, now()
        telemetry.JOBS.labels(state).inc()
        if outcome is not None:
            job.document_id = outcome.document_id
            job.result = {
                "document_id": outcome.document_id,
                "passages": outcome.stored.passages,
                "status": outcome.stored.status,
                "warnings": list(outcome.warnings),
            }
        if error is not None:
            job.error = _problem(error)
        try:
            job.release()
            ended: IngestOutcome | BraidError | None = outcome if outcome is not None else error
            if ended is not None:
                job.ended(job, ended)
        finally:
            self._save([job])

    def _beat(self) -> None:
        """Write all open records, and those that could not be written at the end of their jobs."""
        while not self._stopping.wait(HEARTBEAT_S):
            with self._changed:
                known = list(self._known.values())
            self._save(known)
            if time.monotonic() - self._purged > _PURGE_S:
                self._purged = time.monotonic()
                self._purge()

    def _save(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            with self._saving:  # a heartbeat must not come after the end
                ended = job.state not in _OPEN
                try:
                    records.put(self._cluster, job.record())
                except StoreError as error:
                    _log.warning("the record of job %s can't be written: %s", job.id, error.detail)
                    return
            if ended:
                with self._changed:
                    self._known.pop(job.id, None)

    def _purge(self) -> None:
        try:
            records.purge(self._cluster, self._settings.limits.job_days)
        except StoreError as error:
            _log.warning("old jobs can't be removed: %s", error.detail)


def _problem(error: BraidError) -> dict[str, Any]:
    return {
        "type": f"urn:braid:problem:{error.kind}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
    }
