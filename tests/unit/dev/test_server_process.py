"""A server ends with its starter, however the starter ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from app.dev.account import server_account
from app.dev.ports import ReservedPorts
from app.dev.process import ServerProcess
from app.errors import ProvisioningError

REPOSITORY = Path(__file__).resolve().parents[3]
ENV = {"PATH": "/usr/bin:/bin"}


def start(argv: list[str], folder: Path, **options: object) -> ServerProcess:
    return ServerProcess(argv, log=folder / "log", cwd=Path("/"), env=ENV, **options)  # type: ignore[arg-type]


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_stop_ends_it_and_may_be_called_twice(tmp_path: Path) -> None:
    server = start(["sleep", "1000"], tmp_path)
    assert psutil.Process(server.pid).name() == "sleep"
    assert server.exit_code is None
    server.stop()
    assert is_gone(server.pid)
    assert server.exit_code == 128 + signal.SIGTERM
    server.stop()


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
    )
    server = start([sys.executable, "-c", stubborn], tmp_path, grace_s=0.2)
    while "up" not in (tmp_path / "log").read_text():
        time.sleep(0.02)
    server.stop()
    assert is_gone(server.pid)
    assert server.exit_code == 128 + signal.SIGKILL


def test_its_exit_code_and_output_are_kept(tmp_path: Path) -> None:
    server = start(["sh", "-c", "echo said; echo warned >&2; exit 7"], tmp_path)
    assert is_gone(server.pid)
    server.stop()
    assert server.exit_code == 7
    assert (tmp_path / "log").read_text() == "said\nwarned\n"


def test_it_inherits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dsecret=1")
    server = start(["env"], tmp_path)
    assert is_gone(server.pid)
    server.stop()
    assert "secret" not in (tmp_path / "log").read_text()


def test_it_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    started: list[ServerProcess] = []
    thread = threading.Thread(target=lambda: started.append(start(["sleep", "1000"], tmp_path)))
    thread.start()
    thread.join()
    time.sleep(0.6)  # more than two looks of the supervisor
    assert started[0].exit_code is None
    started[0].stop()


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match=r"no-such-server can't be started: .*No such file"):
        start(["/no-such-server"], tmp_path)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
@pytest.mark.parametrize("as_account", [False, True])
def test_it_ends_with_its_starter(tmp_path: Path, ending: signal.Signals, as_account: bool) -> None:
    if as_account and os.geteuid() != 0:
        pytest.skip("only root starts servers under another account")
    program = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from app.dev.account import server_account
        from app.dev.process import ServerProcess
        account = server_account() if {as_account} else None
        server = ServerProcess(["sleep", "1000"], log=Path({str(tmp_path / "log")!r}), cwd=Path("/"), env={ENV!r},
                               account=account)
        print(server.pid, flush=True)
        time.sleep(1000)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        server = psutil.Process(pid)
        supervisor = server.parent()
        assert supervisor is not None
        assert (server.uids().real != 0) or not as_account
        starter.send_signal(ending)
    assert is_gone(pid)
    assert is_gone(supervisor.pid)


@pytest.mark.parametrize("as_account", [False, True])
def test_it_ends_with_its_supervisor(tmp_path: Path, as_account: bool) -> None:
    if as_account and os.geteuid() != 0:
        pytest.skip("only root starts servers under another account")
    server = start(["sleep", "1000"], tmp_path, account=server_account() if as_account else None)
    supervisor = psutil.Process(server.pid).parent()
    assert supervisor is not None
    supervisor.kill()
    assert is_gone(server.pid)
    server.stop()


def test_a_reserved_port_is_given_to_nobody_else_but_its_server() -> None:
    with ReservedPorts(50) as first, ReservedPorts(50) as second:
        assert not set(first.numbers) & set(second.numbers)
        port = first.numbers[0]
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))
            server.listen()
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                pass
