"""From a checkpoint to a GGUF, what a person's texts need of it, and the proof that it is the same model.

These are `gritdesk convert`, `gritdesk imatrix` and `gritdesk verify`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gritdesk.terminal import interrupted_by_signals, json_option, print_json, rewrite_line, say, shown

if TYPE_CHECKING:
    from converters.importance import Calibration, Matrix


def _quantization_types(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    from converters.quantize import parse_quantization_type

    try:
        return tuple(dict.fromkeys(parse_quantization_type(value) for value in values))
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


def _overrides(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    from converters.quantize import parse_override

    try:
        return tuple(parse_override(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error


_base_option = click.option(
    "--base",
    type=click.Path(path_type=Path),
    help="Of a PEFT adapter: the checkpoint it was trained beside, if it is not where the adapter says.",
)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--type",
    "quantization_types",
    multiple=True,
    default=["Q8_0"],
    show_default=True,
    callback=_quantization_types,
    help="F32, F16, BF16, Q8_0, Q4_K_M, ...; several make several files, and {type} in OUT tells them apart.",
)
@click.option(
    "--tensor-type",
    "overrides",
    multiple=True,
    metavar="PATTERN=TYPE",
    callback=_overrides,
    help="A type of its own for tensors whose name has PATTERN, such as ffn_down=Q6_K.",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="TEXTS",
    help="Below 8 bits: a folder or file of your own texts, read by the model first; what they need is kept best.",
)
@click.option(
    "--imatrix", type=click.Path(path_type=Path), help="The same from a file, of `gritdesk imatrix` or of llama.cpp."
)
@_base_option
@click.option("--verify", "verified", is_flag=True, help="Then compare OUT with CHECKPOINT, as `gritdesk verify` does.")
def convert(
    checkpoint: Path,
    out: Path,
    quantization_types: tuple[str, ...],
    overrides: tuple[tuple[str, str], ...],
    calibrate: Path | None,
    imatrix: Path | None,
    base: Path | None,
    verified: bool,
) -> None:
    """Turn a Hugging Face CHECKPOINT into the GGUF file OUT; of an encoder, one that only embeds.

    CHECKPOINT is a folder, of a model or a PEFT adapter, or OWNER/REPO on the hub, which is downloaded.
    """
    from converters.hf_to_gguf import convert_all
    from converters.quantize import Quantization
    from converters.verify import check_installed, check_reference
    from converters.writing import check_target

    outs = {_named(out, each, quantization_types): Quantization(each, overrides) for each in quantization_types}
    # a download or a conversion can take an hour: what keeps the next step from running is said before
    with _failing_in_one_line("stopped; nothing was written, and a file of that name is as it was"):
        for each in outs:
            check_target(each)
        if verified:
            check_installed()
        weighed_by = _weighed_by(calibrate, imatrix)
        checkpoint, base = _on_disk(checkpoint), base and _on_disk(base)
        if verified:
            check_reference(checkpoint, base)
        convert_all(checkpoint, outs, base=base, weighed_by=weighed_by, say=_say_alone, progress=rewrite_line)
    for each in outs:
        click.echo(f"{shown(str(each))}: {each.stat().st_size / 1e6:.1f} MB")
    say(f"to search and answer with it: gritdesk models use {shown(str(next(iter(outs))))}")
    if verified:
        for each in outs:
            say(f"comparing {shown(str(each))} with {shown(str(checkpoint))}")
            _verify(each, checkpoint, base, None, as_json=False)


@contextmanager
def _failing_in_one_line(when_stopped: str) -> Iterator[None]:
    """What stands in the way, or Ctrl+C, as one line; the line that was rewritten is gone before anything is said."""
    from gritdesk.errors import ModelError

    try:
        with interrupted_by_signals():
            yield
    except ValueError as error:
        raise ModelError(str(error)) from error
    except KeyboardInterrupt as error:
        raise ModelError(when_stopped) from error
    finally:
        rewrite_line()


def _weighed_by(texts: Path | None, imatrix: Path | None) -> Matrix | Calibration | None:
    """What the options name, read. Raises: ValueError, ConfigError where there is nothing to read."""
    from converters.importance import read_matrix

    if texts and imatrix:
        raise click.UsageError("--calibrate measures what --imatrix brings; give one of them")
    if imatrix:
        return read_matrix(imatrix)
    return _calibration(texts) if texts else None


def _calibration(texts: Path, **extra: Any) -> Calibration:
    from converters.checkpoint import name_as_text
    from converters.importance import Calibration
    from gritdesk.calibration import calibration_texts

    return Calibration(calibration_texts(texts), name_as_text(texts.resolve()), **extra)


@click.command()
@click.argument("gguf", type=click.Path(path_type=Path))
@click.argument("texts", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--mode",
    type=click.Choice(["both", "embedding", "generation"]),
    default="both",
    show_default=True,
    help="How the texts are read: as passages to embed, as text and chats to go on with, or each way alike.",
)
def imatrix(gguf: Path, texts: Path, out: Path, mode: Any) -> None:
    """Measure on TEXTS, a folder or a file, what matters in the model GGUF; OUT is for `gritdesk convert --imatrix`.

    GGUF is best one of many bits, such as Q8_0. llama-quantize takes OUT, too.
    """
    from converters.importance import measure
    from converters.writing import check_target, replacing

    with _failing_in_one_line("stopped; nothing was written, and a file of that name is as it was"):
        check_target(out)
        if out.exists() and gguf.exists() and out.samefile(gguf):
            raise ValueError(f"{out} is the model itself; name another file to write")
        calibration = _calibration(texts, mode=mode)
        say(f"reading {len(calibration.texts)} texts of {shown(calibration.name)}")
        with replacing(out) as whole:
            measure(gguf, calibration, whole, rewrite_line)
    click.echo(f"{shown(str(out))}: {out.stat().st_size / 1e6:.1f} MB")


def _named(out: Path, quantization_type: str, all_types: tuple[str, ...]) -> Path:
    if len(all_types) > 1 and "{type}" not in out.name:
        raise click.UsageError(f"several types need {{type}} in the name of OUT, such as {out.stem}-{{type}}.gguf")
    return out.with_name(out.name.replace("{type}", quantization_type))


def _say_alone(line: str) -> None:
    """A note of its own line, in place of a line that is rewritten."""
    rewrite_line()
    say(line)


def _on_disk(checkpoint: Path) -> Path:
    """The folder of a checkpoint; what is spelled as a name on the hub, and is no path here, is fetched."""
    from gritdesk.hub import is_name

    if checkpoint.exists() or not is_name(checkpoint.as_posix()):
        return checkpoint
    from gritdesk.choosing import fetch_checkpoint
    from gritdesk.config import load_config

    say(f"{checkpoint} is no folder here; asking the hub for it")
    folder = fetch_checkpoint(load_config(), checkpoint.as_posix(), say)
    say(f"it is kept in {shown(str(folder))}; delete it when you need it no more")
    return folder


@click.command()
@click.argument("gguf", type=click.Path(path_type=Path))
@click.option(
    "--against",
    required=True,
    type=click.Path(path_type=Path),
    help="The checkpoint folder it was made from, or another GGUF of it, such as one of type F32.",
)
@_base_option
@click.option(
    "--texts", type=click.Path(path_type=Path), help="A file of texts, empty lines between them, to compare on too."
)
@json_option
def verify(gguf: Path, against: Path, base: Path | None, texts: Path | None, as_json: bool) -> None:
    """Prove that GGUF gives the tokens, embeddings and next words of the model it was made from."""
    _verify(gguf, against, base, texts, as_json)


def _verify(gguf: Path, against: Path, base: Path | None, texts: Path | None, as_json: bool) -> None:
    from converters.battery import read_texts
    from converters.verify import verify as verify_gguf

    with _failing_in_one_line("stopped before the comparison was done"):
        report = verify_gguf(gguf, against, read_texts(texts) if texts else (), base=base)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(f"{shown(report.model)} ({report.quantization_type})")
        click.echo(f"against {shown(report.against)} ({report.against_type})")
        click.echo(f"on {report.num_texts} texts of {report.num_tokens} tokens")
        for row in report.rows:
            click.secho("ok     " if row.ok else "wrong  ", fg="green" if row.ok else "red", nl=False)
            click.echo(f"{row.name:<28}{row.value:>11.6g}  {row.rule} {row.limit:<8g} {row.detail}".rstrip())
    wrong = [row.name for row in report.rows if not row.ok]
    if wrong:
        say(f"gritdesk: {len(wrong)} of {len(report.rows)} checks failed: {', '.join(wrong)}")
        sys.exit(1)
