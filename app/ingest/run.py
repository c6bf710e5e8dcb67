"""An ingest run: read, parse, cut, embed and write, all at once, each stage in threads of its own.

    read -> parse (worker processes) -> look up, cut, tag -> embed -> write

Bounded channels between the stages keep memory flat and let the slowest stage, which should be the embedding model,
work without a pause. Documents whose current version is complete in the store are skipped before they are cut.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from app.access import Access, AccessChange
from app.config import Settings
from app.errors import DocumentRejected, InvalidInput, StoreUnavailable
from app.ingest.channel import Abort, Aborted, Channel
from app.ingest.documents import (
    Encoder,
    embed,
    file_document,
    recipe,
    to_passages,
    token_codec,
    version_of,
    with_its_readers,
)
from app.ingest.news import Announce, News
from app.ingest.parse import ParserPool
from app.ingest.progress import IngestProgress, Silent
from app.ingest.records import is_records
from app.ingest.report import IngestReport, Stage
from app.ingest.sources import Defaults, Problem, Root, SourceFile, read_source, roots_of
from app.ingest.writer import Writer
from app.passage import Document, Passage, readers
from app.store.client import Cluster
from app.store.documents import Versions, document_ids
from app.store.documents import refresh as refresh_store
from app.store.filters import Scope

_LOOKUP = 200
"""Documents whose versions are asked for at once."""
_TELL_S = 1.0
"""How often, at most, caches are told of new documents while a run goes on."""
_SLICE = 128
"""Passages embedded and written at once: enough that texts of like length meet in a batch of the model."""


OVERTAKEN = "somebody else wrote the document, or changed its readers, at the same time: send it again"


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """What the caller says of a run.

    `tags` are added to each document's own; `acl` None leaves documents their readers (new ones are everybody's), and
    those that a record names are always its own; the same holds for `restrictions` (`acl_1` ... `acl_4`); `source_id`
    None means the name of each root folder; `whole` stores each row of JSON Lines as one passage; `sync` removes the
    documents of the sources at hand that are no longer there; `tagging` gives keyphrases to documents without tags;
    `patience_s` is how long a cluster may be away.
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


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """What became of one document. `revoking`: somebody who could read it before can't any more."""

    passages: int
    status: Literal["created", "updated", "unchanged"]
    revoking: bool = False
    access: Access | None = None
    """Who may read it after the call; None where it is gone."""


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
    """Bring files and folders into the store; what can't go in is reported, everything else goes in.

    It writes as the operator of the tenant. `announce` is told of what was written, once searches can see it.

    Raises:
        InvalidInput: a path that does not exist, two roots of one name, `sync` for a lone file, or an access list that
            can't be one.
        StoreUnavailable: OpenSearch stayed away; the same call again finishes the work.
        StoreError: OpenSearch takes no writes.
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
        raise InvalidInput(f"sync needs the whole source, and {lone.name!r} is one file of it: name its folder")
    run = _Run(roots, settings, cluster, encoder, options, progress or Silent(), announce or (lambda revoking: None))
    begun = time.perf_counter()
    try:
        run.go()
    except StoreUnavailable as error:
        complete = run.report.new + run.report.changed + run.report.unchanged
        raise StoreUnavailable(
            f"{error.detail.rstrip('.')}. {complete} documents of this run are in the store; "
            f"the same command again skips them and finishes the rest"
        ) from error
    run.report.seconds = time.perf_counter() - begun
    return run.report


def ingest_document(
    document: Document,
    *,
    settings: Settings,
    cluster: Cluster,
    encoder: Encoder,
    scope: Scope | None = None,
    refresh: bool = True,
) -> StoredDocument:
    """Bring one document into the store, replacing an older version; searchable on return if `refresh`.

    `scope` is the writer's (None: the operator of the document's tenant): versions that it may not see stay as they
    are, beside the new one, and the answer is the same as if they were not there.

    Raises:
        DocumentRejected: ``empty``, or ``refused`` with OpenSearch's reason.
        StoreUnavailable, StoreError, EncoderError: as `ingest_paths`; OpenSearch is given 5 s to come back.
    """
    writer = Writer(cluster, scope or Scope(document.tenant), patience_s=5.0)
    if refresh:
        writer.refresh()  # two calls for one document, one right after the other
    older = writer.versions([document.document_id])
    had = older.get(document.document_id, {})
    document = with_its_readers(document, had)
    access = Access().changed(document.access)
    version = version_of(document, recipe(settings, encoder))
    passages = to_passages(
        document, content_hash=version, settings=settings, encoder=encoder, written=datetime.now(UTC)
    )
    if version in had:
        writer.keep_only({document.document_id: version})
        left = any(access.narrows(before) for before in had.values())
        return StoredDocument(len(passages), "unchanged", left, access)
    revoking = False
    for slice_ in _slices([_in_order(passages)]):
        written = writer.write(embed(slice_, encoder, token_codec(settings, encoder)), older)
        if reason := written.failed.get(document.document_id):
            raise DocumentRejected(f"OpenSearch refused it: {reason}", reason="refused")
        if written.overtaken:
            raise StoreUnavailable(OVERTAKEN)
        revoking |= written.revoking
    if refresh:
        writer.refresh()
    return StoredDocument(len(passages), "updated" if had else "created", revoking, access)


@dataclass(frozen=True, slots=True)
class _Parsed:
    document: Document
    place: str
    written: datetime


class _Run:
    """The state of one run. Each method named after a stage runs in threads of that stage alone."""

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
        self._news = News(announce)
        self._written = threading.Event()
        self._defaults = Defaults(
            tenant=options.tenant or settings.tenant,
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
        self._older: dict[str, Versions] = {}
        self.report = IngestReport()
        self.report.stages["parse"].workers = options.parse_workers
        abort = self._abort = Abort()
        workers = options.parse_workers
        self._files: Channel[SourceFile] = Channel(abort, size=2 * workers)
        self._documents: Channel[_Parsed] = Channel(abort, size=2 * _LOOKUP, writers=1 + workers)
        self._cut: Channel[list[Passage]] = Channel(abort, size=_SLICE)
        self._embedded: Channel[list[Passage]] = Channel(abort, size=2)

    def go(self) -> None:
        writer = self._writer()
        writer.refresh()  # what a killed run left behind must be seen
        workers = self._options.parse_workers
        with (
            ParserPool(self._settings, workers) as pool,
            ThreadPoolExecutor(workers + 5, thread_name_prefix="ingest") as threads,
        ):
            stages = [
                threads.submit(self._read),
                *(threads.submit(self._parse, pool) for _ in range(workers)),
                threads.submit(self._chunk),
                threads.submit(self._encode),
                threads.submit(self._write, writer),
            ]
            threads.submit(self._tell_each_second)
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
        if self._options.sync:
            self._sync(writer)
        self._news.tell(writer.refresh)

    def _tell_each_second(self) -> None:
        while not self._written.wait(_TELL_S):
            self._news.tell(lambda: refresh_store(self._cluster))

    def _writer(self) -> Writer:
        return Writer(
            self._cluster,
            self._scope,
            patience_s=self._options.patience_s,
            on_retry=self._waiting,
        )

    def _waiting(self, reason: str) -> None:
        """Told before each new try: the moment to give up when the run has been broken off."""
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
                self._fail(Problem(place, "duplicate-id", f"the document {document_id!r} came already, as {first}"))
                continue
            self._seen[document_id] = place
            if isinstance(item, SourceFile):
                self._files.put(item)
            else:
                self._documents.put(_Parsed(item.document, place, datetime.fromtimestamp(item.modified, UTC)))
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
            self._documents.put(_Parsed(file_document(file, parsed, self._defaults), file.uri, written))
        self._documents.close()

    def _chunk(self) -> None:
        writer = self._writer()
        while batch := self._documents.take(_LOOKUP):
            stored = writer.versions([item.document.document_id for item in batch])
            batch = [
                replace(item, document=with_its_readers(item.document, stored.get(item.document.document_id, {})))
                for item in batch
            ]
            with self._busy("chunk"):
                versions = {item.document.document_id: version_of(item.document, self._recipe) for item in batch}
            current = {key: version for key, version in versions.items() if version in stored.get(key, ())}
            if writer.keep_only(current):  # what a killed run may have left of other versions
                self._news.wrote(visible=True, revoking=True)
            self.report.unchanged += len(current)
            self._progress.done(len(current))
            for item in batch:
                key = item.document.document_id
                if key in current:
                    continue
                try:
                    with self._busy("chunk"):
                        passages = to_passages(
                            item.document,
                            content_hash=versions[key],
                            settings=self._settings,
                            encoder=self._encoder,
                            written=item.written,
                            tagging=self._options.tagging,
                        )
                except DocumentRejected as error:
                    self._fail(Problem(item.place, error.reason, error.detail))
                    continue
                if key in stored:
                    self._older[key] = stored[key]
                self._cut.put(_in_order(passages))
        self._cut.close()

    def _encode(self) -> None:
        codec = token_codec(self._settings, self._encoder)
        # whatever is there is taken: full slices while this is the slowest stage, small ones while it waits for others
        while documents := self._cut.take(_SLICE):
            for slice_ in _slices(documents):
                with self._busy("encode"):
                    ready = embed(slice_, self._encoder, codec)
                self._embedded.put(ready)
        self._embedded.close()

    def _write(self, writer: Writer) -> None:
        for slice_ in self._embedded:
            with self._busy("bulk"):
                written = writer.write(slice_, self._older)
            self._news.wrote(visible=written.visible, revoking=written.revoking)
            changed = sum(key in self._older for key in written.complete)
            self.report.changed += changed
            self.report.new += len(written.complete) - changed
            self.report.passages += written.passages
            for key in written.complete:
                self._older.pop(key, None)
            self._progress.done(len(written.complete))
            self._progress.stored(written.passages)
            for key, reason in written.failed.items():
                self._fail(Problem(self._seen[key], "refused", f"OpenSearch refused it: {reason}"))
            for key in written.overtaken:
                self._fail(Problem(self._seen[key], "overtaken", OVERTAKEN))

    def _sync(self, writer: Writer) -> None:
        """Remove what the sources have no longer; nothing unless everything that they have is known."""
        if self._hidden:
            self.report.sync_skipped = f"{self._hidden} could not be read, so what vanished is not known"
            return
        if not self._seen:
            self.report.sync_skipped = "the paths hold no documents at all (an unmounted folder?)"
            return
        for source in sorted(self._sources):
            stored = list(document_ids(self._cluster, self._scope, source))
            gone = [key for key in stored if key not in self._seen]
            if gone:
                writer.delete(gone)
                self._news.wrote(visible=True, revoking=True)
                self.report.deleted += len(gone)


def _in_order(passages: list[Passage]) -> list[Passage]:
    """As they are written: position 0 last."""
    return [*passages[1:], passages[0]]


def _slices(documents: Sequence[list[Passage]]) -> Iterator[list[Passage]]:
    passages = [passage for document in documents for passage in document]
    for start in range(0, len(passages), _SLICE):
        yield passages[start : start + _SLICE]
