"""The command line `braid-reranker`: each command parses its arguments and calls one function."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

import click

from reranker.errors import ConfigurationError, RerankerError

_TRAIN = (
    "training needs the extra `train`, and {} is missing: `make train` in a clone, or pip install 'braid-rag[train]'"
)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(path_type=Path)


def main() -> None:
    """Run the command line; an error of ours is printed as one line with an exit code, never as a traceback."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RerankerError as error:
        click.secho(error.detail, fg="red", err=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Export, quantise, distil and evaluate cross-encoders for Braid: see docs/reranker.md. Nothing is downloaded."""


@cli.command()
@click.argument("source", type=_FOLDER)
@click.argument("target", type=_FOLDER)
@click.option("--max-tokens", type=click.IntRange(16, 8192), default=256, show_default=True, help="Of a pair.")
@click.option("--name", help="Name of the model; default: the name of SOURCE.")
def export(source: Path, target: Path, max_tokens: int, name: str | None) -> None:
    """Export a Hugging Face folder on disk (sequence classification, one label) to a model folder that Braid serves."""
    require_torch()
    from reranker.train.export import export as run

    difference = run(source, target, max_tokens=max_tokens, name=name)
    click.echo(f"{target}: exported; its logits differ from torch's by at most {difference:.1e}")


@cli.command()
@click.argument("source", type=_FOLDER)
@click.argument("target", type=_FOLDER)
@click.option("--on", "judged", type=_FILE, help="Candidates (JSON Lines) or a BEIR folder: compare both models on it.")
@click.option("--qrels", type=_FILE, help="Judgements of the candidates.")
@click.option("--depth", type=click.IntRange(2), default=20, show_default=True, help="Candidates to rerank.")
@click.option("--queries", "most", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads per inference; 0: one per core.")
def quantize(
    source: Path, target: Path, judged: Path | None, qrels: Path | None, depth: int, most: int, threads: int
) -> None:
    """Quantise the model folder SOURCE to int8 in TARGET; with --on, compare both: same first ten, NDCG@10, speed."""
    from reranker.quantize import quantize_int8

    quantize_int8(source, target)
    click.echo(f"{target}: written")
    if judged is None:
        click.echo("not compared: pass --on with a judged set to compare the rankings of int8 and fp32")
        return
    from reranker.agreement import compare

    rankings, grades = load_judged(judged, qrels, depth=depth)
    click.echo(json.dumps(compare(source, target, rankings[:most], grades, depth=depth, threads=threads), indent=2))


@cli.command()
@click.argument("model", type=_FOLDER)
@click.argument("judged", metavar="SET", type=_FILE)
@click.option("--qrels", type=_FILE, help="Judgements; default: the labels of the candidates, or the folder's.")
@click.option("--depth", type=click.IntRange(2), default=20, show_default=True, help="Candidates to rerank.")
@click.option("--queries", "most", type=click.IntRange(1), help="At most so many.")
@click.option("--calibration", type=click.Choice(["platt", "isotonic"]), default="platt", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the two halves.")
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads per inference; 0: one per core.")
@click.option("--write", is_flag=True, help="Write weight, calibration and bound to the folder's reranker.json.")
@click.option("--json", "as_json", is_flag=True)
def evaluate(
    model: Path,
    judged: Path,
    qrels: Path | None,
    depth: int,
    most: int | None,
    calibration: Literal["platt", "isotonic"],
    seed: int,
    threads: int,
    write: bool,
    as_json: bool,
) -> None:
    """Measure a model folder on SET: candidates as JSON Lines, or a folder in BEIR format (BM25 makes candidates).

    NDCG@10 and MRR@10 before and after; weight, calibration and bound are fitted on one half of the queries and
    reported on the other.
    """
    from reranker.evaluate import evaluate as run

    rankings, grades = load_judged(judged, qrels, depth=depth)
    rankings = rankings[:most]
    with click.progressbar(length=len(rankings), label="scoring", file=sys.stderr) as bar:
        found = run(
            model,
            rankings,
            grades,
            depth=depth,
            method=calibration,
            seed=seed,
            threads=threads,
            write=write,
            progress=bar.update,
        )
    if as_json:
        click.echo(json.dumps(found))
    else:
        _print(found)


@cli.command()
@click.argument("candidates", type=_FILE)
@click.argument("out", type=_FOLDER)
@click.option(
    "--teacher", default="builtin", show_default=True, help="builtin, labels, a folder, or a rerank server's URL."
)
@click.option("--student", type=_FOLDER, required=True, help="An encoder in ONNX (fp32), or any Hugging Face folder.")
@click.option("--layers", default="0,1,2", show_default=True, help="Layers of the student to keep, or 'all'.")
@click.option(
    "--encoder", "encoders", type=_FOLDER, multiple=True, help="Encoder of the builtin teacher; default: the student."
)
@click.option("--qrels", type=_FILE, help="Judgements, if there are any; default: the candidates' labels.")
@click.option("--data", default="", help="Origin and licence of the data, for the model card.")
@click.option("--name", help="Of the model.")
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--minutes", type=click.FloatRange(0.1), help="Time limit of training; the learning rate falls to 0 by then."
)
@click.option("--candidates", "depth", type=click.IntRange(4), default=30, show_default=True, help="Of each query.")
@click.option("--max-tokens", type=click.IntRange(16, 512), default=192, show_default=True, help="Of a pair.")
@click.option("--learning-rate", type=click.FloatRange(1e-7, 1e-2), default=1e-4, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Queries a step.")
@click.option(
    "--passages", type=click.IntRange(2), default=4, show_default=True, help="Passages of each query in a step."
)
@click.option("--calibration", type=click.Choice(["platt", "isotonic"]), default="platt", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=max(1, os.cpu_count() or 1), help="Default: all cores.")
@click.option("--fp32", is_flag=True, help="Serve fp32: do not quantise.")
@click.option("--fresh", is_flag=True, help="Forget teacher scores and checkpoints of an earlier run.")
def distil(candidates: Path, out: Path, **options: Any) -> None:
    """Distil a small cross-encoder from CANDIDATES (JSON Lines; `braid distil` mines them) into the model folder OUT.

    No labels are needed. To resume an interrupted run, repeat the command. If the teacher is a server that needs a key,
    set BRAID_RERANKER_KEY.
    """
    from reranker.rankings import read_qrels, read_rankings

    qrels = options.pop("qrels")
    run_distil(read_rankings(candidates), read_qrels(qrels) if qrels else None, out, **options)


def run_distil(
    rankings: Any,
    qrels: Any,
    out: Path,
    *,
    teacher: str,
    student: Path,
    layers: str,
    encoders: tuple[Path, ...] = (),
    data: str = "",
    name: str | None = None,
    epochs: int = 2,
    minutes: float | None = None,
    depth: int = 30,
    max_tokens: int = 192,
    learning_rate: float = 1e-4,
    batch: int = 8,
    passages: int = 4,
    calibration: Literal["platt", "isotonic"] = "platt",
    seed: int = 0,
    threads: int = 2,
    fp32: bool = False,
    fresh: bool = False,
) -> None:
    """Distil with progress on the terminal and print the card's findings; `braid distil` calls this, too.

    Raises:
        RerankerError: as `reranker.train.distil.distil`.
    """
    require_torch()
    from reranker.train.distil import Options, ProgressCallbacks
    from reranker.train.distil import distil as run
    from reranker.train.loop import Plan, has_native_bf16
    from reranker.train.teachers import teacher_of

    plan = Plan(
        epochs=epochs,
        queries_a_batch=batch,
        passages=passages,
        learning_rate=learning_rate,
        max_tokens=max_tokens,
        seed=seed,
        bf16=has_native_bf16(),
        threads=threads,
        minutes=minutes,
    )
    options = Options(
        out=out,
        student=student,
        layers=_layers(layers),
        plan=plan,
        candidates=depth,
        calibration=calibration,
        name=name,
        int8=not fp32,
        fresh=fresh,
        data=data,
    )
    opened = teacher_of(
        teacher,
        encoders=encoders or (student,),
        key=os.environ.get("BRAID_RERANKER_KEY"),
        threads=threads,
        max_tokens=max_tokens,
    )
    from reranker.train.progress import ProgressDisplay

    with ProgressDisplay() as shown:
        card = run(rankings, qrels, opened, options, say=shown.say, bars=ProgressCallbacks(shown.teacher, shown.steps))
    for line in card.summary():
        click.echo(line)
    click.echo(f"{out}: the model, its card is {out / 'MODEL_CARD.md'}")


def load_judged(path: Path, qrels: Path | None, *, depth: int) -> tuple[Any, Any]:
    """Load candidates and judgements from JSON Lines or from a folder in BEIR format.

    Raises:
        DataError, ConfigurationError: the path is neither, or nothing is judged.
    """
    from reranker import beir
    from reranker.rankings import DataError, qrels_of, read_qrels, read_rankings

    if path.is_dir():
        return beir.load(path, depth=depth, qrels=qrels)
    rankings = read_rankings(path)
    judged = read_qrels(qrels) if qrels else qrels_of(rankings)
    if not judged:
        raise DataError(f"{path}: no candidate has a label; pass judgements with --qrels")
    return rankings, judged


def require_torch() -> None:
    """Raise ConfigurationError with the remedy if the extra `train` is not installed."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads take cores from those that compute
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(_TRAIN.format(error.name)) from error


def _layers(text: str) -> tuple[int, ...]:
    if text == "all":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"--layers {text}: expected layer numbers from 0, such as 0,1,2, or all") from error


def _print(found: dict[str, Any]) -> None:
    now, fitted = found["as the folder is"], found["fitted"]
    click.echo(
        f"{found['model']} ({found['precision']}), {found['queries']} queries, "
        f"{found['reranked candidates']} candidates each, {found['ms per pair']} ms per pair"
    )
    click.echo("                         NDCG@10  MRR@10")
    for label, point in (
        ("first stage", now["before"]),
        (f"as it is, weight {now['weight']}", now["after"]),
        ("reranker alone", now["alone"]),
        (f"other half, before ({fitted['queries reported']})", fitted["before"]),
        (f"other half, weight {fitted['weight']}", fitted["after"]),
    ):
        click.echo(f"{label:<24} {point['ndcg']:.4f}   {point['mrr']:.4f}")
    click.echo("weight  " + "  ".join(f"{point['weight']:.2f}" for point in fitted["curve"][::2]))
    click.echo("NDCG@10 " + "  ".join(f"{point['ndcg']:.3f}"[1:] for point in fitted["curve"][::2]))
    calibration = fitted["calibration"]
    click.echo(
        f"{calibration['method']}: expected calibration error {calibration['expected error']}, "
        f"Brier {calibration['Brier']} (share relevant {calibration['share relevant']})"
    )
    click.echo("written to reranker.json" if found["written"] else "not written (--write)")


if __name__ == "__main__":
    main()
