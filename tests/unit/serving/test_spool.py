from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app.gateway.shares import Shares
from app.serving.spool import Spool

OWNER = """
import sys, time
from app.serving.spool import Spool
spool = Spool()
spool.new_file(".pdf").path.write_bytes(b"secret")
print(spool.folder, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_when_its_owner_was_killed_and_not_before(temporary: Path) -> None:
    env = {**os.environ, "TMPDIR": str(temporary)}
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, env=env, text=True)
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    try:
        first = Spool()
        assert len(list(folder.glob("upload-*.pdf"))) == 1
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        owner.stdout.close()
    second = Spool()
    assert not folder.exists()
    assert first.folder.exists()
    for spool in (first, second):
        spool.close()
    assert list(temporary.iterdir()) == []


def test_what_is_somebody_elses_is_left_alone(temporary: Path) -> None:
    real = temporary / "elsewhere"
    real.mkdir()
    (real / "lock").touch()
    (temporary / "braid-spool-link").symlink_to(real)
    (temporary / "braid-spool-new").mkdir()  # no lock: its owner makes it just now
    Spool().close()
    assert real.exists()
    assert (temporary / "braid-spool-new").exists()


def test_files_are_private_and_give_back_what_they_hold() -> None:
    spool = Spool()
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700
    shares = Shares(10, work="test", what="bytes")
    file = spool.new_file()
    file.holds.append(shares.take("a", 7))
    file.path.write_bytes(b"x")
    file.release()
    file.release()
    assert (file.path.exists(), shares.used) == (False, 0)
    spool.close()
