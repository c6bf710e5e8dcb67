"""`braid mcp`: a running service's tools for an agent on this machine."""

from __future__ import annotations

from importlib.util import find_spec

import click

from app.commands.options import settings_here
from app.errors import ConfigurationError


@click.command("mcp")
@click.option("--url", help="URL of the service (BRAID_URL).")
@click.option("--key", help="API key (BRAID_API_KEY).")
def command(url: str | None, key: str | None) -> None:
    """Tools of a running service for a desktop agent: the Model Context Protocol on standard input and output.

    The agent starts this command itself: docs/agents.md. It sees what the key sees.
    """
    if find_spec("mcp") is None:
        raise ConfigurationError("`braid mcp` needs the package `mcp`: pip install 'braid-rag[mcp]'")
    from app.mcp.stdio_door import serve

    settings = settings_here(url=url, api_key=key)
    secret = settings.access.api_key
    serve(settings.client.url, secret.get_secret_value() if secret is not None else None)
