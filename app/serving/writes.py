"""Writes of documents, limited in number, bytes in memory and on disk, and time; each caller has a share of all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from weakref import WeakValueDictionary

from app import telemetry
from app.config import Settings
from app.deadline import WriteDeadline
from app.errors import BraidError, Overloaded
from app.gateway.admission import WAITING, Admission
from app.gateway.shares import Hold, Shares
from app.ingest.change import StoredDocument
from app.passage import Document
from app.serving.ingest_process import IngestProcess
from app.serving.jobs import Job, Jobs
from app.serving.spool import Spool, SpooledFile
from app.serving.tasks import IngestOutcome, IngestTask, RecordFile, UploadedFile
from app.store.client import Cluster
from app.store.filters import Scope

AT_ONCE = 4
"""Number of concurrent documents that callers wait for: while one is embedded, others are written."""
OWN_AT_ONCE = AT_ONCE - 1
"""Maximum of these for one caller: files that take long to read must not block other callers' documents."""

Announce = Callable[[str, StoredDocument | None], None]
"""Notifies caches of a write to a tenant; None: of one that may be incomplete."""
Told = Callable[[Job, IngestOutcome | BraidError], None]


class Writes:
    """The resources shared by the writes of one process."""

    def __init__(self, settings: Settings, cluster: Cluster, announce: Announce) -> None:
        self._settings = settings
        self._announce = announce
        self.places = Shares(settings.limits.writes, work="places", what="writes (BRAID_WRITES)")
        self.body_bytes = Shares(
            settings.limits.write_bytes, work="body_bytes", what="bytes of bodies (BRAID_WRITE_BYTES)"
        )
        self._job_places = Shares(settings.limits.jobs, work="jobs", what="jobs (BRAID_JOBS)", retry_after_s=10)
        self._spool_bytes = Shares(
            settings.limits.spool_bytes, work="spool_bytes", what="bytes of files (BRAID_SPOOL_BYTES)", retry_after_s=10
        )
        self._turns = Admission(AT_ONCE, settings.limits.writes, work="write")
        self._own: WeakValueDictionary[tuple[str, str | None], threading.Semaphore] = WeakValueDictionary()
        self.process = IngestProcess(settings)
        self.jobs = Jobs(settings, cluster, self.process)
        self._lock = threading.Lock()
        self._spool: Spool | None = None

    def deadline(self) -> WriteDeadline:
        """Return the deadline of a write that arrives now."""
        return WriteDeadline.after(round(self._settings.limits.write_timeout_s * 1000))

    def open_spool(self) -> Spool:
        """Create the folder for files; those of dead processes are removed."""
        with self._lock:
            if self._spool is None:
                self._spool = Spool()
            return self._spool

    def new_file(self, suffix: str = "") -> SpooledFile:
        """Return a file for a body; release it, or pass it to `store` or `start_job`."""
        return (self._spool or self.open_spool()).new_file(suffix)

    def hold_disk(self, scope: Scope, count: int) -> Hold:
        """Reserve `count` bytes in the spool. Raises Overloaded."""
        return self._spool_bytes.take(owner(scope), count)

    def store(
        self, source: Document | UploadedFile, scope: Scope, deadline: WriteDeadline, file: SpooledFile | None = None
    ) -> IngestOutcome:
        """Store one document as `scope`; searchable on return.

        Args:
            deadline: deadline of the waiting caller; work that has begun ends soon afterwards.
            file: the spooled file, if any; released as soon as nobody reads it, also on errors.

        Raises:
            Overloaded: too many are waiting.
            DeadlineExceeded: the document may have been stored.
            IngestInterrupted: the ingest process died.
            StoreError, DocumentRejected, EncoderError.
        """
        with ExitStack() as stack:
            if file is not None:
                stack.callback(file.release)
            stack.callback(self._take_turn(owner(scope), deadline))
            future = self.process.submit(IngestTask(source, scope, deadline))
            held = stack.pop_all()  # until the process is done with it, however long the caller waits
        future.add_done_callback(lambda _: held.close())
        try:
            return future.result(deadline.remaining_s("ingest"))
        except TimeoutError as error:
            # caches were notified at the deadline; they must also learn of later work
            future.add_done_callback(partial(self._late, scope.tenant))
            raise deadline.exceeded("ingest") from error

    def start_job(
        self, source: RecordFile | UploadedFile, file: SpooledFile, scope: Scope, document_id: str, told: Told
    ) -> Job:
        """Store one document in the background; the job owns `file` from here on, unless this raises.

        Raises:
            Overloaded: there are too many jobs. StoreError: the job's record can't be written.
        """
        place = self._job_places.take(owner(scope))

        def release() -> None:
            place.release()
            file.release()

        def ended(job: Job, outcome: IngestOutcome | BraidError) -> None:
            self._announce(scope.tenant, outcome.stored if isinstance(outcome, IngestOutcome) else None)
            told(job, outcome)

        try:
            return self.jobs.submit(source, scope, document_id, release, ended)
        except BraidError:
            place.release()
            raise

    def close(self) -> None:
        """End jobs and the process, remove all files."""
        self.jobs.close()
        self.process.close()
        if self._spool is not None:
            self._spool.close()

    def _take_turn(self, caller: tuple[str, str | None], deadline: WriteDeadline) -> Callable[[], None]:
        """Wait for one of the caller's turns, and for one of all; call the result to release them.
        Raises Overloaded.
        """
        with self._lock:
            own = self._own.setdefault(caller, threading.Semaphore(OWN_AT_ONCE))
        if not own.acquire(timeout=deadline.remaining_s("waiting") * WAITING):
            telemetry.ADMISSION_REFUSED.labels("write", "share").inc()
            raise Overloaded(
                f"the service is busy: {OWN_AT_ONCE} documents of this caller are being processed: retry in 1 s",
                retry_after_s=1.0,
            )
        try:
            leave = self._turns.take(deadline)
        except BraidError:
            own.release()
            raise

        def end() -> None:
            leave()
            own.release()

        return end

    def _late(self, tenant: str, future: Future[IngestOutcome]) -> None:
        self._announce(tenant, future.result().stored if future.exception() is None else None)


def owner(scope: Scope) -> tuple[str, str | None]:
    """Return the owner of a caller's share: the caller within its tenant."""
    return scope.tenant, scope.subject
