"""The flagd server mode against a real gRPC server that speaks flagd's sync protocol (flagd itself is not run here)."""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from openfeature.schemas.protobuf.flagd.sync.v1.sync_pb2 import SyncFlagsRequest, SyncFlagsResponse
from openfeature.schemas.protobuf.flagd.sync.v1.sync_pb2_grpc import (
    FlagSyncServiceServicer,
    add_FlagSyncServiceServicer_to_server,
)
from prometheus_client import REGISTRY

from app.config import load_settings
from app.gateway import flag_server
from app.gateway.flags import Flags
from app.store.filters import Scope
from tests.unit.gateway.flag_files import OFF_FOR_A, flags_with, wait_until

A = Scope("a")


class Flagd(FlagSyncServiceServicer):
    """Sends the flags at once, and whenever they change, to everybody who listens."""

    def __init__(self, port: int = 0, content: bytes = b"", **context: Any) -> None:
        self.content = content
        self.context = context
        self.streams = 0
        self._listeners: list[queue.Queue[bytes | None]] = []
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        add_FlagSyncServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self._server.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def SyncFlags(  # noqa: N802 - gRPC's name
        self, request: SyncFlagsRequest, context: grpc.ServicerContext
    ) -> Iterator[SyncFlagsResponse]:
        assert request.provider_id == "braid"
        self.streams += 1
        mine: queue.Queue[bytes | None] = queue.Queue()
        if self.content:
            mine.put(self.content)
        self._listeners.append(mine)
        context.add_callback(lambda: mine.put(None))
        while (content := mine.get()) is not None:
            answer = SyncFlagsResponse(flag_configuration=content.decode())
            answer.sync_context.update(self.context)
            yield answer

    def send(self, content: bytes) -> None:
        self.content = content
        for listener in self._listeners:
            listener.put(content)

    def end_streams(self) -> None:
        for listener in self._listeners:
            listener.put(None)
        self._listeners.clear()

    def stop(self) -> None:
        self.end_streams()
        self._server.stop(None).wait()
        self._pool.shutdown()


@pytest.fixture
def flagd() -> Iterator[Flagd]:
    server = Flagd(content=flags_with(targeting=OFF_FOR_A))
    yield server
    server.stop()


@pytest.fixture
def flags(flagd: Flagd) -> Iterator[Flags]:
    flags = Flags(load_settings(flagd=flagd.address))
    yield flags
    flags.close()


@pytest.fixture
def nobody() -> int:
    """A port at which nothing listens."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
    return port


def test_the_flags_of_the_server_count_from_the_start_and_as_they_change(flags: Flags, flagd: Flagd) -> None:
    assert not flags.features(A).rerank
    assert flags.features(Scope("b")).rerank
    assert flags.warnings() == []
    flagd.send(flags_with())
    wait_until(lambda: flags.features(A).rerank)


@pytest.mark.parametrize("broken", [b"{}", b"[]", b"not JSON", b'{"flags": {}}', flags_with(state="on")])
def test_what_can_not_be_used_is_refused_and_the_next_is_taken(flags: Flags, flagd: Flagd, broken: bytes) -> None:
    flagd.send(broken)
    wait_until(lambda: flags.warnings() != [])
    assert flags.warnings() == ["the flagd server sends feature flags that can't be used: the last that it sent stay"]
    assert not flags.features(A).rerank
    flagd.send(flags_with())
    wait_until(lambda: flags.features(A).rerank)
    assert flags.warnings() == []


def test_a_server_that_goes_away_and_comes_back(flags: Flags, flagd: Flagd, caplog: pytest.LogCaptureFixture) -> None:
    def tries() -> float:
        return REGISTRY.get_sample_value("flag_sets_total", {"outcome": "unreachable"}) or 0.0

    before = tries()
    flagd.stop()
    wait_until(lambda: flags.warnings() != [])
    assert flags.warnings() == ["the flagd server of the feature flags does not answer: the last that it sent stay"]
    assert not flags.features(A).rerank
    wait_until(lambda: tries() >= before + 2)
    assert [record.name for record in caplog.records if record.levelno == logging.WARNING] == ["braid.flags"]
    again = Flagd(flagd.port, flagd.content)
    try:
        wait_until(lambda: flags.warnings() == [])
        assert not flags.features(A).rerank
        again.send(flags_with())
        wait_until(lambda: flags.features(A).rerank)
    finally:
        again.stop()


def test_a_server_that_comes_later(nobody: int) -> None:
    flags = Flags(load_settings(flagd=f"127.0.0.1:{nobody}"))
    assert flags.warnings() == [
        "the flagd server of the feature flags does not answer: those that ship with Braid count"
    ]
    assert flags.features(A).rerank
    late = Flagd(nobody, flags_with(targeting=OFF_FOR_A))
    try:
        wait_until(lambda: not flags.features(A).rerank)
        assert flags.warnings() == []
    finally:
        flags.close()
        late.stop()


def test_a_server_that_says_nothing_does_not_hold_up_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flag_server, "_FIRST_S", 0.1)
    silent = Flagd()
    flags = Flags(load_settings(flagd=silent.address))
    assert "those that ship with Braid count" in flags.warnings()[0]
    silent.send(flags_with(targeting=OFF_FOR_A))
    wait_until(lambda: not flags.features(A).rerank)
    assert flags.warnings() == []
    flags.close()
    silent.stop()


def test_a_stream_that_grew_old_is_renewed_without_a_word(monkeypatch: pytest.MonkeyPatch, flagd: Flagd) -> None:
    monkeypatch.setattr(flag_server, "_STREAM_S", 0.3)
    flags = Flags(load_settings(flagd=flagd.address))
    seen: list[str] = []
    wait_until(lambda: bool(seen.extend(flags.warnings())) or flagd.streams >= 3)
    assert seen == []
    flagd.send(flags_with())
    wait_until(lambda: flags.features(A).rerank)
    flags.close()


def test_a_server_that_ends_its_streams_is_asked_again(flags: Flags, flagd: Flagd) -> None:
    flagd.content = flags_with()
    flagd.end_streams()
    wait_until(lambda: flags.features(A).rerank)
    assert flags.warnings() == []


def test_what_the_server_adds_to_the_context_never_stands_for_the_caller() -> None:
    in_test = {"if": [{"==": [{"var": "stage"}, "test"]}, "off", None]}
    flagd = Flagd(content=flags_with(targeting=in_test), stage="test", tenant="z", targetingKey="z")
    flags = Flags(load_settings(flagd=flagd.address))
    assert not flags.features(A).rerank
    flagd.send(flags_with(targeting=OFF_FOR_A))
    wait_until(lambda: flags.features(Scope("z")).rerank)
    assert not flags.features(A).rerank
    flags.close()
    flagd.stop()


def test_closing_ends_the_stream_and_the_thread(flagd: Flagd) -> None:
    flags = Flags(load_settings(flagd=flagd.address))
    assert any(thread.name == "braid-flags" for thread in threading.enumerate())
    flags.close()
    assert not any(thread.name == "braid-flags" for thread in threading.enumerate())
