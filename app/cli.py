"""The command line `braid`: a table of commands in `app/commands`, each imported when called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from app import __version__
from app.errors import BraidError, ConfigurationError, StoreUnavailable

COMMANDS = {
    "acl": "Change the readers of a document of a running service; effective when the command ends.",
    "ask": "Ask a running service; the answer comes with its citations.",
    "calibrate": "Calibrate the embedding model on judged sets in BEIR's form, or else on the store's own passages.",
    "distil": "Teach a small reranker for this collection: mines candidates from the cluster, needs no labels.",
    "doctor": "Check this machine, the cluster and the models; name the remedy for each problem.",
    "evaluate": "Measure all ways of searching on a judged set in BEIR's form; a report as HTML, Markdown and JSON.",
    "feedback": "The query log: export judgements, show statistics, remove old entries.",
    "flags": "Feature flags by tenant; a change is live within seconds.",
    "heads": "Heads, which record the live version of each document: docs/write-protocol.md.",
    "ingest": "Read files and folders into the store.",
    "inspect": "Examine any hybrid index on OpenSearch 2.19 or newer, read-only: scores, fusion, recall, shards.",
    "keys": "API keys of callers: docs/access.md.",
    "mcp": "Tools of a running service for a desktop agent: the Model Context Protocol on standard input and output.",
    "models": "The embedding model's files.",
    "reindex": "Copy an index into a new one that takes its place: after an upgrade, or for other vectors or fields.",
    "search": "Search a running service.",
    "serve": "Serve HTTP against the cluster of BRAID_OPENSEARCH_URL.",
    "templates": "Index templates and pipelines: apply, compare, validate, export.",
    "tune": "Find the fusion settings that suit a collection: `braid tune SET`, then `apply`, `rollback`, `history`.",
    "up": "Run everything here: OpenSearch, a Redis protocol server, the service; ingest PATHS.",
}
"""Each command: a module in `app/commands` with a `command`, and its short help."""


class _Table(click.Group):
    """The group of commands in the table, known by their short helps until one is called."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, known, rest = super().resolve_command(ctx, args)
        return name, known and import_module(f"app.commands.{name}").command, rest


def main() -> None:
    """Run the command line; an error of ours is printed as one line with an exit code, never as a traceback."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ImportError as error:
        if error.name != "onnxruntime":
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except BraidError as error:
        from app.terminal import ERR

        ERR.print(f"{error.title}: {error.detail}{_where(error)}", style="red", markup=False)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)


def _where(error: BraidError) -> str:
    """Return the address that did not answer: users of the command line may see it, callers of the service may not."""
    if not isinstance(error, StoreUnavailable):
        return ""
    from app.addresses import mask_passwords
    from app.commands.options import settings_here

    shown = ", ".join(mask_passwords(url) for url in settings_here().opensearch.urls)
    return f" (OpenSearch is expected at {shown})" if shown else ""


@click.group(
    cls=_Table,
    commands={name: click.Command(name, help=text) for name, text in COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="braid")
def cli() -> None:
    """Retrieval-augmented generation over your own documents, on one OpenSearch cluster.

    `braid up FOLDER` runs everything on this machine. Settings are BRAID_* variables: see docs/configuration.md.
    """


if __name__ == "__main__":
    main()
