"""`braid flags`: list flags by tenant, switch them, validate a file."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from app.commands.options import settings_here
from app.config import Settings
from app.errors import ConfigurationError, InvalidInput
from app.gateway.flag_editor import check_tenants, switch_flag
from app.gateway.flag_file import FLAGS, parse, read
from app.gateway.flags import Flags
from app.store.filters import Scope
from app.terminal import OUT, print_json, print_table


def switch(
    settings: Settings, flag: str, value: bool, *, tenants: Sequence[str] = (), percent: int = 100, console: Console
) -> None:
    """Run `braid flags set` for everybody (which removes all rules) or `tenants`; for `percent` of the callers.

    Raises:
        ConfigurationError: the flags are not in a file on this machine.
        InvalidInput: the flag or tenant does not exist, or the file is invalid.
    """
    if settings.flags.file is None:
        raise ConfigurationError(
            "the flags in use ship with Braid and can't be changed: set BRAID_FLAGS_FILE to a file of "
            "your own, for this command (which creates it) and for the service"
        )
    path = settings.flags.file.resolve()
    made = not os.path.lexists(path)
    old, new = switch_flag(path, flag, tenants, percent if value else 100 - percent)
    if made:
        console.print(f"created {path} from the flags that ship with Braid", markup=False)
    console.print(f"{flag}: {new.in_words()} (before: {old.in_words()})", markup=False)


@click.group("flags")
def command() -> None:
    """Feature flags by tenant; a change is live within seconds."""


@command.command("list")
@click.option("--tenant", help="Tenant (default: BRAID_TENANT).")
@click.option("--json", "as_json", is_flag=True)
def list_flags(tenant: str | None, as_json: bool) -> None:
    """List each flag, its value for a tenant, the rule behind it, and the source of the flags."""
    settings = settings_here()
    asked = tenant if tenant is not None else settings.access.tenant
    check_tenants([asked])
    with contextlib.closing(Flags(settings.flags)) as flags:
        features, warnings, source = flags.features(Scope(asked)), flags.warnings(), flags.source
        rules = {name: flag.in_words() for name, flag in flags.current.flags.items()}
    if as_json:
        rows = [
            {"flag": name, "variant": found, "on": found == "on", "rule": rules[name], "from": source}
            for name, found in features.variants.items()
        ]
        print_json({"tenant": asked, "flags": rows, "warnings": warnings})
        return
    table = Table("flag", f"for {asked}", "rule", title=f"from {source}", title_justify="left")
    for name, found in features.variants.items():
        table.add_row(name, found, rules[name])
    print_table(OUT, table)
    for text in warnings:
        OUT.print(text, style="yellow", markup=False)


@command.command("set")
@click.argument("flag")
@click.argument("value", type=click.Choice(["on", "off"]))
@click.option("--tenant", "tenants", multiple=True, help="Only for this tenant; may be given again.")
@click.option("--percent", type=click.IntRange(0, 100), default=100, help="Only for this share of the callers.")
def set_flag(flag: str, value: str, tenants: tuple[str, ...], percent: int) -> None:
    """Switch a flag in the file of BRAID_FLAGS_FILE, or of the running `braid up`.

    Without --tenant it is switched for everybody, and all rules of the flag are removed.
    """
    switch(settings_here(), flag, value == "on", tenants=tenants, percent=percent, console=OUT)


@command.command("validate")
@click.argument("file", type=click.Path(path_type=Path))
def validate(file: Path) -> None:
    """Check a file of flags; exit code 1 and a list of problems if a service would reject it."""
    try:
        parse(read(file))
    except InvalidInput as error:
        if not error.problems:
            OUT.print(f"{file}: {error.detail}", style="red", markup=False)
        for item in error.problems:
            OUT.print(f"{'.'.join(map(str, item.loc))} {item.msg}", style="red", markup=False)
        sys.exit(1)
    OUT.print(f"{file}: {len(FLAGS)} flags, all usable", markup=False)
