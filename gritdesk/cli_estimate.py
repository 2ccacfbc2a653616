"""`gritdesk index --estimate`: what indexing would take, said before anything is read for good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gritdesk.terminal import about, print_json, rewrite_line, say, shown, stopped_by_signals

if TYPE_CHECKING:
    from gritdesk.records import Estimate, FolderCount


def print_estimate(folders: Sequence[Path], as_json: bool) -> None:
    """Of these folders; of none, of those that are indexed; where none is, of those where documents may lie."""
    from gritdesk.config import load_config
    from gritdesk.desk import Desk

    with stopped_by_signals() as stop, Desk(load_config()) as desk:  # not `open`, which makes an index
        desk.subscribe(say)
        counts = []
        for folder in folders or desk.folders or desk.usual_folders():
            for count in desk.count_files(folder, stop.is_set):
                rewrite_line(f"{count.num_files} files in {shown(str(count.folder))}")
            if stop.is_set():
                raise click.Abort
            counts.append(count)
        rewrite_line("trying some of them")
        estimate = desk.estimate(counts)
    rewrite_line()
    if as_json:
        print_json(_estimate_json(estimate))
        return
    for each in estimate.folders:
        click.echo(f"{shown(str(each.folder))}: {_counted(each)}")
    if not estimate.folders:
        click.echo("there is no folder to tell of; give one: gritdesk index --estimate FOLDER")
        return
    known = estimate.num_files - estimate.num_new
    if known:
        click.echo(f"{known} of the files are in the index as they are")
    click.echo(
        f"indexing takes {about(estimate.seconds)} here: found by words after {about(estimate.words_s)}, by meaning "
        f"after the rest ({estimate.num_passages} passages, the model embeds {estimate.tokens_per_s:,.0f} tokens/s)"
    )


def _counted(count: FolderCount) -> str:
    if count.problem:
        return shown(count.problem)
    more = "" if count.is_whole else "more than "
    return f"{more}{count.num_files} files, {count.size_bytes / 1e6:.1f} MB, and {count.num_skipped} that are skipped"


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    return {
        "folders": [
            {
                "path": str(each.folder),
                "files": each.num_files,
                "bytes": each.size_bytes,
                "unchanged": each.num_known,
                "skipped": dict(each.skipped),
                "problem": each.problem,
                "whole": each.is_whole,
            }
            for each in estimate.folders
        ],
        "files": estimate.num_files,
        "bytes": estimate.size_bytes,
        "unchanged": estimate.num_files - estimate.num_new,
        "skipped": estimate.num_skipped,
        "passages": estimate.num_passages,
        "words_s": round(estimate.words_s, 2),
        "meaning_s": round(estimate.meaning_s, 2),
        "seconds": round(estimate.seconds, 2),
        "tokens_per_s": round(estimate.tokens_per_s, 1),
        "whole": estimate.is_whole,
    }
