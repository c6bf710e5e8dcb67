"""Whatever a parser does to its process costs the file that it had, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.config import load_settings
from app.config.retrieval import IngestSettings
from app.deadline import Deadline
from app.errors import DeadlineExceeded, DocumentRejected
from app.ingest.formats import ParserPool
from tests.unit.ingest.formats.build import raw_pdf
from tests.unit.ingest.formats.hostile import ACTS, ENDS, HANGS, OTHERS, RAISES, SECRET, TAKES_ALL, misbehave


def limits(**more: Any) -> IngestSettings:
    return load_settings(ingest_parse_timeout_s=3.0, **more).ingest


def patient_limits() -> IngestSettings:
    """Time enough on a busy machine; memory that is used up soon."""
    return load_settings(ingest_parse_timeout_s=60.0, ingest_parse_memory_bytes=512 * 1024**2).ingest


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    """One process, as the service has: who breaks it stands in the way of all others."""
    with ParserPool(patient_limits(), 1, parse=misbehave) as made:
        yield made


@pytest.fixture(scope="module")
def hurried_pool() -> Iterator[ParserPool]:
    with ParserPool(limits(), 1, parse=misbehave) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def make(text: str) -> Path:
        path = tmp_path / f"{text.replace(' ', '-')}.txt"
        path.write_text(text)
        return path

    return make


def refusal(pool: ParserPool, path: Path) -> DocumentRejected:
    with pytest.raises(DocumentRejected) as caught:
        pool.parse(path)
    assert SECRET not in caught.value.detail
    return caught.value


def parses(pool: ParserPool, path: Path) -> bool:
    return pool.parse(path).blocks[0].text == path.read_text()


@pytest.mark.parametrize("act", ACTS)
def test_a_parser_that_fails_costs_its_file_alone(
    pool: ParserPool, hurried_pool: ParserPool, file: Callable[[str], Path], act: str
) -> None:
    pool = hurried_pool if act in HANGS else pool
    refused = refusal(pool, file(act))
    if act in RAISES:
        assert refused.reason == "parser-failed"
        assert act in refused.detail
    elif act in TAKES_ALL:
        assert refused.reason == "out-of-memory"
    elif act in HANGS:
        assert refused.reason == "too-slow"
    elif act in ENDS:
        assert refused.reason == "broken"
        assert "crashed" in refused.detail
    else:
        assert refused.reason == {"rejects": "empty", "recurses": "broken", "rubbish": "parser-failed"}[act]
    assert parses(pool, file("A good file that comes next."))
    assert len(pool.processes()) == 1


def test_files_side_by_side_have_nothing_to_do_with_each_other(file: Callable[[str], Path]) -> None:
    quick = [*RAISES, *ENDS, *OTHERS, "SIGKILL", "abort"]
    hostile = [file(act) for act in quick]
    good = [file(f"Good file number {number}.") for number in range(len(hostile))]
    order = [path for pair in zip(hostile, good, strict=True) for path in pair]
    with ParserPool(limits(), 3, parse=misbehave) as pool, ThreadPoolExecutor(6) as threads:

        def attempt(path: Path) -> bool:
            try:
                return parses(pool, path)
            except DocumentRejected:
                return False

        assert list(threads.map(attempt, order)) == [False, True] * len(good)


def test_a_process_serves_many_files_until_one_harms_it(pool: ParserPool, file: Callable[[str], Path]) -> None:
    good = file("A good file.")
    assert parses(pool, good)
    first = pool.processes()
    assert parses(pool, good)
    assert refusal(pool, file("rejects")).reason == "empty"
    assert parses(pool, good)
    assert pool.processes() == first
    refusal(pool, file("ValueError"))
    assert parses(pool, good)
    assert pool.processes() != first


def test_an_idle_process_that_is_killed_costs_no_file(pool: ParserPool, file: Callable[[str], Path]) -> None:
    good = file("A good file.")
    for _ in range(5):
        assert parses(pool, good)
        for pid in pool.processes():
            os.kill(pid, signal.SIGKILL)
        assert parses(pool, good)


def test_a_file_without_a_name_on_disk_is_read_from_its_beginning(pool: ParserPool) -> None:
    with tempfile.TemporaryFile() as content:
        content.write(b"# Valves\n\nChecked every week.\n")
        for _ in range(2):
            parsed = pool.parse(Path("upload.md"), content)
            assert [block.text for block in parsed.blocks] == ["Valves", "Checked every week."]
        content.seek(0)
        content.truncate()
        content.write(b"ValueError")
        with pytest.raises(DocumentRejected):
            pool.parse(Path("upload.md"), content)


def test_a_pool_that_is_closed_ends_its_processes_and_judges_no_file(file: Callable[[str], Path]) -> None:
    with ThreadPoolExecutor(2) as threads:
        with ParserPool(load_settings().ingest, 1, parse=misbehave) as pool:
            calls = [threads.submit(pool.parse, file("sleeps")) for _ in range(2)]  # one waits for the other
            while not pool.processes():
                time.sleep(0.01)
            pids = pool.processes()
        for call in calls:
            with pytest.raises(RuntimeError, match="closed"):
                call.result()
    assert not any(map(psutil.pid_exists, pids))
    with pytest.raises(RuntimeError, match="closed"):
        pool.parse(file("A good file."))


def peak_memory(pool: ParserPool, path: Path) -> tuple[int, DocumentRejected | None]:
    """The largest resident memory of the pool's process while it parses, and the refusal."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            for pid in pool.processes():
                try:
                    peak = max(peak, psutil.Process(pid).memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        pool.parse(path)
    except DocumentRejected as error:
        return peak, error
    finally:
        done.set()
        watcher.join()
    return peak, None


@pytest.mark.parametrize(
    "content",
    [b"BT /F1 9 Tf (word) Tj ET " + b"q " * 8_000_000, b"BT /F1 9 Tf " + b"(a) Tj " * 2_000_000 + b" ET"],
    ids=["states", "texts"],
)
def test_a_small_file_that_takes_much_memory_is_refused_long_before_the_bound(
    file: Callable[[str], Path], tmp_path: Path, content: bytes
) -> None:
    bomb = tmp_path / "bomb.pdf"
    bomb.write_bytes(raw_pdf(content))
    assert bomb.stat().st_size < 50_000
    with ParserPool(load_settings().ingest, 1) as pool:
        peak, refused = peak_memory(pool, bomb)
        assert refused is not None
        assert refused.reason == "out-of-memory"
        assert 100e6 < peak < 800e6
        assert parses(pool, file("A good file."))


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # whose parent does not care
    except psutil.NoSuchProcess:
        return True


def test_parsers_and_uploads_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (tmp_path / "good.txt").write_text("A good file.")
    command = [sys.executable, "-m", "tests.unit.ingest.formats.keeper", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as keeper:
        try:
            assert keeper.stdout is not None
            pids = [{int(pid) for pid in keeper.stdout.readline().split()} for _ in range(2)]
            assert len(pids[0]) == len(HANGS) + 1
            assert pids[0] == pids[1]  # none ended with the thread that had started it
            keeper.send_signal(signal.SIGKILL)
            keeper.wait()
            until = time.monotonic() + 30
            while not all(map(gone, pids[0])):
                assert time.monotonic() < until, "parsers outlive the process that started them"
                time.sleep(0.02)
            assert list(folder.iterdir()) == []
        finally:
            keeper.kill()


def test_who_waits_no_longer_holds_no_parser(file: Callable[[str], Path]) -> None:
    """Neither with a file that is being parsed, nor with one that waits for a process."""
    with ParserPool(load_settings(ingest_parse_timeout_s=600.0).ingest, 1, parse=misbehave) as pool:
        assert parses(pool, file("A good file that comes first."))
        hostile, good = file("sleeps"), file("A good file that waits.")
        deadline = Deadline.after(1000)
        with ThreadPoolExecutor(2) as threads:
            jobs = [threads.submit(pool.parse, path, deadline=deadline) for path in (hostile, good)]
            ended = [type(job.exception(60)) for job in jobs]
        assert ended[0] is DeadlineExceeded
        assert parses(pool, file("A good file that comes next."))
