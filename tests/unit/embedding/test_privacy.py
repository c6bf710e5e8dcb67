from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_runtime_leaves_no_device_id_and_no_event_store(tmp_path: Path, model_folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from app.embedding.providers import open_session;"
        "open_session(Path(sys.argv[1]), wanted='cpu', threads=1)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"XDG_CACHE_HOME", "CI"}}
    subprocess.run(
        [sys.executable, "-c", script, str(model_folder / "model.onnx")],
        env={**environment, "HOME": str(tmp_path)},
        check=True,
    )
    assert list(tmp_path.rglob("*")) == []
