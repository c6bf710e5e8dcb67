"""Debian's nginx in front of a running service, with the configuration that is shipped."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.dev.ports import ReservedPorts
from tests.service import Service, answers, wait_for

SHIPPED = Path(__file__).parents[1] / "docker" / "nginx" / "nginx.conf"


def nginx_program() -> str | None:
    """Path of nginx; None where there is none."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextlib.contextmanager
def behind_nginx(port: int, **replaced: str) -> Iterator[Service]:
    """Run nginx before the service at `port`; what is given stands for its process.

    Args:
        port: of the service, on loopback.
        replaced: values of directives, such as `client_body_timeout="2s"`.
    """
    program = nginx_program()
    assert program is not None, "there is no nginx: run tests/install-nginx.sh"
    with tempfile.TemporaryDirectory(prefix="braid-nginx-") as folder, ReservedPorts(1) as reserved:
        own = reserved.numbers[0]
        text = SHIPPED.read_text(encoding="utf-8").replace("/tmp/", f"{folder}/")
        text = text.replace("server app:8080;", f"server 127.0.0.1:{port};")
        text = text.replace("listen 8080;", f"listen 127.0.0.1:{own};").replace("worker_processes auto;", "")
        lines = text.splitlines()
        for name, value in replaced.items():
            changed = [f"{name} {value};" if line.split(" ")[:1] == [name] else line for line in map(str.strip, lines)]
            assert changed != [line.strip() for line in lines], f"nginx.conf has no {name}"
            lines = changed
        conf = Path(folder) / "nginx.conf"
        conf.write_text("\n".join(lines), encoding="utf-8")
        log = Path(folder) / "nginx.log"
        # its workers would be another account's, which may not enter the folder
        user = "user root; " if os.geteuid() == 0 else ""
        command = [program, "-p", folder, "-c", str(conf), "-e", "stderr", "-g", f"{user}daemon off;"]
        with log.open("wb") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=sink)
        service = Service(process, own, log)
        try:
            wait_for(lambda: answers(service), "nginx did not start")
            yield service
        finally:
            process.terminate()
            process.wait(30)
