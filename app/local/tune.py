"""`braid tune`: search, apply, roll back."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from app.cache.connection import RedisConnection
from app.cache.generation import IndexGeneration
from app.config import Settings
from app.errors import InvalidInput
from app.evaluation.objective import MeasureName
from app.evaluation.report import write_files
from app.evaluation.tune import Tuned, tune
from app.local.assets import Store, open_store
from app.local.evaluate import WIDE, SetOptions, open_set
from app.local.output import print_json
from app.store import templates, tunings
from app.store.client import READ_ALIAS
from app.store.queries import LINEAR_PIPELINE
from app.store.rendering import Rendered
from app.store.similarity import has_similarity, set_similarity
from app.tuning import SHIPPED, Bm25, Tuning

FILE = "tuning.json"


def run(
    settings: Settings,
    options: SetOptions,
    *,
    measure_name: MeasureName,
    apply_it: bool,
    seed: int,
    as_json: bool,
    console: Console,
) -> int:
    """`braid tune SET`: search, check, leave the files; put in force if asked to and better. The exit code.

    Raises:
        InvalidInput, StoreError: as `braid evaluate`.
    """
    with open_set(settings, options, console) as opened:
        console.print(f"tuning {measure_name} on {opened.judged.name}; * is kept", style="dim")
        found = tune(
            opened.judged,
            opened.where,
            opened.tuning,
            scratch=opened.scratch,
            measure_name=measure_name,
            load=options.load,
            seed=seed,
            say=lambda line: console.print(line, markup=False),
        )
        store = opened.store
        opened.unfinished = bool(found.failed)
    body = _as_dict(found, opened.judged.findings, opened.notes)
    numbered = found.tuning.model_copy(update={"version": tunings.next_version(store.cluster)})
    pipeline = store.rendered_for(numbered).body("search pipeline", LINEAR_PIPELINE)
    files = {
        FILE: orjson.dumps(body, option=orjson.OPT_INDENT_2),
        "tuning.md": _markdown(found).encode(),
        # for those who PUT pipelines themselves
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
        console.print("nothing was applied: only what is measurably better is", style="yellow")
    else:
        console.print(f"put it in force with `braid tune apply {options.reports / FILE}`", markup=False)
    if as_json:
        print_json(body)
    return 1 if found.failed else 0


def apply(settings: Settings, path: Path, *, force: bool, console: Console) -> int:
    """`braid tune apply FILE`.

    Raises:
        InvalidInput: no tuning, one that was not measurably better (without `force`), or one for another model.
    """
    tuning, better = read(path)
    if not better and not force:
        raise InvalidInput(
            f"{path} was not measurably better on held-out queries than what was in force; --force applies it anyway"
        )
    store = open_store(settings)
    made_for = tuning.about.get("embedding_model", store.encoder.name)
    if made_for != store.encoder.name and not force:
        raise InvalidInput(
            f"{path} was tuned with the embedding model {made_for}, and this store has {store.encoder.name}; "
            "tune again, or --force"
        )
    put_in_force(store, tuning, console)
    return 0


def rollback(settings: Settings, to: int | None, *, console: Console) -> int:
    """`braid tune rollback`: to the version before the one in force, or to `to`; 0 is what Braid ships.

    Raises:
        InvalidInput: there is nothing to go back to, or no such version.
    """
    store = open_store(settings)
    if to is None:
        now = tunings.active(store.cluster)
        if now.version == 0:
            raise InvalidInput("the shipped tuning (version 0) is in force: there is nothing to roll back")
        before = [item.version for item in tunings.history(store.cluster) if item.version < now.version]
        to = max(before, default=0)
    _switch(store, to, console)
    return 0


def history(settings: Settings, *, as_json: bool, console: Console) -> int:
    """`braid tune history`: what was ever applied, and what is in force."""
    store = open_store(settings)
    now = tunings.active(store.cluster)
    kept = [SHIPPED, *tunings.history(store.cluster)]
    if as_json:
        rows = [{**item.model_dump(mode="json"), "in_force": item.version == now.version} for item in kept]
        print_json(rows)
        return 0
    if not console.is_terminal:
        console.width = WIDE
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
    console.print(table, soft_wrap=False)
    return 0


def read(path: Path) -> tuple[Tuning, bool]:
    """The tuning of a file that `braid tune` wrote, and whether it was better.

    Raises:
        InvalidInput: it can't be read, or holds no tuning.
    """
    try:
        body = orjson.loads(path.read_bytes())
        return Tuning.model_validate(body["tuning"], strict=False), bool(body["better"])
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}; `braid tune SET` writes such a file") from error
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} holds no tuning ({error}); `braid tune SET` writes such a file") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{path}: tuning.{where}: {first['msg']} (got {first['input']!r})") from error


def put_in_force(store: Store, tuning: Tuning, console: Console) -> Tuning:
    """Number a tuning, keep it, and make every service of the cluster search by it."""
    numbered = tuning.model_copy(update={"version": tunings.next_version(store.cluster)})
    tunings.keep(store.cluster, numbered)
    return _switch(store, numbered.version, console)


def _switch(store: Store, version: int, console: Console) -> Tuning:
    """Similarity of the live indexes first, which takes them away for a second; then tuning and pipelines together."""
    began = time.perf_counter()
    wanted = tunings.kept(store.cluster, version)
    rendered = store.rendered_for(wanted)
    for index in _other_similarity(store, wanted.bm25):
        console.print(f"closing {index} for a moment, to give it k1 {wanted.bm25.k1:g} and b {wanted.bm25.b:g}")
        set_similarity(store.cluster, index, wanted.bm25)
    tunings.activate(store.cluster, version)
    _apply(store, rendered, console)
    connection = RedisConnection(store.settings)
    IndexGeneration(connection).advance_all()  # answers that were made by the tuning before are old
    connection.close()
    console.print(f"tuning {version} is in force ({time.perf_counter() - began:.1f} s)", style="bold")
    return wanted


def _apply(store: Store, rendered: Rendered, console: Console) -> None:
    for change in templates.apply(store.cluster, store.capabilities, rendered):
        if change.action != "unchanged":
            console.print(f"{change.action} {change.kind} {change.name}", markup=False)


def _other_similarity(store: Store, bm25: Bm25) -> list[str]:
    """The indexes behind our aliases that have other parameters, or that a run which was killed left closed."""
    params = {"flat_settings": "true", "expand_wildcards": "open,closed"}
    live = templates.Live(store.cluster.request("GET", f"/{READ_ALIAS}*", params=params))
    names = dict.fromkeys([*live.indexes, *live.write_indexes])
    return [name for name in names if not has_similarity(live.all_indexes[name]["settings"], bm25)]


def _as_dict(found: Tuned, findings: Any, notes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "tuning": found.tuning.model_dump(mode="json"),
        "better": found.better,
        "verdict": found.verdict,
        "held_out": {name: measured.means for name, measured in found.held_out.items()},
        "comparison": asdict(found.comparison),
        "steps": [asdict(step) for step in found.steps],
        "search_seconds": found.seconds,
        "failed": found.failed,
        "findings": [asdict(finding) for finding in findings],
        "notes": [*notes, *found.notes],
    }


def _markdown(found: Tuned) -> str:
    held = found.tuning.about["held out"]
    lines = [
        f"# Tuning on {found.tuning.about['set']}, {found.tuning.about['date']}",
        "",
        f"**{found.verdict}**",
        "",
        "| held out | before | tuned | difference | 95 % interval | p |",
        "|---|---|---|---|---|---|",
        f"| {found.comparison.measure} | {held['before']:.4f} | {held['tuned']:.4f} | {held['difference']:+.4f} "
        f"| {held['interval'][0]:+.4f} to {held['interval'][1]:+.4f} | {held['p']:.4f} |",
        "",
        "| tried | dense share | on the tuning part | kept |",
        "|---|---|---|---|",
    ]
    for step in found.steps:
        share = "" if step.alpha is None else f"{step.alpha:g}"
        lines.append(f"| {step.tried} | {share} | {step.value:.4f} | {'yes' if step.kept else ''} |")
    lines += ["", *(f"- {note}" for note in found.notes), ""]
    return "\n".join(lines)
