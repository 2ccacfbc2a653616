"""`gritdesk models`: what is here, what it is, and bringing, choosing and removing models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gritdesk.terminal import interrupted_by_signals, json_option, print_json, say, shown, stopped_by_signals

if TYPE_CHECKING:
    from gritdesk.choosing import Speed
    from gritdesk.grit_format import GritMetadata
    from gritdesk.model_facts import MemoryNeeded, ModelFacts


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def models(context: click.Context, as_json: bool) -> None:
    """List the model files that are here, * the one in use; or show, choose, bring and remove one."""
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"give --json after {context.invoked_subcommand}", context)
        return
    from gritdesk.config import load_config
    from gritdesk.models import list_models, model_in_use, only_embeds

    config = load_config()
    found, used = list_models(config), model_in_use(config)
    if used is not None and used not in found:  # chosen by its path
        found.append(used)
    if as_json:
        print_json(
            [
                {
                    "name": each.name,
                    "path": str(each.path),
                    "size_bytes": each.size_bytes,
                    "default": each.is_default,
                    "in_use": each == used,
                    "only_embeds": only_embeds(each.path),
                }
                for each in found
            ]
        )
        return
    for each in found:
        note = "  (only embeds)" if only_embeds(each.path) else ""
        line = f"{each.name:<24} {each.size_bytes / 1e6:8.1f} MB  {each.path}{note}"
        click.echo(f"{'*' if each == used else ' '} {shown(line)}")


@models.command()
@click.argument("model", metavar="NAME|PATH")
@click.option("--measure", "measured", is_flag=True, help="Embed and write for some seconds, and tell how fast.")
@click.option("--metadata", "all_shown", is_flag=True, help="Then every key of the file; of a list, its length.")
@json_option
def info(model: str, measured: bool, all_shown: bool, as_json: bool) -> None:
    """Show what a model is, what it can do, the memory it needs, and how fast it is here."""
    from gritdesk.choosing import asking_for, measure
    from gritdesk.config import load_config
    from gritdesk.gguf_file import read_header
    from gritdesk.model_facts import describe, memory_needed
    from gritdesk.models import find_model

    config = load_config()
    path = find_model(asking_for(config, model))
    header = read_header(path)
    facts = describe(header)
    metadata = {**header.values, **{key: f"[{length}]" for key, length in header.lengths.items()}} if all_shown else {}
    needed = memory_needed(facts, config.engine)
    speed = measure(config, path) if measured else None
    size_bytes = path.stat().st_size
    if as_json:
        more = {"metadata": metadata} if all_shown else {}
        print_json(_info_json(path, size_bytes, facts, needed, speed) | more)
        return
    click.secho(shown(f"{path.stem}  {path}"), bold=True)
    lines = [*_shape_lines(facts, size_bytes), *_use_lines(facts), *_cost_lines(needed, speed, model)]
    for name, said in lines:
        click.echo(f"{name:<12} {shown(said)}")
    for key, value in metadata.items():
        click.echo(f"{key} = {shown(str(value))}")


@models.command()
@click.argument("model", metavar="NAME|PATH|default")
def use(model: str) -> None:
    """Search and answer with another model from now on; `default` is the one that comes with gritdesk."""
    from gritdesk.choosing import use_model
    from gritdesk.config import load_config

    config = load_config()
    choice = use_model(config, model)
    click.echo(f"gritdesk uses {shown(str(choice.path))} from now on, as {shown(str(config.path))} says")
    if not choice.generates:
        click.echo("it only embeds: `gritdesk search` works with it, `gritdesk ask` needs another")
    if choice.embeds_anew:
        click.echo("the index was made by another model: `gritdesk index` embeds it anew; until then search by words")


@models.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, yes: bool) -> None:
    """Delete a model file of gritdesk's own folder."""
    from gritdesk.config import load_config
    from gritdesk.errors import ConfigError
    from gritdesk.models import removable, remove_model

    model = removable(load_config(), name)
    what = shown(f"{model.path} ({model.size_bytes / 1e6:.1f} MB)")
    try:
        if not yes and not click.confirm(f"delete {what}?", err=True):
            raise ConfigError(f"{model.name} was kept")
    except click.Abort as error:
        raise ConfigError(f"{model.name} was kept, for nobody answered; --yes deletes it without a question") from error
    remove_model(model)
    click.echo(f"deleted {what}")


def _importing(command: Callable[..., None]) -> Callable[..., None]:
    """The options of what brings a model."""
    for option in (
        click.option("--replace", is_flag=True, help="Put it in the place of a model of that name."),
        click.option("--frames", type=click.Choice(["gritlm"]), help="How it is read, if the file does not say."),
        click.option("--name", help="What to call it; otherwise as the file is called."),
    ):
        command = option(command)
    return command


@models.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@_importing
def import_(path: Path, name: str | None, frames: str | None, replace: bool) -> None:
    """Copy a GGUF into gritdesk's own folder, once it has proved that it does what it says."""
    from gritdesk.choosing import import_model
    from gritdesk.config import load_config

    with stopped_by_signals() as stop:
        target = import_model(load_config(), path, name, frames=frames, replace=replace, is_stopped=stop.is_set)
    _echo_brought(target)


@models.command()
@click.argument("address", metavar="REPO[:FILE]")
@_importing
def pull(address: str, name: str | None, frames: str | None, replace: bool) -> None:
    """Download a GGUF from the Hugging Face hub and import it; needs a network and gritdesk[pull]."""
    from gritdesk.choosing import pull_model
    from gritdesk.config import load_config

    with interrupted_by_signals():
        target = pull_model(load_config(), address, name, frames=frames, replace=replace)
    _echo_brought(target)


# ---------------------------------------------------------------- words and shapes


def _echo_brought(target: Path) -> None:
    click.echo(f"{shown(str(target))}: {target.stat().st_size / 1e6:.1f} MB")
    say(f"to search and answer with it: gritdesk models use {shown(target.stem)}")


def _shape_lines(facts: ModelFacts, size_bytes: int) -> Iterator[tuple[str, str]]:
    if facts.title:
        yield "title", facts.title
    experts = f", {facts.num_experts} experts" if facts.num_experts else ""
    yield "family", f"{facts.family or 'not said'}, {_counted(facts.num_parameters)} parameters{experts}"
    heads = f"{facts.num_heads} heads, {facts.num_kv_heads} of keys and values"
    yield "layers", f"{facts.num_layers}, {facts.hidden_size} wide ({heads})"
    yield "vocabulary", f"{facts.vocab_size} tokens"
    yield "context", f"{facts.n_ctx_train} tokens"
    if facts.licence:
        yield "licence", facts.licence
    yield "file", f"{facts.file_type or 'of a type not said'}, {size_bytes / 1e6:.1f} MB"


def _use_lines(facts: ModelFacts) -> Iterator[tuple[str, str]]:
    if facts.grit is None:
        yield "can", f"nothing here: {facts.problem}"
        return
    yield "can", " and ".join(_abilities(facts))
    yield from _grit_lines(facts.grit)


def _abilities(facts: ModelFacts) -> list[str]:
    if facts.grit is None:
        return []
    return ["embed", "generate"] if facts.grit.generates else ["embed"]


def _grit_lines(grit: GritMetadata) -> Iterator[tuple[str, str]]:
    said = grit.to_gguf()
    length = ", scaled to length 1" if grit.normalize else ""
    tokens = {"text": "the text's tokens", "all": "all tokens", "first": "the first token"}
    pooled = f"{grit.pooling} over {tokens[str(said['grit.embedding.pooled_tokens'])]}"
    yield "embeds", f"{grit.embedding_attention} attention, {pooled}, {grit.dimension} dimensions{length}"
    yield "query", _one_line(said["grit.embedding.frame"])
    yield "passage", _one_line(said["grit.embedding.frame_without_instruction"])
    if not grit.is_encoder:
        yield "markers", {"special": "tokens of their own", "text": "ordinary text"}[grit.markers]
    if not grit.generates:
        return
    yield "generates", f"{grit.generation_attention} attention"
    passages = {
        "plain": "as plain text",
        "causal_blocks": "as blocks that see themselves alone, causally",
        "bidirectional_blocks": "as blocks that see themselves alone, both ways, as when they were embedded",
    }
    yield "passages", passages[grit.passages]
    yield "chat", _one_line(said["grit.generation.frame"])


def _cost_lines(needed: MemoryNeeded, speed: Speed | None, model: str) -> Iterator[tuple[str, str]]:
    parts = [f"{needed.weights_bytes / 1e6:.1f} MB weights"]
    if needed.n_ctx:
        parts.append(f"{needed.kv_cache_bytes / 1e6:.1f} MB cache of a context of {needed.n_ctx} tokens")
    parts.append(f"{needed.embedding_bytes / 1e6:.1f} MB for embedding {needed.batch_tokens} tokens at a time")
    total = needed.weights_bytes + needed.kv_cache_bytes + needed.embedding_bytes
    yield "memory", f"about {total / 1e6:.1f} MB: {' + '.join(parts)}"
    if needed.bytes_per_passage:
        yield "index", f"{needed.bytes_per_passage} bytes a passage, beside its text"
    if speed is None:
        yield "speed", f"not measured; `gritdesk models info {model} --measure` takes some seconds for it"
        return
    writes = "; writes not to be measured, for its answers end at once" if needed.n_ctx else ""
    if speed.generation_tokens_per_s is not None:
        writes = f"; writes {speed.generation_tokens_per_s:.1f} tokens/s"
    yield "speed", f"embeds {speed.embedding_tokens_per_s:.0f} tokens/s{writes}; loads in {speed.load_s:.1f} s"


def _info_json(
    path: Path, size_bytes: int, facts: ModelFacts, needed: MemoryNeeded, speed: Speed | None
) -> dict[str, Any]:
    return {
        "name": path.stem,
        "path": str(path),
        "size_bytes": size_bytes,
        "title": facts.title,
        "family": facts.family,
        "parameters": facts.num_parameters,
        "layers": facts.num_layers,
        "hidden_size": facts.hidden_size,
        "heads": facts.num_heads,
        "kv_heads": facts.num_kv_heads,
        "experts": facts.num_experts,
        "vocabulary": facts.vocab_size,
        "context": facts.n_ctx_train,
        "file_type": facts.file_type,
        "licence": facts.licence or None,
        "can": _abilities(facts),
        "problem": facts.problem,
        "grit": facts.grit.to_gguf() if facts.grit else None,
        "memory": {
            "weights_bytes": needed.weights_bytes,
            "kv_cache_bytes": needed.kv_cache_bytes,
            "n_ctx": needed.n_ctx,
            "embedding_bytes": needed.embedding_bytes,
            "batch_tokens": needed.batch_tokens,
            "bytes_per_passage": needed.bytes_per_passage,
        },
        "speed": None
        if speed is None
        else {
            "embedding_tokens_per_s": round(speed.embedding_tokens_per_s, 1),
            "generation_tokens_per_s": None
            if speed.generation_tokens_per_s is None
            else round(speed.generation_tokens_per_s, 1),
            "load_s": round(speed.load_s, 3),
        },
    }


def _one_line(frame: object) -> str:
    return str(frame).replace("\n", "\\n")


def _counted(number: int) -> str:
    if number >= 1e9:
        return f"{number / 1e9:.2f} billion"
    return f"{number / 1e6:.1f} million" if number >= 1e5 else str(number)
