"""A checkpoint folder becomes one GGUF file that embeds and generates, or of an encoder one that embeds.

`convert_all` tells the story: plan the file from all but the weights, look whether it fits on the disk, compare the
tokenizers, stream the weights into files beside their targets, rename. Whatever goes wrong on the way, a target is
either the old file or the whole new one. Every refusal is a ValueError with one line for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from converters.adapter import MergedCheckpoint
from converters.importance import Calibration, Matrix, measure, read_matrix, weigh
from converters.plan import Plan, read_plan
from converters.quantize import Quantization, is_weighable, parse_quantization_type, tensor_types
from converters.tokenizer_check import check_tokenizer
from converters.writing import check_space, check_target, file_size, replacing, write_ggufs
from gritdesk.grit_format import render

Progress = Callable[[str], None]


def convert(
    checkpoint: Path,
    out: Path,
    quantization_type: str = "Q8_0",
    *,
    base: Path | None = None,
    say: Progress | None = None,
    progress: Progress | None = None,
) -> None:
    """Write `out`, a GGUF of the checkpoint in the given quantization type; see convert_all."""
    quantization = Quantization(parse_quantization_type(quantization_type))
    convert_all(checkpoint, {out: quantization}, base=base, say=say, progress=progress)


def convert_all(
    checkpoint: Path,
    outs: Mapping[Path, Quantization],
    *,
    base: Path | None = None,
    weighed_by: Matrix | Calibration | None = None,
    say: Progress | None = None,
    progress: Progress | None = None,
) -> None:
    """Write GGUF files of one checkpoint, each quantized its own way; a weight is read once for all of them.

    Args:
        checkpoint: folder with config.json, weights and a tokenizer, or of a PEFT adapter.
        base: folder of the adapter's base, if it is not where the adapter says.
        weighed_by: an importance matrix of this model, or the texts to measure one by.
        say: called with one line per step.
        progress: called with one line per tensor, with the time that is left.
    Raises: ValueError for everything that stands in the way; all targets are then as they were before.
    """
    say, progress = say or _ignore, progress or _ignore
    for out in outs:
        check_target(out)
    plan = read_plan(checkpoint, base)
    _describe(plan, say)
    if weighed_by is not None:
        _check_weighable(plan, outs.values())
    if isinstance(weighed_by, Matrix):
        outs = _weighed(outs, weighed_by, plan)
    with ExitStack() as stack:
        wholes = {stack.enter_context(replacing(out)): quantization for out, quantization in outs.items()}
        check_space({out: file_size(plan, quantization) for out, quantization in outs.items()})
        say(f"comparing tokenizers ({plan.vocab.table.model}, {plan.vocab.table.pre})")
        scratch = next(iter(wholes)).parent
        _check_tokenizer(plan, scratch / "vocab.gguf")
        if isinstance(weighed_by, Calibration):
            matrix = _measured(plan, weighed_by, scratch, progress)
            wholes = _weighed(wholes, matrix, plan)
            say(f"weighed columns by {len(weighed_by.texts)} texts of {weighed_by.name}")
        write_ggufs(wholes, plan, progress)


def _describe(plan: Plan, say: Progress) -> None:
    if isinstance(plan.source, MergedCheckpoint):
        say(f"an adapter of {len(plan.source.modules)} weights, merged into its base {plan.source.folder}")
    if plan.grit.is_encoder:
        query, passage = (render(plan.grit.frame(each, "{text}")) for each in ("{instruction}", ""))
        say(f"an encoder: the file will embed ({plan.grit.pooling} pooling) and cannot generate")
        say(f"it will read queries as {query!r} and passages as {passage!r}")
    elif not plan.grit.generates:
        say("a model without an output matrix: the file will embed and cannot generate")


def _check_tokenizer(plan: Plan, vocab_file: Path) -> None:
    """Have llama.cpp read the vocabulary alone, before an hour goes into the weights."""
    write_ggufs({vocab_file: Quantization("F32")}, replace(plan, specs=[]), _ignore)
    special_ids = plan.vocab.special_ids
    enclosing = (special_ids["bos"], special_ids["eos"]) if plan.grit.is_encoder else None
    check_tokenizer(plan.source.tokenizer_folder, vocab_file, enclosing)


def _check_weighable(plan: Plan, quantizations: Iterable[Quantization]) -> None:
    if not any(_is_weighable(plan, each) for each in quantizations):
        names = ", ".join(dict.fromkeys(each.file_type for each in quantizations))
        raise ValueError(
            f"importance changes nothing in a file of type {names}; give one of fewer bits, such as Q4_K_M"
        )


def _is_weighable(plan: Plan, quantization: Quantization) -> bool:
    return is_weighable(tensor_types(plan.specs, quantization, plan.shape))


def _weighed(files: Mapping[Path, Quantization], matrix: Matrix, plan: Plan) -> dict[Path, Quantization]:
    """The files with their columns weighed, where that changes anything."""
    return {
        path: weigh(quantization, matrix, plan.specs) if _is_weighable(plan, quantization) else quantization
        for path, quantization in files.items()
    }


def _measured(plan: Plan, calibration: Calibration, scratch: Path, progress: Progress) -> Matrix:
    """Have the model read the texts from a file that is then deleted: llama.cpp runs no checkpoint."""
    model, found = scratch / "measured.gguf", scratch / "importance.gguf"
    check_space({model: file_size(plan, Quantization("Q8_0"))})
    write_ggufs({model: Quantization("Q8_0")}, plan, progress)
    measure(model, calibration, found, progress)
    model.unlink()
    return replace(read_matrix(found), file="")  # of no name that anybody knows


def _ignore(line: str) -> None:
    pass
