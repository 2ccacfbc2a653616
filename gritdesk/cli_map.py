"""`gritdesk map`: the library as a picture, in the terminal as a list of themes, as a page of HTML to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gritdesk.terminal import json_option, print_json, rewrite_line, shown

if TYPE_CHECKING:
    from gritdesk.records import Map

_NUM_SHOWN = 3
"""Documents named under each theme."""


@click.command("map")
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write a page to this file."
)
@click.option("--clusters", type=click.IntRange(1, 100), default=None, help="How many themes; else as fits the number.")
@json_option
def map_(html: Path | None, clusters: int | None, as_json: bool) -> None:
    """Group the indexed documents by meaning, and show each group by the words it shares."""
    from gritdesk.config import load_config
    from gritdesk.desk import Desk
    from gritdesk.errors import ConfigError

    with Desk.open(load_config()) as desk:
        found = desk.map(clusters, lambda done, total: rewrite_line(f"{done} of {total} documents"))
    rewrite_line()
    if html is not None:
        from gritdesk.map_page import page

        try:
            html.write_text(page(found), "utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {html}: {error.strerror}; choose another file") from error
    if as_json:
        print_json(_as_json(found))
    elif html is not None:
        click.echo(f"wrote {shown(str(html))}: {len(found.points)} documents in {len(found.clusters)} themes")
    else:
        _echo(found)


def _echo(found: Map) -> None:
    if not found.points:
        click.echo("no document has its meaning yet; `gritdesk status` says what the index holds")
    for number, cluster in enumerate(found.clusters):
        documents = "1 document" if cluster.num_documents == 1 else f"{cluster.num_documents} documents"
        click.secho(f"{shown(', '.join(cluster.words)) or 'without words'}  ", bold=True, nl=False)
        click.secho(documents, dim=True)
        members = [point for point in found.points if point.cluster == number]
        members.sort(key=lambda point: (point.x - cluster.x) ** 2 + (point.y - cluster.y) ** 2)
        for point in members[:_NUM_SHOWN]:
            click.echo(f"    {shown(str(point.path))}")


def _as_json(found: Map) -> dict[str, object]:
    return {
        "clusters": [
            {"words": list(each.words), "x": each.x, "y": each.y, "documents": each.num_documents}
            for each in found.clusters
        ],
        "points": [
            {"path": str(each.path), "x": each.x, "y": each.y, "cluster": each.cluster} for each in found.points
        ],
    }
