"""`braid` that gives up silent parts of itself after a quarter of a minute, to keep tests short; all else is real."""

from __future__ import annotations

import app.serving.ingest_process
import app.serving.jobs
from app.cli import main

if __name__ == "__main__":
    app.serving.ingest_process.FROZEN_S = 15.0
    app.serving.jobs.LOST_S = 15.0
    main()
