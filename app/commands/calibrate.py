"""`braid calibrate`: the calibration of an embedding model."""

from __future__ import annotations

from pathlib import Path

import click

from app.calibration import OWN_FOLDER, read_calibration, split_name
from app.commands.options import settings_here
from app.errors import InvalidInput
from app.evaluation.calibrate import make_calibration, write_calibration
from app.evaluation.calibration_material import MaterialOptions, from_sets, from_store, load_tokenizer
from app.evaluation.collect import Load
from app.terminal import OUT


@click.command("calibrate")
@click.argument("folders", metavar="[SET]...", nargs=-1, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files; default: `calibration` in BRAID_EMBEDDING_PATH.",
)
@click.option("--base", is_flag=True, help="Take weight model and projection over from the other precision in --out.")
@click.option("--licence", "licences", multiple=True, help="Licence of a set, for the card; in the order of the sets.")
@click.option("--queries", type=click.IntRange(2), default=300, show_default=True, help="Judged queries of each set.")
@click.option("--workers", type=click.IntRange(1, 32), default=2, show_default=True, help="Queries at once.")
def command(
    folders: tuple[Path, ...], out: Path | None, base: bool, licences: tuple[str, ...], queries: int, workers: int
) -> None:
    """Calibrate the embedding model on judged sets in BEIR's form, or else on the store's own passages.

    The thresholds of answers and near-identical queries, the weight model and the token projection depend on the model.
    Two or more sets of different subjects are best: each one's questions are foreign to the others.
    """
    # the calibration that is to be replaced must not be in the way
    settings = settings_here(embedding_calibration=None)
    if out is None:
        if settings.embedding.path is None:
            raise InvalidInput("name a folder for the calibration with --out (BRAID_EMBEDDING_PATH is not set)")
        out = settings.embedding.path / OWN_FOLDER
    model, precision = split_name(settings.embedding.id)
    other = read_calibration(out, model, "int8" if precision != "int8" else "fp32") if base else None
    if base and other is None:
        raise InvalidInput(f"--base: there is no calibration of another precision of {model} in {out}")
    if len(licences) > len(folders):
        raise InvalidInput(f"{len(licences)} licences were given for {len(folders)} sets: at most one for each")
    if folders:
        options = MaterialOptions(folders, licences, queries, Load(workers))
        collections, encoder = from_sets(settings, options, OUT)
    else:
        collections, encoder = from_store(settings, OUT)
    OUT.print("measuring", style="dim")
    made = make_calibration(collections, encoder, encoder.name, load_tokenizer(settings, encoder), other)
    for path in write_calibration(made, out):
        OUT.print(str(path), markup=False)
    OUT.print(f"serve with it: BRAID_EMBEDDING_CALIBRATION={out}", markup=False)
