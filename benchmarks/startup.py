"""Seconds from `braid up` to the first answer, with data there already: `python benchmarks/startup.py`.

A store of Cranfield's 1,400 abstracts is made once; then `braid up` is started on it five times, and timed until it
prints that it is ready, and until the first search and the first answer have come.
"""

from __future__ import annotations

import time
from typing import Any

import harness
import httpx2


def main() -> None:
    runs: list[dict[str, float]] = []
    with harness.open_folder() as folder:
        data = folder / "data"
        with harness.braid_up(str(harness.corpus_file("cranfield")), data=data):
            pass
        for _ in range(5):
            started = time.perf_counter()
            with harness.braid_up(data=data) as up:
                times: dict[str, Any] = {"ready": round(time.perf_counter() - started, 2)}
                for call in ("search", "answer"):
                    body = {"query": "boundary layer in supersonic flow"}
                    httpx2.post(f"{up['url']}/v1/{call}", json=body, timeout=60).raise_for_status()
                    times[call] = round(time.perf_counter() - started, 2)
            runs.append(times)
    figures = {name: harness.percentiles([run[name] for run in runs])["p50"] for name in runs[0]}
    harness.write_result("startup", __doc__ or "", {"seconds, median": figures, "runs": runs})


if __name__ == "__main__":
    main()
