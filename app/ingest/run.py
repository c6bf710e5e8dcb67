"""Ingest run: read, parse, chunk, embed and write concurrently, each stage in its own threads.

    read -> parse (worker processes) -> look up, chunk, tag -> embed -> write

Bounded channels between the stages limit memory and keep the slowest stage, normally the embedding model, busy.
Documents whose current version is complete in the store are skipped before chunking.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from app.access import AccessChange
from app.config import Settings
from app.errors import DocumentRejected, InvalidInput, StoreUnavailable
from app.ingest import change
from app.ingest.channel import Aborted, AbortSignal, Channel
from app.ingest.cutting import (
    Encoder,
    embed,
    file_document,
    recipe,
    to_passages,
    token_codec,
    version_of,
)
from app.ingest.formats import ParserPool
from app.ingest.language_notes import UNKNOWN, language_notes
from app.ingest.notifier import Announce, WriteNotifier
from app.ingest.progress import IngestProgress
from app.ingest.protocol import Steps
from app.ingest.put import Put, PutResult, has_content, is_unchanged, put_documents
from app.ingest.records import is_records
from app.ingest.run_report import IngestReport, Stage
from app.ingest.sources.files import Defaults, Problem, Root, SourceFile, read_source, roots_of
from app.ingest.sweep import Sweeper
from app.ingest.targets import find_targets
from app.passage import Document, Passage
from app.store.client import Cluster
from app.store.documents import document_ids
from app.store.documents import refresh as refresh_store
from app.store.filters import Scope
from app.store.heads import Head
from app.values import readers

_LOOKUP = 200
"""Documents per look-up of stored versions."""
_FLUSH_INTERVAL_S = 1.0
"""Minimum seconds between notifications of caches during a run."""
_SLICE = 128
"""Passages embedded at once: enough for batches of texts of similar length."""
_WRITERS = 2
"""Threads that write: while one waits for the disk of heads or passages, another continues."""
_SLICES_PER_WRITE = 4
"""Slices written at once if several are waiting, because each bulk of heads costs a disk sync."""
_FAILURES = frozenset({"refused", "overtaken", "unknown"})


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """Options of a run.

    `tags` are added to each document's own. With `acl` None documents keep their readers (new ones are public); readers
    in a record always take precedence; the same holds for `restrictions` (`acl_1` ... `acl_4`). With `source_id` None
    each root folder's name is used. `whole` stores each row of JSON Lines as one passage; `sync` removes documents that
    the sources no longer contain; `tagging` adds keyphrases to documents without tags; `patience_s` is how many seconds
    the cluster may be unavailable.
    """

    tags: tuple[str, ...] = ()
    source_id: str | None = None
    acl: tuple[str, ...] | None = None
    restrictions: AccessChange = field(default_factory=dict)
    whole: bool = False
    sync: bool = False
    tenant: str | None = None
    tagging: bool = True
    patience_s: float = 60.0
    parse_workers: int = field(default_factory=lambda: max(1, min(8, len(os.sched_getaffinity(0)) - 1)))


def ingest_paths(
    paths: Sequence[Path],
    *,
    settings: Settings,
    cluster: Cluster,
    encoder: Encoder,
    options: IngestOptions | None = None,
    progress: IngestProgress | None = None,
    announce: Announce | None = None,
) -> IngestReport:
    """Ingest files and folders; failures are reported, everything else is stored.

    Writes as the operator of the tenant. `announce` is called for writes once searches can see them.

    Raises:
        InvalidInput: a path does not exist, two roots have the same name, `sync` is requested for a single file, or an
            access list is invalid.
        StoreUnavailable: OpenSearch stayed unavailable; repeating the call finishes the work.
        StoreError: OpenSearch rejects writes.
        EncoderError: the embedding model failed.
    """
    options = options or IngestOptions()
    for name, entries in {"acl": options.acl or (), **options.restrictions}.items():
        try:
            readers(entries)
        except ValueError as error:
            raise InvalidInput(f"--{name.replace('_', '-')}: {error}") from error
    roots = roots_of(paths)
    if options.sync and (lone := next((root.only for root in roots if root.only and not is_records(root.only)), None)):
        raise InvalidInput(f"sync needs the whole source, and {lone.name!r} is one file of it: pass its folder")
    run = _Run(
        roots, settings, cluster, encoder, options, progress or IngestProgress(), announce or (lambda revoking: None)
    )
    begun = time.perf_counter()
    try:
        run.go()
    except StoreUnavailable as error:
        complete = run.report.new + run.report.changed + run.report.unchanged
        raise StoreUnavailable(
            f"{error.detail.rstrip('.')}. {complete} documents of this run are in the store; "
            f"repeating the command skips them and finishes the rest"
        ) from error
    run.report.seconds = time.perf_counter() - begun
    return run.report


@dataclass(frozen=True, slots=True)
class _ParsedFile:
    document: Document
    place: str
    written: datetime


@dataclass(frozen=True, slots=True)
class _ChunkedDocument:
    """A chunked document: its passages, or none if only its readers change."""

    document: Document
    content_hash: str
    head: Head
    passages: Sequence[Passage]


class _Run:
    """State of one run. Each method named after a stage runs only in threads of that stage."""

    def __init__(
        self,
        roots: Sequence[Root],
        settings: Settings,
        cluster: Cluster,
        encoder: Encoder,
        options: IngestOptions,
        progress: IngestProgress,
        announce: Announce,
    ) -> None:
        self._roots = roots
        self._settings = settings
        self._cluster = cluster
        self._encoder = encoder
        self._options = options
        self._progress = progress
        self._notifier = WriteNotifier(announce)
        self._written = threading.Event()
        self._defaults = Defaults(
            tenant=options.tenant or settings.access.tenant,
            source_id=options.source_id,
            tags=options.tags,
            acl=options.acl,
            restrictions=options.restrictions,
            whole=options.whole,
        )
        self._scope = Scope(self._defaults.tenant)
        self._recipe = recipe(settings, encoder, tagging=options.tagging)
        self._lock = threading.Lock()
        self._seen: dict[str, str] = {}  # document id -> place
        self._sources: set[str] = {options.source_id or root.name for root in roots}
        self._hidden: str | None = None
        self.report = IngestReport()
        self.report.stages["parse"].workers = options.parse_workers
        self.report.stages["bulk"].workers = _WRITERS
        abort = self._abort = AbortSignal()
        workers = options.parse_workers
        self._files: Channel[SourceFile] = Channel(abort, size=2 * workers)
        self._documents: Channel[_ParsedFile] = Channel(abort, size=2 * _LOOKUP, writers=1 + workers)
        self._cut: Channel[_ChunkedDocument] = Channel(abort, size=_SLICE)
        self._embedded: Channel[list[_ChunkedDocument]] = Channel(abort, size=_SLICES_PER_WRITE)

    def go(self) -> None:
        sweeper = Sweeper(self._cluster)
        sweeper.sweep()  # records unfinished writes, to distinguish those of a killed run from those under way
        workers = self._options.parse_workers
        with (
            ParserPool(self._settings.ingest, workers) as pool,
            ThreadPoolExecutor(workers + 4 + _WRITERS, thread_name_prefix="ingest") as threads,
        ):
            stages = [
                threads.submit(self._read),
                *(threads.submit(self._parse, pool) for _ in range(workers)),
                threads.submit(self._chunk),
                threads.submit(self._encode),
                *(threads.submit(self._write) for _ in range(_WRITERS)),
            ]
            threads.submit(self._flush_each_second)
            for stage in stages:
                stage.add_done_callback(self._check)
            try:
                wait(stages, return_when=FIRST_EXCEPTION)
            except KeyboardInterrupt as stop:
                self._abort.set(stop)
                raise
            finally:
                self._written.set()
        if self._abort.reason:
            raise self._abort.reason
        steps = self._steps()
        if self._options.sync:
            self._sync(steps)
        sweeper.sweep()
        self._notifier.flush(steps.refresh)
        notes = language_notes(self.report.languages, self._settings)
        self.report.warnings += [("languages", note) for note in notes]

    def _flush_each_second(self) -> None:
        while not self._written.wait(_FLUSH_INTERVAL_S):
            self._notifier.flush(lambda: refresh_store(self._cluster))

    def _steps(self) -> Steps:
        return Steps(self._cluster, patience_s=self._options.patience_s, on_retry=self._waiting)

    def _waiting(self, reason: str) -> None:
        """Report a retry; the moment to stop if the run was aborted."""
        if self._abort.reason is not None:
            raise Aborted
        self._progress.note(f"waiting for OpenSearch: {reason}")

    def _check(self, stage: Future[None]) -> None:
        error = stage.exception()
        if error is not None and not isinstance(error, Aborted):
            self._abort.set(error)

    def _fail(self, problem: Problem) -> None:
        with self._lock:
            self.report.failed.append(problem)
        self._progress.done(1)

    @contextmanager
    def _busy(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            with self._lock:
                stage: Stage = self.report.stages[name]
                stage.busy_s += spent

    def _read(self) -> None:
        for item in read_source(self._roots, self._defaults, self._progress.found):
            if isinstance(item, Problem):
                if item.hides:
                    self._hidden = self._hidden or item.place
                if item.document_id:
                    self._seen.setdefault(item.document_id, item.place)
                self._fail(item)
                continue
            if isinstance(item, SourceFile):
                document_id, place = item.document_id, item.uri
            else:
                document_id, place = item.document.document_id, item.place
                self._sources.add(item.document.source_id)
            if document_id in self._seen:
                first = self._seen[document_id]
                self._fail(Problem(place, "duplicate-id", f"the document {document_id!r} occurs already as {first}"))
                continue
            self._seen[document_id] = place
            if isinstance(item, SourceFile):
                self._files.put(item)
            else:
                self._documents.put(_ParsedFile(item.document, place, datetime.fromtimestamp(item.modified, UTC)))
        self._files.close()
        self._documents.close()

    def _parse(self, pool: ParserPool) -> None:
        for file in self._files:
            try:
                with self._busy("parse"):
                    parsed = pool.parse(file.path)
                    written = datetime.fromtimestamp(file.path.stat().st_mtime, UTC)
            except DocumentRejected as error:
                self._fail(Problem(file.uri, error.reason, error.detail))
                continue
            except OSError as error:
                self._fail(Problem(file.uri, "unreadable", f"the file can't be read: {error.strerror}"))
                continue
            if parsed.warnings:
                with self._lock:
                    self.report.warnings += [(file.uri, warning) for warning in parsed.warnings]
            self._documents.put(_ParsedFile(file_document(file, parsed, self._defaults), file.uri, written))
        self._documents.close()

    def _chunk(self) -> None:
        steps = self._steps()
        while batch := self._documents.take(_LOOKUP):
            targets = find_targets(steps, self._scope, [item.document.document_id for item in batch])
            for item in batch:
                document, head = item.document, targets[item.document.document_id].head
                with self._busy("chunk"):
                    content_hash = version_of(document, self._recipe)
                if is_unchanged(head, content_hash, document.access) and not head.untidy:
                    with self._lock:
                        self.report.unchanged += 1
                    self._progress.done(1)
                    continue
                passages: Sequence[Passage] = ()
                if not has_content(head, content_hash):
                    try:
                        with self._busy("chunk"):
                            passages = to_passages(
                                document,
                                settings=self._settings,
                                encoder=self._encoder,
                                written=item.written,
                                tagging=self._options.tagging,
                            )
                    except DocumentRejected as error:
                        self._fail(Problem(item.place, error.reason, error.detail))
                        continue
                self._cut.put(_ChunkedDocument(document, content_hash, head, passages))
        self._cut.close()

    def _encode(self) -> None:
        codec = token_codec(self._settings, self._encoder)
        # take everything available: full slices while this is the slowest stage, small ones while it waits for others
        while documents := self._cut.take(_SLICE):
            waiting, ready = deque(documents), list[Passage]()
            for slice_ in _slices(documents):
                with self._busy("encode"):
                    ready += embed(slice_, self._encoder, codec)
                if complete := _take_complete(waiting, ready):
                    self._embedded.put(complete)
            if waiting:  # documents that only get other readers
                self._embedded.put(list(waiting))
        self._embedded.close()

    def _write(self) -> None:
        steps = self._steps()
        while slices := self._embedded.take(_SLICES_PER_WRITE):
            puts = [
                Put(
                    item.document.document_id,
                    item.document.source_id,
                    item.content_hash,
                    item.document.access,
                    item.passages,
                    item.head,
                )
                for documents in slices
                for item in documents
            ]
            with self._busy("bulk"):
                results = put_documents(steps, self._scope, puts)
            for put, result in zip(puts, results, strict=True):
                self._count(put, result)

    def _count(self, put: Put, result: PutResult) -> None:
        if result.status in _FAILURES:
            detail = f"OpenSearch rejected it: {result.reason}" if result.status == "refused" else result.reason
            self._fail(Problem(self._seen[put.document_id], result.status, detail))
            return
        self._progress.done(1)
        with self._lock:
            self.report.unchanged += result.status == "unchanged"  # another writer wrote the same content
            self.report.changed += result.status == "updated"
            self.report.new += result.status == "created"
            self.report.passages += result.passages if result.status != "unchanged" else 0
            if result.status != "unchanged":
                self.report.languages.update(passage.text_language or UNKNOWN for passage in put.passages)
        if result.status != "unchanged":
            self._notifier.record(visible=result.status == "updated", revoking=result.revoking)
            self._progress.stored(result.passages)

    def _sync(self, steps: Steps) -> None:
        """Remove documents that the sources no longer contain; only if the sources were read completely."""
        if self._hidden:
            self.report.sync_skipped = f"{self._hidden} could not be read, so removed documents are unknown"
            return
        if not self._seen:
            self.report.sync_skipped = "the paths hold no documents at all (an unmounted folder?)"
            return
        for source in sorted(self._sources):
            steps.refresh()
            stored = list(document_ids(self._cluster, self._scope, source))
            gone = [key for key in stored if key not in self._seen]
            for start in range(0, len(gone), _LOOKUP):
                batch = gone[start : start + _LOOKUP]
                # leftovers of an older version may name the previous source of a document that moved
                deleted = change.delete_documents(steps, self._scope, batch, source_id=source)
                if deleted:
                    self._notifier.record(visible=True, revoking=True)
                self.report.deleted += len(deleted)


def _slices(documents: Sequence[_ChunkedDocument]) -> Iterator[list[Passage]]:
    passages = [passage for document in documents for passage in document.passages]
    for start in range(0, len(passages), _SLICE):
        yield passages[start : start + _SLICE]


def _take_complete(waiting: deque[_ChunkedDocument], ready: list[Passage]) -> list[_ChunkedDocument]:
    """Take the documents whose passages are all embedded, in their order."""
    complete = []
    while waiting and len(ready) >= len(waiting[0].passages):
        document = waiting.popleft()
        count = len(document.passages)
        complete.append(replace(document, passages=ready[:count]))
        del ready[:count]
    return complete
