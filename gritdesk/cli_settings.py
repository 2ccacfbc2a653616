"""`gritdesk settings`: every setting with its meaning, changing one once its price was said, and what is kept where."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gritdesk.terminal import json_option, print_json, say, shown

if TYPE_CHECKING:
    from gritdesk.records import Price
    from gritdesk.settings import Setting
    from gritdesk.stored import Stored


@click.command()
@click.argument("key", required=False)
@click.argument("value", required=False)
@click.option("--reset", is_flag=True, help="Set KEY back to its default.")
@click.option("--yes", is_flag=True, help="Do not ask, whatever it costs.")
@json_option
def settings(key: str | None, value: str | None, reset: bool, yes: bool, as_json: bool) -> None:
    """Show all settings, or the one called KEY; with VALUE set it, once its price was said.

    config.toml stays as you wrote it, but for that one line. A VALUE that begins with a minus follows `--`.
    """
    from gritdesk.config import load_config
    from gritdesk.desk import Desk
    from gritdesk.settings import find_setting

    if reset and (key is None or value is not None):
        raise click.UsageError("--reset takes a KEY and no VALUE")
    config = load_config()
    with Desk(config) as desk:
        desk.subscribe(say)
        if key is None:
            _print_all(desk.settings(), desk.stored(), config.path, as_json)
            return
        if value is None and not reset:
            _print_one(find_setting(load_config(config.home), key), as_json)
            return
        price = desk.price(key, value)
        _agree(key, price, yes=yes, may_ask=not as_json)
        changed = desk.change_setting(key, value)
    if as_json:
        print_json(_setting_json(changed) | {"price": _price_json(price)})
        return
    click.echo(f"{changed.key} is {_quoted(changed)} now, as {shown(str(config.path))} says")
    if changed.applies != "at once":
        click.echo("a gritdesk that runs goes by it when it is started again")


def _agree(key: str, price: Price, *, yes: bool, may_ask: bool) -> None:
    """Say what it costs, and ask. Raises: ConfigError unless it is wanted."""
    from gritdesk.errors import ConfigError

    if not price.told or yes:
        return
    if not may_ask or not (sys.stdin and sys.stdin.isatty()):
        raise ConfigError(f"{price.told} Nobody can be asked here; give --yes if {key} is to be changed")
    say(shown(price.told))
    if not click.confirm("Change it?", err=True):
        raise ConfigError("nothing was changed")


def _print_all(found: Iterable[Setting], kept: Iterable[Stored], path: Path, as_json: bool) -> None:
    if as_json:
        stored = [
            {"name": each.name, "path": str(each.path), "bytes": each.size_bytes, "wipe": each.wipe} for each in kept
        ]
        print_json({"path": str(path), "settings": list(map(_setting_json, found)), "stored": stored})
        return
    click.echo(f"{shown(str(path))}, * what it says otherwise than by default")
    for section, group in groupby(found, key=lambda each: each.section):
        click.secho(f"[{section}]", bold=True)
        for each in group:
            click.echo(f"{' ' if each.is_default else '*'} {each.name:<21} {_quoted(each):<14} ", nl=False)
            click.secho(shown(each.meaning), dim=True)
    click.secho("kept on this machine", bold=True)
    for place in kept:
        click.echo(f"  {place.name:<12} {place.size_bytes / 1e6:9.1f} MB  {shown(str(place.path))}")
        click.secho(f"{'':28}rid of it: {place.wipe}", dim=True)


def _print_one(setting: Setting, as_json: bool) -> None:
    if as_json:
        print_json(_setting_json(setting))
        return
    click.secho(f"{setting.key} = {_quoted(setting)}", bold=True)
    click.echo(shown(setting.meaning))
    click.echo(f"takes     {setting.kind}")
    click.echo(f"default   {_quoted(setting, setting.default)}")
    counts = "at once" if setting.applies == "at once" else "where gritdesk is started next"
    click.echo(f"counts    {counts}")
    if setting.kept_by:
        click.echo(f"set by    {setting.kept_by}")


def _quoted(setting: Setting, value: Any = None) -> str:
    """A value as it is shown in a line; an empty text would be nothing to see."""
    from gritdesk.settings import shown_value

    return shown(shown_value(setting.value if value is None else value)) or '""'


def _setting_json(setting: Setting) -> dict[str, Any]:
    return {
        "key": setting.key,
        "value": setting.value,
        "default": setting.default,
        "meaning": setting.meaning,
        "kind": setting.kind,
        "choices": list(setting.choices),
        "least": setting.least,
        "applies": setting.applies,
    }


def _price_json(price: Price) -> dict[str, Any]:
    seconds = None if price.seconds is None else round(price.seconds, 1)
    return {"files": price.num_files, "passages": price.num_passages, "seconds": seconds, "told": price.told}
