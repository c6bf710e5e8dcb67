"""`braid templates`: manage index templates and pipelines."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from app.commands.options import settings_here
from app.serving.opening import open_encoder, open_store
from app.store import templates
from app.store.capabilities import DEFAULT_VARIANT
from app.store.rendering import render
from app.terminal import OUT, print_json, print_table


@click.group("templates")
def command() -> None:
    """Index templates and pipelines: apply, compare, validate, export."""


@command.command("apply")
@click.option("--json", "as_json", is_flag=True)
def apply(as_json: bool) -> None:
    """Create or update what differs; create the first index if there is none."""
    changes = open_store(settings_here()).put()
    if as_json:
        print_json([asdict(change) for change in changes])
        return
    table = Table("", "kind", "name")
    for change in changes:
        table.add_row(change.action, change.kind, change.name)
    print_table(OUT, table)


@command.command("diff")
@click.option("--json", "as_json", is_flag=True)
def diff(as_json: bool) -> None:
    """Show the differences of the cluster field by field; exit code 1 if there are any."""
    store = open_store(settings_here())
    drifts, live = templates.compare(store.cluster, store.rendered)
    if as_json:
        print_json([asdict(drift) for drift in drifts])
    elif drifts:
        table = Table("kind", "name", "field", "expected", "found")
        for drift in drifts:
            table.add_row(drift.kind, drift.name, drift.field, str(drift.expected), str(drift.found))
        print_table(OUT, table)
        OUT.print(f"{len(drifts)} differences; `braid templates apply` fixes all but indexes")
    else:
        OUT.print("the cluster matches this service")
    for reason in (templates.read_only(live, store.rendered), templates.other_languages(live, store.rendered)):
        if reason and not as_json:
            OUT.print(f"read-only: {reason}", style="yellow", markup=False)
    sys.exit(1 if drifts else 0)


@command.command("validate")
@click.option("--offline", is_flag=True, help="Check only the files, without the cluster.")
def validate(offline: bool) -> None:
    """Check the files, and let the cluster simulate them."""
    settings = settings_here()
    problems = templates.validate(settings, dimension=384)
    if not offline:
        store = open_store(settings)
        problems += templates.simulate(store.cluster, store.rendered)
    for problem in problems:
        OUT.print(problem, style="red", markup=False)
    if not problems:
        OUT.print("the files are valid" + ("" if offline else ", and the cluster accepts them"))
    sys.exit(1 if problems else 0)


@command.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def export(folder: Path) -> None:
    """Write the files as this service would apply them, each ready for curl."""
    settings = settings_here()
    if settings.opensearch.url is not None:
        rendered = open_store(settings).rendered
    else:  # for the default variant
        rendered = render(settings, settings.index.vector_variant or DEFAULT_VARIANT, open_encoder(settings).dimension)
    for path in templates.export(rendered, folder):
        OUT.print(str(path), markup=False)
