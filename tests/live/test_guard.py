"""What `braid up` starts belongs to whoever started it: other users and web pages get nothing from it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import redis

from app.config import Settings, load_settings
from app.dev.account import private_folder, server_account
from app.dev.guard import USER
from app.dev.node import EmbeddedCluster, start_cluster
from app.dev.valkey import start_valkey
from app.provision.folders import make_folder
from app.provision.opensearch import find_home
from tests.conftest import JAVA_OPTIONS

SECRET = "a-secret-for-tests-0123456789_ABCDEF"
OTHER_USER = 1
"""`daemon`: neither who started it nor the node's account."""
PATHS = ["/", "/_bulk", "/_search", "/_cluster/settings", "/an-index", "/no/such/path/at/all", "/favicon.ico", "/%zz"]


@pytest.fixture(scope="module")
def node(node_settings: Settings) -> Iterator[EmbeddedCluster]:
    """A guarded node of somebody's distribution, in which nothing is changed."""
    with tempfile.TemporaryDirectory(prefix="braid-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "distribution").symlink_to(find_home(node_settings.machine).path)
        given = load_settings(opensearch_home=folder / "distribution", cache_dir=folder / "cache")
        before = contents(folder / "distribution" / "modules")
        with start_cluster(given.machine, data_dir=folder / "data", heap_mb=512, secret=SECRET) as cluster:
            yield cluster
        assert contents(folder / "distribution" / "modules") == before


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def say(port: int, head: str, body: bytes = b"") -> tuple[int, str]:
    """Send a request as it is written here; the status (0: the connection was closed) and all of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
        raw.sendall(head.encode() + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        found = b""
        while data := raw.recv(65536):
            found += data
    return int(found.split(b" ", 2)[1]) if found else 0, found.decode(errors="replace")


def basic(secret: str, user: str = USER) -> str:
    return f"Authorization: Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}\r\n"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_without_the_secret_nothing_is_answered(node: EmbeddedCluster, method: str, path: str) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{node.ports[0]}\r\nContent-Type: application/json\r\n"
    for wrong in (
        "",
        basic("wrong"),
        basic(SECRET, "admin"),
        basic(SECRET[:-1]),
        f"Authorization: Bearer {SECRET}\r\n",
    ):
        status, answer = say(node.ports[0], head + wrong, b'{"index": {}}\n{}\n')
        assert status == 401, answer
        assert "www-authenticate: basic" in answer.lower()
        assert SECRET not in answer
    assert say(node.ports[0], head + basic(SECRET))[0] not in {401, 403}


def test_a_method_that_nobody_knows_ends_the_connection(node: EmbeddedCluster) -> None:
    assert say(node.ports[0], "NONSENSE / HTTP/1.1\r\nHost: 127.0.0.1\r\n") == (0, "")


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "LOCALHOST", "127.0.0.1:1"])
def test_names_of_this_machine_are_answered(node: EmbeddedCluster, host: str) -> None:
    host = host.format(port=node.ports[0])
    assert say(node.ports[0], f"GET / HTTP/1.1\r\nHost: {host}\r\n{basic(SECRET)}")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        "Host: evil.example:9200\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: evil.example#127.0.0.1\r\n",
        "Host: 127.0.0.1\r\nHost: evil.example\r\n",
        "Host: \r\n",
        "Host: 127.0.0.1\r\nOrigin: http://evil.example\r\n",
        "Host: 127.0.0.1\r\nOrigin: null\r\n",
        "Host: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n",
        "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: 127.0.0.1\r\nSec-Fetch-Site: same-site\r\n",
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_web_pages_are_refused_even_with_the_secret(node: EmbeddedCluster, path: str, headers: str) -> None:
    for credentials in ("", basic(SECRET)):
        status, answer = say(node.ports[0], f"POST {path} HTTP/1.1\r\n{headers}{credentials}", b"{}")
        assert status == 403, answer
        assert "security_exception" in answer


def test_a_page_that_the_owner_opens_is_answered(node: EmbeddedCluster) -> None:
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: none\r\n{basic(SECRET)}"
    assert say(node.ports[0], head)[0] == 200


def transport_message(action: str, headers: dict[str, str]) -> bytes:
    """A request of OpenSearch's own protocol between nodes, with an empty body."""

    def text(value: str) -> bytes:
        return bytes([len(value) & 0x7F | 0x80, len(value) >> 7] if len(value) > 127 else [len(value)]) + value.encode()

    context = bytes([len(headers)]) + b"".join(text(key) + text(value) for key, value in headers.items())
    variable = context + b"\0" + b"\0" + text(action)  # no response headers, no features
    version = (2 * 1_000_000 + 19 * 10_000 + 1 * 100 + 99) ^ 0x08000000
    rest = struct.pack(">qbii", 7, 0, version, len(variable)) + variable + b"\0"  # no parent task
    return b"ES" + struct.pack(">i", len(rest)) + rest


def test_who_is_no_node_gets_nothing_from_the_transport_port(node: EmbeddedCluster) -> None:
    config = json.loads((node.data_dir / "node-1" / "config" / "opensearch.yml").read_text())
    known = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()

    def ask(headers: dict[str, str]) -> tuple[bool, bytes]:
        with socket.create_connection(("127.0.0.1", config["transport.port"]), timeout=60) as raw:
            raw.sendall(transport_message("internal:transport/handshake", headers))
            head = raw.recv(6, socket.MSG_WAITALL)
            rest = raw.recv(struct.unpack(">i", head[2:])[0], socket.MSG_WAITALL)
            return bool(rest[8] & 2), rest

    for headers in ({}, {"_braid_node": "wrong"}):
        failed, answer = ask(headers)
        assert failed
        assert b"came from somebody who is not a node of this cluster" in answer
        assert known.encode() not in answer
    failed, answer = ask({"_braid_node": known})
    assert not failed
    assert b"braid" in answer


def test_valkey_wants_the_secret(server_folder: Path) -> None:
    with start_valkey(data_dir=server_folder, secret=SECRET) as server:
        with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.flushall()
        with redis.Redis(port=server.port, password="wrong") as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        with redis.Redis.from_url(server.url) as owner:
            assert owner.ping()
        assert not any(SECRET in part for part in psutil.Process(server.pid).cmdline())
        assert stat.S_IMODE((server_folder / "valkey.conf").stat().st_mode) == 0o600


@contextmanager
def braid_up(data: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """`braid up` with that data folder: its line of JSON, and the file with what else it prints."""
    printed = data.with_name("up.err")
    command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data", str(data), "--json"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("BRAID_")}
    env["BRAID_JAVA_OPTIONS"] = JAVA_OPTIONS
    with printed.open("wb") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=env) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, printed.read_text()
            yield json.loads(line), printed
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(90)


@dataclass(frozen=True)
class Up:
    """A running `braid up`: its folder, its line of JSON, and the file with what else it prints."""

    data: Path
    line: dict[str, Any]
    printed: Path


@pytest.fixture(scope="module")
def older(node_settings: Settings) -> Iterator[Up]:
    """On the folder of a Braid that had no secret: everybody could read it."""
    with tempfile.TemporaryDirectory(prefix="braid-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        data = private_folder(server_account(), make_folder(Path(name) / "data"))
        with start_cluster(node_settings.machine, data_dir=data / "opensearch", heap_mb=512) as cluster:
            kept = f"{cluster.url}/kept/_doc/1?refresh=true"
            assert httpx2.put(kept, json={"text": "kept"}, trust_env=False, timeout=60).status_code == 201
        (data / "valkey").mkdir()
        for folder in (data / "opensearch", data / "opensearch" / "node-1", data / "valkey"):
            folder.chmod(0o755)
        with braid_up(data) as (line, printed):
            yield Up(data, line, printed)


def test_braid_up_keeps_what_it_starts_to_its_user(older: Up, server_folder: Path) -> None:
    data, line, printed = older.data, older.line, older.printed
    secret = (data / "secret").read_text().strip()
    assert re.fullmatch("[0-9a-f]{64}", secret)
    told = printed.read_text() + json.dumps(line)
    assert "redis://:***@127.0.0.1" in told
    # the command that it prints works, as a shell runs it
    by_hand = re.search(r"OpenSearch by hand: (.*)", told)
    assert by_hand is not None, told
    done = subprocess.run(["sh", "-c", f"{by_hand[1]} -fsS"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "braid-passages" in done.stdout
    assert httpx2.get(f"{line['opensearch_url']}/_cat/indices", trust_env=False).status_code == 401

    family = {process.name() for process in psutil.Process(line["pid"]).children(recursive=True)}
    assert {"java", "valkey-server"} <= family
    assert secret not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout

    # a second terminal finds it
    env = {"PATH": os.environ["PATH"], "BRAID_DATA_DIR": str(data)}
    page = server_folder / "page.md"
    page.write_text("# Owls\n\nAn owl hunts by night.\n")
    for arguments in (["ingest", str(page)], ["search", "owl"], ["doctor"], ["templates", "diff"]):
        command_line = [sys.executable, "-m", "app.cli", *arguments]
        ran = subprocess.run(command_line, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, (arguments, ran.stdout, ran.stderr)
        told += ran.stdout + ran.stderr
    told += "".join(file.read_text(errors="replace") for file in data.rglob("*.log"))
    assert secret not in told
    assert base64.b64encode(f"{USER}:{secret}".encode()).decode() not in told

    for name in ("secret", "braid.json", "service.log", "valkey/valkey.conf", "opensearch/node-1/config/guard"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(data.stat().st_mode) & 0o007 == 0
    if os.geteuid() == 0:
        look = ["find", str(data), "-readable"]
        seen = subprocess.run(look, user=OTHER_USER, extra_groups=[], cwd="/", capture_output=True, check=False)
        assert seen.stdout == b""


def test_an_older_folder_gets_a_secret_and_keeps_its_data(older: Up) -> None:
    secret = (older.data / "secret").read_text().strip()
    url = f"{older.line['opensearch_url']}/kept/_doc/1"
    assert httpx2.get(url, trust_env=False).status_code == 401
    assert httpx2.get(url, auth=(USER, secret), trust_env=False).json()["_source"] == {"text": "kept"}
    for name in ("opensearch", "opensearch/node-1", "valkey"):
        assert stat.S_IMODE((older.data / name).stat().st_mode) & 0o007 == 0, name
