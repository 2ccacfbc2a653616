"""`gritdesk keys`: every key of the terminal UI with its id, and what config.toml changes of them."""

from __future__ import annotations

from itertools import groupby

import click

from gritdesk.terminal import json_option, print_json, say, shown


@click.command()
@json_option
def keys(as_json: bool) -> None:
    """List the keys of the terminal UI by the ids that [keys] of config.toml knows them by."""
    from gritdesk.config import load_config
    from gritdesk.tui.keymap import Keymap
    from gritdesk.tui.keymap import shown as shown_key

    config = load_config()
    keymap = Keymap(config.keys)
    if as_json:
        rows = [
            {
                "id": each.id,
                "screen": each.group,
                "keys": list(map(shown_key, keymap.keys_of(each.id))),
                "default": list(map(shown_key, each.default)),
                "changed": each.id in keymap.changed,
                "title": each.title,
                "what": each.what,
            }
            for each in keymap.bound.values()
        ]
        print_json({"path": str(config.path), "keys": rows, "problems": keymap.problems})
        return
    for group, bound in groupby(keymap.bound.values(), key=lambda each: each.group):
        click.secho(group, bold=True)
        for each in bound:
            now = " ".join(map(shown_key, keymap.keys_of(each.id)))
            default = " ".join(map(shown_key, each.default))
            changed = f"; by default {default}" if each.id in keymap.changed else ""
            click.echo(f"  {now:<16} {each.id:<22} {each.what}{changed}")
    for problem in keymap.problems:
        say(f"{shown(str(config.path))}: {shown(problem)}")
