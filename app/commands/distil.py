"""`braid distil`: mine candidates with the store's own legs, then train a small cross-encoder on them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console

from app.commands.options import settings_here
from app.config import Settings
from app.config.embedding_models import BUILT_IN
from app.embedding.model_folder import model_folder
from app.errors import ConfigurationError, InvalidInput
from app.evaluation.collect import Load
from app.evaluation.training_candidates import MINED, MineOptions, mine_candidates
from app.provision.models import ensure_model
from app.terminal import OUT


def run(settings: Settings, options: MineOptions, training: dict[str, Any] | None, *, console: Console) -> None:
    """Run `braid distil`.

    Args:
        training: arguments of `reranker.cli.run_distil`; None: only mine.

    Raises:
        ConfigurationError: the extra `train` is not installed, or a setting of the training is wrong.
        InvalidInput, NotFound: there are no queries.
        StoreError: the cluster is unavailable; repeat the command to resume.
    """
    with _convert_errors():
        if training is not None:
            from reranker.cli import require_torch

            require_torch()  # fail before the cluster is loaded
            if training["fresh"]:
                shutil.rmtree(options.out / MINED, ignore_errors=True)
        candidates = mine_candidates(settings, options, console)
        if training is None:
            console.print(
                f"{candidates}: train with it: braid-reranker distil {candidates} {options.out}", markup=False
            )
            return
        from reranker.cli import run_distil
        from reranker.rankings import read_rankings

        student = training.pop("student") or student_folder(settings)
        run_distil(
            read_rankings(candidates),
            None,
            options.out,
            student=student,
            depth=options.candidates,
            seed=options.seed,
            **training,
        )
    console.print(f"to use it: BRAID_RERANKER_MODEL={options.out}", markup=False)


def student_folder(settings: Settings) -> Path:
    """Return the fp32 form of the embedding model, from which students are made.

    Raises:
        ConfigurationError, ProvisioningError: it is not available on this machine.
    """
    built_in = BUILT_IN.get(settings.embedding.model)
    if settings.embedding.path is None and built_in is not None and "fp32" in built_in.precisions:
        return ensure_model(settings.embedding.model, "fp32", settings.machine)
    return model_folder(settings)


@contextmanager
def _convert_errors() -> Iterator[None]:
    """Convert the reranker's errors to those of Braid's command line."""
    from reranker.errors import ConfigurationError as Wrong
    from reranker.errors import RerankerError

    try:
        yield
    except RerankerError as error:
        kind = ConfigurationError if isinstance(error, Wrong) else InvalidInput
        raise kind(error.detail) from error


@click.command("distil")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the model, to be created."
)
@click.option(
    "--queries", type=click.Path(dir_okay=False, path_type=Path), help="File of queries: one per line, or JSON Lines."
)
@click.option(
    "--source",
    type=click.Choice(["auto", "log", "passages"]),
    default="auto",
    show_default=True,
    help="Source of queries without a file: the query log, or titles, headings and sentences of passages.",
)
@click.option("--most", type=click.IntRange(20, 100_000), default=2000, show_default=True, help="Queries.")
@click.option("--candidates", type=click.IntRange(5, 200), default=30, show_default=True, help="Of each query.")
@click.option("--workers", type=click.IntRange(1, 32), default=2, show_default=True, help="Queries at once.")
@click.option("--rate", type=click.FloatRange(0.1), help="Maximum queries per second.")
@click.option("--teacher", default="builtin", show_default=True, help="builtin, a model folder, or a server's URL.")
@click.option(
    "--student",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of an encoder; default: the embedding model, fp32.",
)
@click.option("--layers", default="0,1,2", show_default=True, help="Layers of the student to keep, or 'all'.")
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.1), help="Time limit of the training.")
@click.option("--max-tokens", type=click.IntRange(16, 512), default=192, show_default=True, help="Of a pair.")
@click.option("--threads", type=click.IntRange(1), help="Threads of the training; default: all cores.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--data", default="", help="Origin and licence of the documents, for the model card.")
@click.option("--fresh", is_flag=True, help="Ignore the state of an earlier run in the folder.")
@click.option("--mine-only", is_flag=True, help="Only mine candidates; training can run on another machine.")
def command(
    out: Path,
    queries: Path | None,
    source: Literal["auto", "log", "passages"],
    most: int,
    candidates: int,
    workers: int,
    rate: float | None,
    seed: int,
    mine_only: bool,
    threads: int | None,
    **training: Any,
) -> None:
    """Teach a small reranker for this collection: mines candidates from the cluster, needs no labels.

    Feedback is used if there is any. To resume an interrupted run, repeat the command. Needs `make train`.
    """
    options = MineOptions(out, queries, source, most, candidates, seed, Load(workers, rate))
    training["threads"] = threads or os.cpu_count() or 1
    run(settings_here(), options, None if mine_only else training, console=OUT)
