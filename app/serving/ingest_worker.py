"""The ingest process: reads files, chunks, embeds and writes, so that the service's own process only answers.

    python -m app.serving.ingest_worker FD

Its parent (`ingest_process`) holds the other end of the socket FD. The heavy work of writes happens here, at low
priority, in a separate interpreter: otherwise Python code that chunks a book would hold the lock that searches need.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from app.access import RESTRICTIONS
from app.config import Settings
from app.deadline import Deadline
from app.embedding.text_encoder import TextEncoder, load_text_encoder
from app.errors import BraidError, DocumentRejected, StoreReadOnly
from app.ingest.cutting import file_document
from app.ingest.formats import ParserPool
from app.ingest.records import extra_fields, ready_document
from app.ingest.single import ingest_document
from app.ingest.sources.files import Defaults, SourceFile
from app.passage import Document
from app.serving.reference_check import ReferenceCheck
from app.serving.tasks import IngestOutcome, IngestTask, RecordFile, UploadedFile
from app.store.client import Cluster

_log = logging.getLogger("braid.ingest")

NICENESS = 10
"""Niceness of this process and its parsers: searches have priority."""
TICK_S = 5.0
"""Seconds between signs of life."""
_THREADS = 32
"""More than the service submits at once."""
_SLICE = 4
"""Passages embedded before another task's turn: about 0.2 s of one core."""
_PR_SET_PDEATHSIG = 1

TICK, READY, PROGRESS, DONE, FAILED = "tick", "ready", "progress", "done", "failed"
"""Kinds of messages; each message is (number of the task or 0, kind, value)."""


class Turns:
    """A lock whose waiters get it in order of arrival; an ordinary lock goes to the fastest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn, and hold it for the duration of the block."""
        with self._lock:
            mine = threading.Event()
            if self._taken:
                self._waiting.append(mine)
            else:
                self._taken = True
                mine.set()
        mine.wait()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().set()
                else:
                    self._taken = False


class TaskEncoder:
    """The encoder as seen by one task: in small slices, each in its turn, none after the deadline."""

    def __init__(self, encoder: TextEncoder, turns: Turns, deadline: Deadline, progress: Callable[[int], None]) -> None:
        self._encoder = encoder.within(deadline)
        self._turns = turns
        self._deadline = deadline
        self._progress = progress
        self._done = 0

    @property
    def name(self) -> str:
        return self._encoder.name

    @property
    def dimension(self) -> int:
        return self._encoder.dimension

    @property
    def gives_tokens(self) -> bool:
        return self._encoder.gives_tokens

    @property
    def max_tokens(self) -> int:
        return self._encoder.max_tokens

    @property
    def passage_prefix(self) -> str:
        return self._encoder.passage_prefix

    def token_offsets(self, text: str, /) -> list[tuple[int, int]]:
        self._deadline.remaining_s("cutting")
        return self._encoder.token_offsets(text)

    def encode_passages(self, texts: Sequence[str], /) -> npt.NDArray[np.float32]:
        return np.concatenate([self._encoder.encode_passages(part) for part in self._slices(texts)])

    def encode_passages_with_tokens(
        self, texts: Sequence[str], keep: Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], bytes], /
    ) -> tuple[npt.NDArray[np.float32], list[bytes]]:
        vectors, kept = [], []
        for part in self._slices(texts):
            found, tokens = self._encoder.encode_passages_with_tokens(part, keep)
            vectors.append(found)
            kept += tokens
        return np.concatenate(vectors), kept

    def _slices(self, texts: Sequence[str]) -> Iterator[Sequence[str]]:
        for start in range(0, len(texts), _SLICE):
            with self._turns.turn():
                self._deadline.remaining_s("embedding")
                yield texts[start : start + _SLICE]
            self._done += len(texts[start : start + _SLICE])
            self._progress(self._done)


class Ingester:
    """The parts of this process."""

    def __init__(self, settings: Settings) -> None:
        """Load the model.

        Raises:
            ConfigurationError: as at the service's own start.
        """
        self._settings = settings
        threads = settings.ingest.threads or max(1, len(os.sched_getaffinity(0)) // 2)
        self._cluster = Cluster(settings.opensearch)
        self._encoder = load_text_encoder(settings.with_values(embedding_threads=threads), indexing=True)
        self._reference = ReferenceCheck(self._cluster, self._encoder)
        self._turns = Turns()
        self._lock = threading.Lock()
        self._parsers: dict[bool, ParserPool] = {}

    def store(self, task: IngestTask, progress: Callable[[int], None]) -> IngestOutcome:
        """Carry out a task. Raises BraidError."""
        if (refusal := self._reference.refusal()) is not None:
            raise StoreReadOnly(refusal)
        document = self._document(task)
        encoder = TaskEncoder(self._encoder, self._turns, task.deadline, progress)
        stored = ingest_document(
            document,
            settings=self._settings,
            cluster=self._cluster.by(task.deadline),
            encoder=encoder,
            scope=task.scope,
        )
        return IngestOutcome(document.document_id, stored, document.parsed.warnings)

    def _document(self, task: IngestTask) -> Document:
        source = task.source
        if isinstance(source, Document):
            return source
        if isinstance(source, RecordFile):
            return ready_document(orjson.loads(source.path.read_bytes()), tenant=task.scope.tenant, source_id="api")
        return self._parsed(source, task)

    def _parsed(self, upload: UploadedFile, task: IngestTask) -> Document:
        parsed = self._pool(task.job).parse(upload.path, deadline=task.deadline)
        size = sum(len(block.text) for block in parsed.blocks)
        if size > self._settings.limits.max_text_bytes:
            raise DocumentRejected(
                f"it has {size} characters of text, and the limit over HTTP is {self._settings.limits.max_text_bytes} "
                "(BRAID_MAX_TEXT_BYTES): split the file, or use `braid ingest`",
                reason="too-large",
            )
        if parsed.title == upload.path.stem:  # the parser fell back on the name of our own file
            parsed = replace(parsed, title=upload.name)
        fields = upload.fields
        source = str(fields.get("source_id", "upload"))
        defaults = Defaults(
            tenant=task.scope.tenant,
            source_id=source,
            tags=tuple(fields.get("topic_tags", ())),
            acl=tuple(fields["acl"]) if fields.get("acl") is not None else None,
            restrictions={name: tuple(fields[name]) for name in RESTRICTIONS if fields.get(name) is not None},
            extra=extra_fields(fields),
        )
        document_id = str(fields.get("document_id", upload.name))
        return file_document(SourceFile(upload.path, document_id, source, upload.name, ()), parsed, defaults)

    def _pool(self, job: bool) -> ParserPool:
        """Return the parsers of jobs or of waiting callers: a file that takes minutes must not
        delay waiting callers.
        """
        with self._lock:
            if job not in self._parsers:
                self._parsers[job] = ParserPool(self._settings.ingest, 1)
            return self._parsers[job]


def main(descriptor: int) -> None:
    """Process tasks until the parent closes its end, or is gone."""
    # the kernel kills a process that holds its interpreter's lock; others notice that their socket ends
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    # the parent ends this process when its tasks have ended; a signal to the whole group must not
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _lower_priority()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.set_inheritable(descriptor, False)  # parsers must not keep it open
    connection = Connection(descriptor)
    sending = threading.Lock()

    def send(number: int, kind: str, value: object = None) -> None:
        try:
            with sending:
                connection.send((number, kind, value))
        except OSError:  # the parent is gone, or has abandoned this process
            os._exit(1)

    def tick() -> None:
        while not stopped.wait(TICK_S):
            send(0, TICK)

    def finish(number: int, future: Future[IngestOutcome]) -> None:
        error = future.exception()
        if error is None:
            send(number, DONE, future.result())
        elif isinstance(error, BraidError):
            send(number, FAILED, error)
        else:
            _log.error("a bug while ingesting", exc_info=error)
            send(number, FAILED, BraidError("a bug in the service; see its log"))

    stopped = threading.Event()
    threading.Thread(target=tick, name="tick", daemon=True).start()
    try:
        ingester = Ingester(connection.recv())
    except BraidError as error:
        send(0, FAILED, error)
        return
    send(0, READY)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="ingest") as threads:
        while True:
            try:
                number, task = connection.recv()
            except (EOFError, OSError):
                os._exit(0)  # nobody waits for the remaining tasks
            future = threads.submit(ingester.store, task, partial(send, number, PROGRESS))
            future.add_done_callback(partial(finish, number))


def _lower_priority() -> None:
    """Give the serving process priority: run in a separate session, with a low priority.

    If Linux schedules by sessions (`autogroup`), niceness counts only inside one, and OpenSearch, a session of its own,
    would share the processor evenly with this process. See sched(7).
    """
    os.setsid()
    os.nice(NICENESS)
    with suppress(OSError):  # not every kernel has it
        Path("/proc/self/autogroup").write_text(str(NICENESS))


if __name__ == "__main__":
    main(int(sys.argv[1]))
