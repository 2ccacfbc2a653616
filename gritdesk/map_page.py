"""A map -> one page of HTML that needs nothing else: no network, no other file; its links open the documents."""

from __future__ import annotations

import json
from importlib.resources import files

from gritdesk.records import Map


def page(map_: Map) -> str:
    """The whole page, UTF-8 text; it says nothing but paths and the words of clusters."""
    points = [
        {
            "path": str(point.path),
            "name": point.path.name,
            "url": point.path.as_uri(),
            "x": round(point.x, 4),
            "y": round(point.y, 4),
            "cluster": point.cluster,
        }
        for point in map_.points
    ]
    clusters = [
        {"words": each.words, "x": round(each.x, 4), "y": round(each.y, 4), "documents": each.num_documents}
        for each in map_.clusters
    ]
    # within a script only "</" and "<!--" could end or change it; a lone surrogate is no text
    data = json.dumps({"points": points, "clusters": clusters}).replace("<", "\\u003c")
    return (files("gritdesk") / "map_page.html").read_text("utf-8").replace("{{data}}", data)
