"""`braid tune`: search, apply, roll back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click
import orjson
from rich.table import Table

from app.commands.evaluate import set_of, set_options
from app.commands.options import settings_here
from app.errors import InvalidInput
from app.evaluation.in_force import put_in_force, read_tuning, switch
from app.evaluation.opened_set import open_set
from app.evaluation.report import write_files
from app.evaluation.tune import tune
from app.evaluation.tuning_report import as_dict, as_markdown
from app.serving.opening import open_store
from app.store import tunings
from app.store.queries import LINEAR_PIPELINE
from app.terminal import ERR, OUT, print_json, print_table
from app.tuning import SHIPPED

FILE = "tuning.json"


class _DefaultCommandGroup(click.Group):
    """A group whose first word may be an argument of its command ``run``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


@click.group("tune", cls=_DefaultCommandGroup)
def command() -> None:
    """Find the fusion settings that suit a collection: `braid tune SET`, then `apply`, `rollback`, `history`."""


@command.command("run")
@click.argument("folder", metavar="SET", type=click.Path(file_okay=False, path_type=Path))
@click.option("--measure", type=click.Choice(["NDCG@10", "MRR@10"]), default="NDCG@10", show_default=True)
@click.option("--apply", "apply_it", is_flag=True, help="Apply the tuning if it is measurably better.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the split into tuning and held-out queries."
)
@set_options
def run(
    folder: Path, measure: Literal["NDCG@10", "MRR@10"], apply_it: bool, seed: int, as_json: bool, **given: Any
) -> None:
    """Search on one part of the judged queries of SET, check on the rest (`braid tune SET` for short)."""
    options, console = set_of(folder, **given), ERR if as_json else OUT
    with open_set(settings_here(), options, console) as opened:
        console.print(f"tuning {measure} on {opened.judged.name}; * is kept", style="dim")
        found = tune(
            opened.judged,
            opened.where,
            opened.tuning,
            scratch=opened.scratch,
            measure_name=measure,
            load=options.load,
            seed=seed,
            say=lambda line: console.print(line, markup=False),
        )
        store = opened.store
        opened.unfinished = bool(found.failed)
    body = as_dict(found, opened.judged.findings, opened.notes)
    numbered = found.tuning.model_copy(update={"version": tunings.next_version(store.cluster)})
    pipeline = store.rendered_for(numbered).body("search pipeline", LINEAR_PIPELINE)
    files = {
        FILE: orjson.dumps(body, option=orjson.OPT_INDENT_2),
        "tuning.md": as_markdown(found).encode(),
        # for users who PUT pipelines themselves
        f"{LINEAR_PIPELINE}.json": orjson.dumps(pipeline, option=orjson.OPT_INDENT_2),
    }
    write_files(options.reports, files)
    console.print(f"{found.verdict}; searched {found.seconds:.0f} s", style="bold", markup=False)
    for note in (*opened.notes, *found.notes):
        console.print(note, markup=False)
    console.print(str(options.reports / FILE), markup=False)
    if apply_it and found.better:
        put_in_force(store, found.tuning, console)
    elif apply_it:
        console.print("nothing was applied: the tuning is not measurably better", style="yellow")
    else:
        console.print(f"apply it with `braid tune apply {options.reports / FILE}`", markup=False)
    if as_json:
        print_json(body)
    sys.exit(1 if found.failed else 0)


@command.command("apply")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Apply even if it was not measurably better, or is for another model.")
def apply(file: Path, force: bool) -> None:
    """Apply a tuning to all services of the cluster, without a restart."""
    tuning, better = read_tuning(file)
    if not better and not force:
        raise InvalidInput(
            f"{file} was not measurably better on held-out queries than the active tuning; --force applies it anyway"
        )
    store = open_store(settings_here())
    made_for = tuning.about.get("embedding_model", store.encoder.name)
    if made_for != store.encoder.name and not force:
        raise InvalidInput(
            f"{file} was tuned with the embedding model {made_for}, and this store has {store.encoder.name}; "
            "tune again, or pass --force"
        )
    put_in_force(store, tuning, OUT)


@command.command("rollback")
@click.option("--to", type=click.IntRange(0), help="Version from `history`; 0 is the shipped tuning.")
def rollback(to: int | None) -> None:
    """Return to the previous tuning."""
    store = open_store(settings_here())
    if to is None:
        now = tunings.active(store.cluster)
        if now.version == 0:
            raise InvalidInput("the shipped tuning (version 0) is active: there is nothing to roll back")
        before = [item.version for item in tunings.history(store.cluster) if item.version < now.version]
        to = max(before, default=0)
    switch(store, to, OUT)


@command.command("history")
@click.option("--json", "as_json", is_flag=True)
def history(as_json: bool) -> None:
    """List all applied tunings, their evidence, and the active one."""
    store = open_store(settings_here())
    now = tunings.active(store.cluster)
    kept = [SHIPPED, *tunings.history(store.cluster)]
    if as_json:
        print_json([{**item.model_dump(mode="json"), "in_force": item.version == now.version} for item in kept])
        return
    table = Table("", "version", "dense share", "learned", "candidates", "k1, b", "set", "date", "held-out gain")
    for item in kept:
        held = item.about.get("held out", {})
        table.add_row(
            "in force" if item.version == now.version else "",
            str(item.version) if item.version else "0 (as shipped)",
            f"{item.alpha:g}",
            "yes" if item.learned else "no",
            str(item.candidates),
            f"{item.bm25.k1:g}, {item.bm25.b:g}",
            str(item.about.get("set", "")),
            str(item.about.get("date", "")),
            f"{100 * held['difference']:+.2f}" if "difference" in held else "",
        )
    print_table(OUT, table)
