"""`gritdesk chats`: the conversations that are kept: to read, search, name, hand out and delete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gritdesk.terminal import json_option, print_json, say, shown

if TYPE_CHECKING:
    from gritdesk.desk import Desk
    from gritdesk.records import ChatHit, ChatSummary, SearchMode


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def chats(context: click.Context, as_json: bool) -> None:
    """List the kept chats, pinned ones first; or show, search, export, rename, pin and delete one.

    ID is all of a chat's id, or a part that no other has.
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"give --json after {context.invoked_subcommand}", context)
        return
    with _open_desk() as desk:
        found = desk.chats.all()
    if as_json:
        print_json([_summary_json(each) for each in found])
        return
    for each in found:
        click.secho(f"{each.id}  ", bold=True, nl=False)
        click.secho(f"{_when(each.asked_at)}  {_questions(each.num_exchanges):>12}  ", dim=True, nl=False)
        click.echo(f"{'* ' if each.is_pinned else ''}{shown(each.title)}")
    if not found:
        click.echo("no chats yet; `gritdesk ask QUESTION` in a terminal begins one")


@chats.command()
@click.argument("chat", metavar="ID")
@json_option
def show(chat: str, as_json: bool) -> None:
    """Print a chat with its citations."""
    with _open_desk() as desk:
        id_ = desk.chats.find(chat)
        found, text = desk.chats.read(id_), desk.chats.export(id_, "json" if as_json else "markdown")
    if as_json:
        click.echo(text, nl=False)
        return
    click.echo(shown(text, keep="\n"), nl=False)
    if found.num_damaged:
        lines = "1 line" if found.num_damaged == 1 else f"{found.num_damaged} lines"
        say(f"left out: {lines} of its file that cannot be read")


@chats.command()
@click.argument("query")
@click.option("-n", "num_hits", type=click.IntRange(1, 1000), default=10, show_default=True, help="Hits at most.")
@click.option("--mode", type=click.Choice(["hybrid", "semantic", "keyword"]), default="hybrid", show_default=True)
@json_option
def search(query: str, num_hits: int, mode: SearchMode, as_json: bool) -> None:
    """Find questions and answers that fit QUERY, written as for `gritdesk search`."""
    if not query.strip():
        raise click.UsageError("QUERY is empty; give at least one word")
    with _open_desk() as desk:
        desk.subscribe(say)
        found = desk.chats.search(query, num_hits, mode)
    if as_json:
        print_json(
            {"query": query, "mode": mode, "hits": [_hit_json(n, each) for n, each in enumerate(found, start=1)]}
        )
        return
    for n, each in enumerate(found, start=1):
        click.secho(f"{n:>2}  {each.chat_id}", bold=True, nl=False)
        click.secho(f"  {_when(each.asked_at)}  {shown(each.title)}", dim=True)
        click.echo(f"    {shown(_snippet(each))}")
    if not found:
        click.echo("nothing found")


@chats.command()
@click.argument("chat", metavar="ID")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--format", "format_", type=click.Choice(["markdown", "json"]), default="markdown", show_default=True)
def export(chat: str, file: Path | None, format_: Any) -> None:
    """Write a chat to FILE, or to standard output."""
    with _open_desk() as desk:
        id_ = desk.chats.find(chat)
        if file is None:
            click.echo(desk.chats.export(id_, format_).encode("utf-8", "backslashreplace"), nl=False)
            return
        desk.chats.write(id_, file, format_)
    click.echo(f"wrote {shown(str(file))}")


@chats.command()
@click.argument("chat", metavar="ID")
@click.argument("title")
@json_option
def rename(chat: str, title: str, as_json: bool) -> None:
    """Give a chat a TITLE in place of its first question."""
    if not title.strip():
        raise click.UsageError("TITLE is empty; give at least one word")
    with _open_desk() as desk:
        id_ = desk.chats.find(chat)
        desk.chats.rename(id_, title.encode(errors="surrogateescape").decode(errors="replace"))
        _tell(desk, id_, "renamed", as_json)


@chats.command()
@click.argument("chat", metavar="ID")
@click.option("--off", "is_off", is_flag=True, help="Pin it no more.")
@json_option
def pin(chat: str, is_off: bool, as_json: bool) -> None:
    """Keep a chat on top of the list."""
    with _open_desk() as desk:
        id_ = desk.chats.find(chat)
        desk.chats.pin(id_, not is_off)
        _tell(desk, id_, "unpinned" if is_off else "pinned", as_json)


@chats.command()
@click.argument("chat", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def delete(chat: str, yes: bool, as_json: bool) -> None:
    """Delete a chat for good, and what the index of chats has of it."""
    from gritdesk.errors import ConfigError

    with _open_desk() as desk:
        id_ = desk.chats.find(chat)
        found = desk.chats.read(id_)
        what = f"{id_}, {_questions(len(found.exchanges))}: {shown(found.title)}"
        if not yes:
            if as_json or not (sys.stdin and sys.stdin.isatty()):
                raise ConfigError(f"nobody can be asked here whether to delete {what}; give --yes if it is to go")
            if not click.confirm(f"Delete {what}?", err=True):
                raise ConfigError("nothing was deleted")
        desk.chats.delete(id_)
    print_json({"deleted": id_}) if as_json else click.echo(f"deleted {what}")


def _tell(desk: Desk, id_: str, done: str, as_json: bool) -> None:
    found = next(each for each in desk.chats.all() if each.id == id_)
    print_json(_summary_json(found)) if as_json else click.echo(f"{done} {id_}: {shown(found.title)}")


def _open_desk() -> Desk:
    from gritdesk.config import load_config
    from gritdesk.desk import Desk

    return Desk(load_config())  # not `open`: chats are there whatever the index is


def _when(seconds: float) -> str:
    from gritdesk.chats import local_time

    return local_time(seconds)


def _questions(num: int) -> str:
    return "1 question" if num == 1 else f"{num} questions"


def _snippet(found: ChatHit, width: int = 200) -> str:
    text = " ".join(found.hit.chunk.text.split())
    return text if len(text) <= width else text[:width].rsplit(" ", 1)[0] + " …"


def _summary_json(each: ChatSummary) -> dict[str, Any]:
    return {
        "id": each.id,
        "title": each.title,
        "questions": each.num_exchanges,
        "started_at": each.started_at,
        "asked_at": each.asked_at,
        "pinned": each.is_pinned,
        "size_bytes": each.size_bytes,
    }


def _hit_json(rank: int, found: ChatHit) -> dict[str, Any]:
    return {
        "rank": rank,
        "chat": found.chat_id,
        "title": found.title,
        "question": found.number,
        "asked_at": found.asked_at,
        "score": round(found.hit.score, 6),
        "snippet": _snippet(found),
    }
