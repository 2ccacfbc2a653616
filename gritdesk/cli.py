"""The `gritdesk` command: each subcommand is a call of the Desk and the words around it.

What scripts may rely on: `--json` prints exactly one JSON value on stdout and nothing else; progress and notes
go to stderr; the exit code is 0 for done, 1 for a failure said in one line on stderr, 2 for wrong usage; `ask` has
3 for a question that nothing in the files answers.
Imports that cost time stand inside the command that needs them.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from gritdesk.cli_chats import chats
from gritdesk.cli_convert import convert, imatrix, verify
from gritdesk.cli_estimate import print_estimate
from gritdesk.cli_keys import keys
from gritdesk.cli_map import map_
from gritdesk.cli_models import models
from gritdesk.cli_settings import settings
from gritdesk.cli_states import states
from gritdesk.config import CACHES
from gritdesk.records import UNSUPPORTED
from gritdesk.starting import ended_by_interrupt
from gritdesk.terminal import in_words, json_option, print_json, rewrite_line, say, shown, stopped_by_signals
from gritdesk.wording import counted, explained

if TYPE_CHECKING:
    from gritdesk.desk import Desk
    from gritdesk.grit_format import Cache
    from gritdesk.records import (
        Answer,
        Citation,
        Explanation,
        Hit,
        IndexProgress,
        Misses,
        PathReport,
        Place,
        Prompt,
        Reranking,
        SearchMode,
    )


class _WrongUsage(click.UsageError):
    """Wrong usage said in one line, where click would print its usage too."""

    def show(self, file: IO[Any] | None = None) -> None:
        command = self.ctx.command_path if self.ctx else "gritdesk"
        say(f"{command}: {shown(self.message).rstrip('.')}; see `{command} --help`")


@contextmanager
def _usage_in_one_line() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        raise _WrongUsage(error.format_message(), error.ctx) from error


class _Commands(click.Group):
    """Turns every failure a person can meet into one line on stderr: exit code 2 for wrong usage, otherwise 1."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _usage_in_one_line():
            return super().make_context(*args, **extra)

    def invoke(self, context: click.Context) -> Any:
        from gritdesk.errors import GritDeskError

        try:
            with _usage_in_one_line():
                return super().invoke(context)
        except GritDeskError as error:
            say(f"gritdesk: {shown(' '.join(str(error).split()))}")
            context.exit(1)
        except BrokenPipeError:
            sys.stderr.close()  # the reader of a pipe has gone: nothing is left to say, and nobody to say it to
            context.exit(1)
        except OSError as error:  # standard output on a full disk
            say(f"gritdesk: {shown(str(error))}")
            context.exit(1)


def _paths(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Path, ...]:
    """Arguments as paths; an empty one, of a script's unset variable, would mean the current folder."""
    if "" in values:
        raise click.BadParameter("it is empty; give a path, `.` for this folder", context, parameter)
    return tuple(map(Path, values))


def _path(context: click.Context, parameter: click.Parameter, value: str) -> Path:
    return _paths(context, parameter, (value,))[0]


def _text(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Words as Unicode, bytes of other encodings as replacement characters; an argument must say something."""
    if isinstance(parameter, click.Argument) and not value.strip():
        raise click.BadParameter("it is empty; give at least one word", context, parameter)
    return value.encode(errors="surrogateescape").decode(errors="replace")


class _Duration(click.ParamType[float]):
    """A number with the letter of its unit, as seconds."""

    name = "duration"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> float:
        match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhd])", str(value))
        if match is None:
            self.fail(f"{value} is no time; write it as 30m, 2h or 1d", parameter, context)
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


_DURATION = _Duration()


@click.group(cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(None, package_name="gritdesk")
@click.pass_context
def main(context: click.Context) -> None:
    """Search your folders by words and by meaning, and ask them. Alone: the terminal UI."""
    if context.invoked_subcommand is None:
        _run_tui()


def _run_tui() -> None:
    is_dumb = os.environ.get("TERM") == "dumb"
    # Textual draws on stderr; a stream is None where it is closed
    if is_dumb or not all(each is not None and each.isatty() for each in (sys.stdin, sys.stdout, sys.stderr)):
        from gritdesk.errors import ConfigError

        wanted = "a terminal that can place text, which TERM=dumb says this is not" if is_dumb else "a terminal"
        raise ConfigError(f"the terminal UI needs {wanted}; here use `gritdesk search` or `gritdesk ask`")
    with ended_by_interrupt():
        from gritdesk.config import load_config
        from gritdesk.desk import Desk
        from gritdesk.tui.app import run

        config = load_config()  # what is wrong with it is said before the screen is taken
    # read anew when the index is opened again: a setting may have changed
    run(lambda: Desk.open(load_config()), config)


@main.command()
@click.argument("folders", nargs=-1, callback=_paths)
@click.option("--states", is_flag=True, help="Then keep what answers need of passages, as far as there is room.")
@click.option("--estimate", is_flag=True, help="Only say what it would take: files, bytes, what is skipped, time.")
@json_option
def index(folders: tuple[Path, ...], states: bool, estimate: bool, as_json: bool) -> None:
    """Add FOLDERS to the index and bring it up to date; alone: the folders it has."""
    from gritdesk.errors import ConfigError, StoreBusy

    if estimate:
        print_estimate(folders, as_json)
        return

    with stopped_by_signals() as stop, _open_desk() as desk:
        if not folders and not desk.folders:
            raise ConfigError("no folder is indexed yet; add one with `gritdesk index FOLDER`")
        desk.subscribe(say)
        try:
            report = desk.index(folders, _print_progress, stop.is_set)
            num_states = desk.keep_states(_print_states, stop.is_set) if states and not stop.is_set() else 0
        except StoreBusy:
            keeper = desk.hand_over(folders) if folders else None
            if keeper is None:
                raise
            told = f"added; another gritdesk reads what is new ({keeper})"
            print_json({"handed_to": keeper.pid}) if as_json else click.echo(told)
            return
    rewrite_line()
    if stop.is_set():
        say("gritdesk: stopped; what was indexed is kept, `gritdesk index` does the rest")
        sys.exit(1)
    if as_json:
        print_json(
            {
                "files_seen": report.files_seen,
                "files_indexed": report.files_indexed,
                "files_copied": report.files_copied,
                "files_unchanged": report.files_unchanged,
                "files_deleted": report.files_deleted,
                "chunks_embedded": report.chunks_embedded,
                "chunks_reused": report.chunks_reused,
                "failed": [{"path": str(each.path), "reason": each.reason} for each in report.failed],
                "seconds": round(report.seconds, 3),
            }
            | ({"states_new": num_states} if states else {})
        )
        return
    click.echo(
        f"{report.files_seen} files: {report.files_indexed} indexed, {report.files_copied} moved or copied, "
        f"{report.files_unchanged} unchanged, "
        f"{report.files_deleted} gone, {len(report.failed) - report.folders_kept} not readable; "
        f"{report.chunks_embedded} passages embedded, {report.chunks_reused} reused, in {report.seconds:.1f} s"
    )
    if states:
        click.echo(f"{num_states} passages made ready for answers; what they take: gritdesk states")
    if report.folders_kept:
        num = report.folders_kept
        what = "1 folder that is" if num == 1 else f"{num} folders that are"
        click.echo(f"kept as they were: the files of {what} not to be read now; which and why: gritdesk status")
    if len(report.failed) > report.folders_kept:
        click.echo("why files are missing: gritdesk status")


@main.command()
@click.option("--install", "task", flag_value="install", help="Write a service of yours that watches from login on.")
@click.option("--uninstall", "task", flag_value="uninstall", help="Remove that service.")
def watch(task: str | None) -> None:
    """Keep the index up with its folders until interrupted, or by a service of yours."""
    if task is not None:
        _change_service(task)
        return
    import dataclasses

    from gritdesk.config import load_config
    from gritdesk.desk import Desk
    from gritdesk.keeping import lower_priority

    config = load_config()
    if config.index.quiet:
        config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, n_threads=1))
    with stopped_by_signals() as stop, Desk.open(config) as desk:
        desk.subscribe(say)
        lower_priority()  # nobody waits for this process
        begun = f"watching {shown(', '.join(map(str, desk.folders)))}; Ctrl+C ends it"

        def on_progress(progress: IndexProgress) -> None:
            nonlocal begun
            if begun:  # only now: another process may have been watching already
                say(begun)
                begun = ""
            _print_progress(progress)

        desk.watch(on_progress, stop)


def _change_service(task: str) -> None:
    from gritdesk.config import load_config
    from gritdesk.service import install, secrets, service_file, uninstall

    config = load_config()
    service = service_file(config)
    if task == "install":
        install(service)
        click.echo(f"wrote {shown(str(service.path))}; this starts it now and at every login:")
        click.echo(f"  {shown(service.start)}")
        if names := secrets(config):
            click.echo(f"it sees no variable of your shell; give it {' and '.join(names)}: {service.environment}")
    elif uninstall(service):
        click.echo(f"removed {shown(str(service.path))}; this ends it if it runs:")
        click.echo(f"  {shown(service.stop)}")
    else:
        click.echo(f"there is no {shown(str(service.path))}; nothing was removed")


@main.command()
@click.argument("folder", callback=_path)
def forget(folder: Path) -> None:
    """Take FOLDER out of the index; its files stay where they are."""
    with _open_desk() as desk:
        num_files, keeper = desk.forget_folder(folder)
    if keeper is not None:
        click.echo(f"{shown(str(folder))} is listed no more; another gritdesk forgets its files now ({keeper})")
        return
    files = "1 file" if num_files == 1 else f"{num_files} files"
    click.echo(f"forgot {files} of {shown(str(folder))}; on the disk nothing was changed")


@main.command()
@click.option("--for", "for_s", type=_DURATION, default=None, help="How long, such as 30m or 2h; else until `resume`.")
def pause(for_s: float | None) -> None:
    """Have indexing and watching wait, in every process, until `gritdesk resume`."""
    from gritdesk.config import load_config
    from gritdesk.keeping import pause

    click.echo(f"indexing is {pause(load_config(), for_s)}")


@main.command()
def resume() -> None:
    """Let indexing and watching go on."""
    from gritdesk.config import load_config
    from gritdesk.keeping import resume

    click.echo("indexing goes on" if resume(load_config()) else "indexing was not paused")


@main.command()
@click.argument("query", callback=_text)
@click.option("-n", "num_hits", type=click.IntRange(1, 1000), default=10, show_default=True, help="Hits at most.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "semantic", "keyword"]),
    default="hybrid",
    show_default=True,
    help="Words and meaning, meaning alone, words alone.",
)
@click.option("--explain", is_flag=True, help="Say how each score came about.")
@click.option("--rerank", is_flag=True, help="Look harder: have the model read each hit again, knowing the query.")
@click.option("--budget", "budget_s", type=_DURATION, default=None, help="How long that may take; 2s if not set.")
@json_option
def search(
    query: str,
    num_hits: int,
    mode: SearchMode,
    explain: bool,
    rerank: bool,
    budget_s: float | None,
    as_json: bool,
) -> None:
    """Find the passages that fit QUERY.

    \b
    "token bucket"                     these words in this order
    -draft -"old plan"                 without these words
    lit:std::vector lit:"two words"    letter by letter
    in:notes type:pdf name:report      in these folders, kinds of files, names; -in: and so on leave out
    after:2024-05 before:yesterday     modified then; also 7d, 2w, 3mo, 1y ago, and today

    A QUERY that begins with a minus follows `--`.
    """
    with _open_desk() as desk:
        desk.subscribe(say)
        hits = desk.search(query, num_hits, mode, explain=explain)
        misses = None if hits else desk.misses(query, mode)
        unread = [] if hits else desk.unread(query)
        reread = _reread(desk, query, hits, budget_s) if rerank or budget_s is not None else None
    hits = list(reread.hits) if reread else hits
    if as_json:
        found: dict[str, Any] = {"query": query, "mode": mode, "hits": _hits_json(hits)}
        found |= {"rerank": _reranking_json(reread)} if reread else {}
        print_json(found | ({"misses": _misses_json(misses, unread)} if misses else {}))
        return
    _echo_hits(hits)
    if reread and hits:
        rest = "" if reread.is_complete else "; the others stay as they were found"
        click.secho(f"{reread.num_read} of {len(hits)} read again in {reread.seconds:.1f} s{rest}", dim=True)
    if misses:
        removed = [f"{counted(num)} without {shown(restriction)}" for restriction, num in misses.removed]
        click.echo("; ".join(["nothing found", *removed]))
    if misses and misses.nearest:
        click.secho("the nearest without any restriction:", dim=True)
        _echo_hits(misses.nearest)
    if unread:
        click.secho("files of such a name that are not in the index:", dim=True)
        for each in unread:
            click.echo(f"    {shown(f'{each.path}: {each.reason}')}")


def _reread(desk: Desk, query: str, hits: Sequence[Hit], budget_s: float | None) -> Reranking:
    """The hits as the model orders them within the budget; Ctrl+C ends it there."""
    with stopped_by_signals() as stop:
        for so_far in desk.rerank(query, hits, budget_s, stop.is_set):
            spent = f"{so_far.seconds:.1f} of {so_far.budget_s:g} s"
            rewrite_line(f"reading again: {so_far.num_read} of {len(hits)}, {spent}; Ctrl+C ends it")
    rewrite_line()
    return so_far


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-n", "num_files", type=click.IntRange(1, 1000), default=10, show_default=True, help="Files at most.")
@json_option
def similar(path: Path, num_files: int, as_json: bool) -> None:
    """List the files that are nearest by meaning to PATH, which is in the index."""
    with _open_desk() as desk:
        found = desk.similar(path, num_files)
    if as_json:
        copies = [str(each) for each in found.copies]
        print_json({"path": str(path), "hits": _hits_json(found.hits), "copies": copies})
        return
    _echo_hits(found.hits)
    for copy in found.copies:
        click.echo(f"the same  {shown(str(copy))}")
    if not found.hits and not found.copies:
        click.echo("nothing found")


@main.command()
@click.argument("question", callback=_text)
@click.option(
    "--in",
    "within",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Ask this file or folder of the index and no other; may be given several times.",
)
@click.option("--continue", "goes_on", is_flag=True, help="Go on with the chat last asked in.")
@click.option("--chat", default=None, metavar="ID", help="Go on with this chat; `new` begins one.")
@click.option("--no-chat", is_flag=True, help="Keep nothing of this question.")
@click.option(
    "--anyway", is_flag=True, help="Where the files hold no answer, take one of the model itself; it is marked."
)
@click.option(
    "--cache",
    type=click.Choice(CACHES),
    default=None,
    help="Of what keys and values computed before are used; default: as config.toml says.",
)
@click.option("--show-prompt", is_flag=True, help="Show what the model would be given, and answer nothing.")
@json_option
def ask(
    question: str,
    within: tuple[Path, ...],
    goes_on: bool,
    chat: str | None,
    no_chat: bool,
    anyway: bool,
    cache: Cache | None,
    show_prompt: bool,
    as_json: bool,
) -> None:
    """Answer QUESTION from the indexed files, with citations.

    In a terminal a question begins a new chat; into a pipe or a file nothing is kept unless a chat is named. The exit
    code is 3 where nothing in the files answers it.
    """
    from gritdesk.errors import ModelError
    from gritdesk.records import AnswerFinished, AnswerRestarted, EvidenceFound, PieceGenerated

    if (goes_on, chat is not None, no_chat).count(True) > 1:
        raise click.UsageError("--continue, --chat and --no-chat exclude each other; give one of them")
    answer: Answer | None = None
    with _open_desk() as desk:
        desk.subscribe(say)
        id_ = "" if no_chat or show_prompt and not (goes_on or chat) else _chat_of(desk, goes_on, chat)
        if show_prompt:
            prompt, text = desk.prompt(question, within=within, chat=id_, anyway=anyway, cache=cache)
            _show_prompt(question, prompt, text, as_json)
            return
        for event in desk.ask(question, within=within, chat=id_, anyway=anyway, cache=cache):
            if isinstance(event, AnswerFinished):
                answer = event.answer
            elif isinstance(event, AnswerRestarted):
                say("the answer begins anew")  # why, the desk has said
                if not as_json:
                    click.echo()
            elif isinstance(event, EvidenceFound) and event.evidence == "none" and anyway and not as_json:
                click.secho("from the model, not from your files:", bold=True)
            elif isinstance(event, PieceGenerated) and not as_json:
                click.echo(shown(event.text, keep="\n\t"), nl=False)
    if answer is None:
        raise ModelError("the engine ended without an answer; see `gritdesk doctor`")
    if as_json:
        print_json(_answer_json(answer) | {"chat": id_ or None})
    else:
        _echo_ground(answer)
        if id_ and not goes_on:
            click.secho(f"kept in chat {id_}; `gritdesk ask --continue` goes on with it", dim=True)
    if (answer.evidence == "none" and not answer.from_model) or answer.refused:
        sys.exit(3)


def _echo_ground(answer: Answer) -> None:
    """What an answer rests on, under it."""
    click.echo()
    if answer.searched_for:
        click.secho(f"searched for: {shown(answer.searched_for)}", dim=True)
    for citation in answer.citations:
        _echo_citation(citation)
    _echo_support(answer)
    if answer.evidence == "none":
        for restriction, num in answer.removed:
            click.echo(f"{counted(num)} without {shown(restriction)}")
        if answer.nearest:
            click.secho("the nearest in them:" if not answer.removed else "the nearest without that:", dim=True)
        for citation in answer.nearest:
            _echo_citation(citation)
        if not answer.from_model:
            click.secho("the model's own answer, not from your files: ask --anyway", dim=True)
        return
    if answer.evidence == "thin":
        click.secho("the files hold little on this; look at the passage before you rely on it", dim=True)
    if not answer.grounded:
        doubts = dict.fromkeys(each.doubt for each in answer.sentences if not each.doubt.startswith("no passage"))
        why = f" ({'; '.join(doubts)})" if doubts else ""
        click.secho(
            f"no passage supports this answer{why}" + ("; the closest one:" if answer.closest else ""), dim=True
        )
    if answer.closest:
        _echo_citation(answer.closest)


def _chat_of(desk: Desk, goes_on: bool, name: str | None) -> str:
    """The chat of a question; "" if it is to be kept in none."""
    if goes_on:
        return desk.chats.latest()
    if name is not None and name != "new":
        return desk.chats.find(name)
    return desk.chats.start() if name or (sys.stdout is not None and sys.stdout.isatty()) else ""


@main.command()
@click.argument("place", callback=_path)
@click.argument("quote", callback=_text)
@json_option
def cite(place: Path, quote: str, as_json: bool) -> None:
    """Say whether QUOTE, as an answer cited it, still stands at PLACE, which is PATH:LINE or PATH."""
    from gritdesk.checking import told
    from gritdesk.records import Citation

    path, line = _path_and_line(str(place))
    citation = Citation(1, path, line, line, quote)
    with _open_desk() as desk:
        found = desk.check_citation(citation)
    if as_json:
        print_json(_place_json(citation, found))
        return
    click.secho(shown(f"{path}:{found.line_start}"), bold=True, nl=False)
    click.echo(f"  {shown(told(citation, found) or 'these words stand there')}")
    if found.quote:
        click.echo(f"    {shown(' '.join(found.quote.split()))}")


def _show_prompt(question: str, prompt: Prompt, text: str, as_json: bool) -> None:
    if as_json:
        found = {"question": question, "prompt": text, "tokens": prompt.num_tokens}
        print_json(found | {"passages": _hits_json(prompt.hits)})
        return
    click.echo(shown(text, keep="\n\t"))
    say(f"{prompt.num_tokens} tokens, {counted(len(prompt.hits))}")


@main.command()
@click.option(
    "--instruction", default="", callback=_text, help="The task, as GRIT puts it before a query; none for passages."
)
@click.option("--model", "model", type=click.Path(), default=None, help="A GGUF, or a name of `gritdesk models`.")
@json_option
def embed(instruction: str, model: str | None, as_json: bool) -> None:
    """Embed standard input, one text a line; one JSON array of floats a line comes out."""
    import dataclasses

    from gritdesk.config import load_config
    from gritdesk.desk import Desk
    from gritdesk.errors import ConfigError

    config = load_config()
    if model is not None:
        config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, model=model, embed_url=""))
    if sys.stdin is None:
        raise ConfigError("standard input is closed; give one text a line there")
    texts = [line.decode("utf-8", "replace").rstrip("\r\n") for line in sys.stdin.buffer]
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise ConfigError(f"line {number} of standard input is empty; give one text a line")
    if not texts:
        return
    with Desk(config) as desk:  # not `open`: it needs no index, and a damaged one is no hindrance
        for embedding in desk.embed(texts, instruction):
            click.echo(json.dumps([round(float(value), 7) for value in embedding]))


@main.command()
@json_option
def status(as_json: bool) -> None:
    """Show what the index holds, what it waits for, and which files could not be read."""
    with _open_desk() as desk:
        found, folder_chunks = desk.status(), desk.folder_chunks()
    if as_json:
        print_json(
            {
                "files": found.files,
                "chunks": found.chunks,
                "pending": found.pending,
                "awaiting": found.awaiting,
                "failed": [{"path": str(each.path), "reason": each.reason} for each in found.failed],
                "folders": [str(folder) for folder in found.folders],
                "folder_chunks": {str(folder): num for folder, num in folder_chunks.items()},
                "model": found.model,
                "fingerprint": found.fingerprint,
                "sizes": {"index_bytes": found.index_bytes, "text_bytes": found.text_bytes},
                "keeper": found.keeper,
                "paused": found.paused,
                "quiet": found.quiet,
                "skipped": dict(found.skipped),
                "sends": found.sends,
                "chats": {"number": found.chats, "size_bytes": found.chats_bytes},
                "states": {
                    "bytes": found.states_bytes,
                    "max_bytes": found.states_max_bytes,
                    "hit_rate": found.states_hit_rate,
                },
            }
        )
        return
    click.echo(f"index    {shown(str(found.index_path))} ({found.index_bytes / 1e6:.1f} MB)")
    folders = ", ".join(f"{folder} ({num} passages)" for folder, num in folder_chunks.items())
    click.echo(f"folders  {shown(folders) or 'none; add one with `gritdesk index FOLDER`'}")
    click.echo(f"holds    {found.files} files, {found.chunks} passages; {found.pending} files wait to be read")
    if found.awaiting:
        click.echo(f"         {found.awaiting} passages are found by words and await their meaning")
    click.echo(f"kept up  {shown(found.keeper) or 'by no process now; `gritdesk watch` does it'}")
    if found.paused:
        click.echo(f"waits    {found.paused}")
    if found.quiet:
        click.echo("quiet    rests twice as long as it works; `gritdesk settings --reset quiet` ends that")
    if found.chats:
        click.echo(f"chats    {found.chats} ({found.chats_bytes / 1e6:.1f} MB), on this machine")
    click.echo(f"model    {shown(found.model)}")
    if found.states_max_bytes or found.states_bytes:
        rate = found.states_hit_rate
        hits = "" if rate is None else f"; {100 * rate:.0f} % of the passages lately asked about were there"
        click.echo(f"states   {found.states_bytes / 1e6:.1f} of {found.states_max_bytes / 1e6:,.0f} MB{hits}")
    if found.sends:
        click.echo(f"sends    {shown(found.sends)}")
    if found.skipped:
        rules = sorted(found.skipped.items(), key=lambda each: -each[1])
        click.echo(f"skipped  {shown(', '.join(f'{count} {rule}' for rule, count in rules))}; see `gritdesk why PATH`")
    if found.failed:
        click.echo(f"not read {len(found.failed)} files:")
        for each in found.failed:
            click.echo(f"  {shown(f'{each.path}: {each.reason}')}")


@main.command()
@click.argument("path", callback=_path)
@json_option
def why(path: Path, as_json: bool) -> None:
    """Say whether PATH is in the index, and by which rule it is not."""
    with _open_desk() as desk:
        report = desk.why(path)
    if as_json:
        print_json(_path_report_json(report))
        return
    click.echo(shown(str(report.path)))
    click.echo(f"    {shown(report.reason)}")
    if report.state == "indexed":
        click.echo(f"    {report.format}, {report.num_chunks} passages, {report.num_embedded} of them embedded")
    if report.modified_ns:
        click.echo(f"    as written on {_local_time(report.modified_ns)}")


main.add_command(chats)
main.add_command(convert)
main.add_command(imatrix)
main.add_command(verify)
main.add_command(models)
main.add_command(settings)
main.add_command(map_)
main.add_command(keys)
main.add_command(states)


@main.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check the installation, the model and the index, and say what to do about what is wrong."""
    from gritdesk.doctor import examine

    checks = list(examine())
    if as_json:
        print_json([{"name": each.name, "ok": each.ok, "found": each.found} for each in checks])
    else:
        for each in checks:
            click.secho("ok     " if each.ok else "wrong  ", fg="green" if each.ok else "red", nl=False)
            click.echo(f"{each.name:<12} {shown(each.found)}")
    wrong = [each.name for each in checks if not each.ok]
    if wrong:
        say(f"gritdesk: {len(wrong)} of {len(checks)} checks failed: {', '.join(wrong)}")
        sys.exit(1)


# ---------------------------------------------------------------- words and shapes


def _open_desk() -> Desk:
    from gritdesk.config import load_config
    from gritdesk.desk import Desk

    return Desk.open(load_config())


def _place(hit: Hit) -> str:
    return f"{shown(str(hit.path))}:{hit.chunk.line_start}" + (f" (page {hit.chunk.page})" if hit.chunk.page else "")


def _snippet(hit: Hit, width: int = 200) -> str:
    text = " ".join(hit.chunk.text.split())
    return text if len(text) <= width else text[:width].rsplit(" ", 1)[0] + " …"


def _echo_hits(hits: Sequence[Hit]) -> None:
    for n, hit in enumerate(hits, start=1):
        heading = f"  {shown(hit.chunk.heading)}" if hit.chunk.heading else ""
        click.secho(f"{n:>2}  {_place(hit)}", bold=True, nl=False)
        click.secho(heading, dim=True)
        click.echo(f"    {shown(_snippet(hit))}")
        if hit.explanation:
            click.secho(f"    {shown(explained(hit))}", dim=True)


def _echo_citation(citation: Citation) -> None:
    page = f" (page {citation.page})" if citation.page else ""
    click.secho(shown(f"[{citation.n}] {citation.path}:{citation.line_start}{page}"), bold=True)
    click.echo(f"    {shown(' '.join(citation.quote.split()))}")


def _echo_support(answer: Answer) -> None:
    """What a person must know of the text above, which has been streamed and stands as it came."""
    if answer.dropped:
        click.echo(f"dropped: {''.join(f'[{n}]' for n in answer.dropped)}, which names no passage")
    for each in answer.sentences if answer.grounded else ():
        said = shown(" ".join(answer.text[each.start : each.end].split()))
        if not each.is_supported:
            click.secho(f"{UNSUPPORTED} {each.doubt or 'no passage supports this'}: ", fg="yellow", nl=False)
            click.echo(said)
        elif each.suggested:
            click.echo(f"[{each.suggested}] supports this, not what it cites: {said}")
    if answer.support:
        click.secho(answer.support, dim=True)


def _hit_json(rank: int, hit: Hit) -> dict[str, Any]:
    return {
        "rank": rank,
        "path": str(hit.path),
        "page": hit.chunk.page,
        "line_start": hit.chunk.line_start,
        "line_end": hit.chunk.line_end,
        "heading": hit.chunk.heading,
        "score": round(hit.score, 6),
        "snippet": _snippet(hit),
    } | ({"explanation": _explanation_json(hit, hit.explanation)} if hit.explanation else {})


def _hits_json(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [_hit_json(n, hit) for n, hit in enumerate(hits, start=1)]


def _explanation_json(hit: Hit, why: Explanation) -> dict[str, Any]:
    return {
        "words": round(why.words, 6),
        "meaning": round(why.meaning, 6),
        "bonus": round(why.bonus, 6),
        "keyword_rank": hit.keyword_rank,
        "semantic_rank": hit.semantic_rank,
        "bm25": why.bm25 if why.bm25 is None else round(why.bm25, 6),
        "cosine": None if hit.distance is None else round(1 - hit.distance, 6),
        "keyword_weight": why.keyword_weight,
        "semantic_weight": why.semantic_weight,
        "terms_found": list(why.terms_found),
        "terms_missing": list(why.terms_missing),
        "restrictions": list(why.restrictions),
    } | ({} if why.reading is None else {"reading": round(why.reading, 6)})


def _reranking_json(reread: Reranking) -> dict[str, Any]:
    return {
        "read": reread.num_read,
        "of": len(reread.hits),
        "seconds": round(reread.seconds, 3),
        "budget_s": reread.budget_s,
        "complete": reread.is_complete,
    }


def _misses_json(misses: Misses, unread: Sequence[PathReport]) -> dict[str, Any]:
    removed = [{"restriction": restriction, "hits": num} for restriction, num in misses.removed]
    not_read = [{"path": str(each.path), "state": each.state, "reason": each.reason} for each in unread]
    return {"removed": removed, "nearest": _hits_json(misses.nearest), "unread": not_read}


def _answer_json(answer: Answer) -> dict[str, Any]:
    return {
        "question": answer.question,
        "answer": answer.text,
        "grounded": answer.grounded,
        "evidence": answer.evidence,
        "from_model": answer.from_model,
        "refused": answer.refused,
        "searched_for": answer.searched_for or answer.question,
        "within": [str(each) for each in answer.within],
        "removed": [{"filter": restriction, "hits": num} for restriction, num in answer.removed],
        "citations": [_citation_json(each) for each in answer.citations],
        "nearest": [_citation_json(each) for each in answer.nearest],
        "sentences": [
            {
                "text": answer.text[each.start : each.end],
                "start": each.start,
                "end": each.end,
                "supported": each.is_supported,
                "cited": list(each.cited),
                "suggested": each.suggested,
                "nearest": _citation_json(each.citation) if each.citation else None,
                "score": None if each.score is None else round(each.score, 4),
                "doubt": each.doubt,
            }
            for each in answer.sentences
        ],
        "dropped": list(answer.dropped),
        "timings": {name: round(seconds, 4) for name, seconds in answer.timings.items()},
    }


def _citation_json(citation: Citation) -> dict[str, Any]:
    return {
        "n": citation.n,
        "path": str(citation.path),
        "page": citation.page,
        "line_start": citation.line_start,
        "line_end": citation.line_end,
        "heading": citation.heading,
        "quote": citation.quote,
    }


def _path_and_line(place: str) -> tuple[Path, int]:
    """PATH:LINE taken apart; the line is 1 where none is given, or where the whole is the name of a file."""
    path, _, line = place.rpartition(":")
    if path and line.isdecimal() and not os.path.exists(place):
        return Path(os.path.abspath(path)), max(1, int(line))
    return Path(os.path.abspath(place)), 1


def _place_json(citation: Citation, place: Place) -> dict[str, Any]:
    return {
        "path": str(citation.path),
        "state": place.state,
        "page": place.page,
        "line_start": place.line_start,
        "line_end": place.line_end,
        "quote": place.quote,
        "reason": place.reason,
    }


def _path_report_json(report: PathReport) -> dict[str, Any]:
    skip = report.skip
    return {
        "path": str(report.path),
        "state": report.state,
        "reason": report.reason,
        "rule": skip.rule if skip else None,
        "rule_path": str(skip.path) if skip else None,
        "rule_file": str(skip.file) if skip and skip.file else None,
        "rule_line": skip.line if skip else None,
        "exists": report.exists,
        "format": report.format or None,
        "chunks": report.num_chunks,
        "embedded": report.num_embedded,
        "modified_ns": report.modified_ns,
        "changed": report.has_changed,
    }


def _local_time(time_ns: int) -> str:
    try:
        return datetime.fromtimestamp(time_ns // 1_000_000_000).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):  # a file may claim to be from whatever year
        return f"{time_ns} ns since 1970"


def _print_progress(progress: IndexProgress) -> None:
    """Rewrite one line on a terminal's stderr; into a pipe say only what a person must know."""
    if progress.note:
        say(progress.note)
    left = f", {in_words(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    if progress.chunks_awaiting:
        rewrite_line(f"{progress.files_total} files found by words; {progress.chunks_awaiting} passages await{left}")
        return
    name = shown(progress.current.name) if progress.current else ""
    rewrite_line(f"{progress.files_done} of {progress.files_total} files{left}  {name}")


def _print_states(num_done: int, num_passages: int) -> None:
    rewrite_line(f"{num_done} of {num_passages} passages made ready for answers")


if __name__ == "__main__":
    main()
