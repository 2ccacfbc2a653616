"""`gritdesk states`: what is kept so that answers begin sooner, and how to be rid of it."""

from __future__ import annotations

import click

from gritdesk.terminal import json_option, print_json, shown


@click.command()
@click.option("--clear", is_flag=True, help="Delete all of it; it is made again when it is needed.")
@json_option
def states(clear: bool, as_json: bool) -> None:
    """Tell what is kept of passages so that answers begin sooner: it is made from their text."""
    from gritdesk.config import load_config
    from gritdesk.desk import Desk

    config = load_config()
    with Desk(config) as desk:  # not `open`: it needs no index
        use = desk.clear_states() if clear else desk.states()
    if as_json:
        print_json(
            {
                "path": str(config.states_dir),
                "states": use.num_states,
                "bytes": use.size_bytes,
                "max_bytes": config.engine.states_mb * 1_000_000,
                "found": use.num_found,
                "asked": use.num_asked,
                "cleared": clear,
            }
        )
        return
    told = f"{use.num_states} passages, {use.size_bytes / 1e6:.1f} MB in {shown(str(config.states_dir))}"
    click.echo(f"deleted {told}" if clear else told)
    if use.hit_rate is not None and not clear:
        click.echo(f"{100 * use.hit_rate:.0f} % of the last {use.num_asked} passages asked for were there")
