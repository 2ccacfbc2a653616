"""`python -m training.train training/recipes/NAME.toml --data DIR`: one recipe, one checkpoint.

Read top to bottom: load the data, make or resume the model, step, save. The same command continues a run that
was stopped, with the same curve: batches and dropout depend on seed and step alone. What a recipe may change of a run
stands in training/resuming.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from gritdesk.grit_format import BOS
from training import checkpoint
from training.adapters import add_adapters, check_installed, load_adapted, loading
from training.config import TrainConfig, read_json, read_recipe
from training.data import Batches, tokenizer_sample
from training.distributed import Ranks, shard
from training.examples import Sources, read_sources
from training.gguf_base import read_gguf
from training.model import (
    PROJECTION_FILE,
    GritModel,
    grit_model,
    last_norm_scale,
    load_model,
    new_model,
    place_token_embeddings,
    quiet_loading,
    record_use,
    take_base_model,
    teacher_token_embeddings,
)
from training.prefetch import each_step
from training.progress import Progress
from training.quantization import quantized_weights
from training.resuming import changes
from training.static_embeddings import fit_static_embeddings, start_dimension
from training.steps import grit_step
from training.teach import load_teacher
from training.tokenizer import FrameTokenizer, save_tokenizer, train_tokenizer


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__.split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", help="folder with pairs/, chat/ and text/")
    parser.add_argument("--output", help="checkpoint folder; an unfinished run in it is continued")
    parser.add_argument("--max-steps", type=int)
    given = parser.parse_args(arguments)
    quiet_loading()
    try:
        config = read_recipe(given.recipe, data_dir=given.data, output_dir=given.output, max_steps=given.max_steps)
        train(config)
    except ValueError as error:
        print(f"training: {error}", file=sys.stderr)
        return 1
    return 0


def train(config: TrainConfig) -> Path:
    """Run the recipe to its last step; returns the checkpoint folder.

    Raises: ValueError if data or settings cannot be used, or a loss stops being finite.
    """
    torch.set_num_threads(config.num_threads)
    ranks = Ranks.from_environment()
    refuse(config, ranks)
    config.check_files()
    folder = Path(config.output_dir)
    sources = read_sources(config)
    if ranks.is_first:
        prepare(folder, sources, config)
    ranks.wait()
    tokenizer = FrameTokenizer.from_folder(folder)
    # a float32 file is mapped, not read: the ranks of a machine share its pages, and `shard` copies each one's part
    model = load_adapted(config) if config.lora_rank else load_model(folder)
    if config.lora_rank:
        checkpoint.load_adapters(folder, model)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable()
    if config.compile_layers:
        # queries, passages and rows of chats times the layers; beyond the limit PyTorch silently compiles no more
        torch.compiler.config.recompile_limit = 8 * len(model.model.layers)
        for layer in model.model.layers:
            # in place: the checkpoint's names stay; batches differ in length
            layer.forward = torch.compile(layer.forward, dynamic=True)
    teacher = load_teacher(config) if config.teacher else None
    torch.manual_seed(config.seed)  # of the heads, alike on all ranks
    grit = grit_model(model, config, teacher.dimension if teacher and config.distillation_weight else 0).train()
    check_model(grit, config, ranks)
    shard(grit, model.model.layers, ranks)  # before any of it goes to a GPU, which may not hold all
    grit.to(ranks.device)
    optimizers = make_optimizers(grit, config)
    resumed = load_state(folder, optimizers, grit)

    batches = Batches(sources, tokenizer, config, ranks, teacher.embed if teacher else None)
    with Progress(config, folder, resumed.step, ranks, resumed.recent) as progress:
        clock = Clock(config.max_seconds)
        for step, (embedding, generation) in each_step(batches, resumed.step, config):
            torch.manual_seed(config.seed + step * ranks.size + ranks.rank)  # dropout, too, depends on the step alone
            temperature = temperature_at(step, config)
            with weights_as_they_will_be(model, step, config):
                losses = grit_step(grit, embedding, generation, config, temperature, ranks)
            clip_gradient(grit, step, config)
            rate = learning_rate_factor(step, config, clock.left)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * rate
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            progress.stepped(step, losses, rate, sources.dropped())
            is_last = step + 1 == config.max_steps or ranks.max(clock.left == 0)
            if (step + 1) % config.save_every_steps == 0 or is_last:
                checkpoint.save(folder, model, optimizers, step + 1, config, ranks, progress.recent, heads=grit.heads())
            if is_last:
                break
    if ranks.is_first:  # all of them draw alike
        for name, num in sorted(sources.dropped().items()):
            print(f"dropped {num} draws of {name}", file=sys.stderr)
    ranks.leave()
    return folder


def refuse(config: TrainConfig, ranks: Ranks) -> None:
    """Raises: ValueError if so many processes, or what is installed, cannot run this recipe."""
    check_installed(config)
    if ranks.size > 1 and config.quantized_base:
        raise ValueError(f"quantized_base is for one process, found {ranks.size}: spread the base out unquantized")
    if not config.base_model:
        check_pooled(
            config.model.embedding_dimension or config.model.hidden_size, config.model.hidden_size, config, ranks
        )


def check_pooled(pooled_dimension: int, hidden_size: int, config: TrainConfig, ranks: Ranks) -> None:
    """Raises: ValueError if the next-token gradient cannot be kept from a part of the dimensions."""
    if config.generates and pooled_dimension < hidden_size and (ranks.size > 1 or config.lora_rank):
        raise ValueError(
            f"a model that pools {pooled_dimension} of its {hidden_size} dimensions is trained whole and by one "
            f"process, found {ranks.size} and lora_rank {config.lora_rank}"
        )


def check_model(grit: GritModel, config: TrainConfig, ranks: Ranks) -> None:
    """Raises: ValueError if the recipe asks of the loaded model what it cannot do."""
    config.check_matryoshka(grit.embedding_dimension)
    model = grit.decoder.config
    check_pooled(grit.pooled_dimension, model.hidden_size, config, ranks)
    window = getattr(model, "sliding_window", None)
    if window and window < config.sequence_tokens and (config.pack_generation or config.passages != "plain"):
        raise ValueError(
            f"the model's attention has a window of {window} tokens, which rows of several sequences or passages have "
            f"not: set sequence_tokens to {window} or less, or pack_generation off and passages to plain"
        )
    if config.optimizer == "muon" and any(weight.ndim > 2 for weight in grit.decoder.model.layers.parameters()):
        raise ValueError('experts are trained with optimizer = "adamw": muon knows matrices alone')


def prepare(folder: Path, sources: Sources, config: TrainConfig) -> None:
    """Put a tokenizer and a model at step 0 into the folder, or find them there: every start continues a run."""
    torch.manual_seed(config.seed)
    checkpoint.recover(folder)
    if (folder / "config.json").exists():
        check_same_run(folder, config)
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds something else than a checkpoint: name another output")
    start = checkpoint.start_folder(folder)
    try:
        if config.base_model.endswith(".gguf"):
            model = read_gguf(Path(config.base_model), start)
        elif config.base_model:
            model = take_base_model(config.base_model, start, **loading(config))
            if config.lora_rank:
                add_adapters(model, config)
        else:
            sample = tokenizer_sample(sources, config.tokenizer_sample_mb, config.seed)
            save_tokenizer(train_tokenizer(sample, config.model.vocab_size), start, config.model.context_length)
            tokenizer = FrameTokenizer.from_folder(start)
            model = new_model(config.model, tokenizer.control_id(BOS), tokenizer.eos_id, tokenizer.pad_id)
            start_token_embeddings(model, sources, tokenizer, config)
        record_use(model, config)
        torch.manual_seed(config.seed)
        grit = grit_model(model, config)
        config.check_matryoshka(grit.embedding_dimension)
        if config.base_model:
            take_projection(config, grit.heads())
        checkpoint.save(folder, model, [], 0, config, tokenizer=start, heads=grit.heads())
    finally:
        checkpoint.recover(folder)


@torch.no_grad()
def take_projection(config: TrainConfig, heads: Mapping[str, Tensor]) -> None:
    """Go on with the projection head of the base model, if it has one.

    Raises: ValueError if the recipe would lose it.
    """
    path = Path(config.base_model) / PROJECTION_FILE
    if not path.exists():
        return
    weight = load_file(path)["weight"]
    if "projection" not in heads or heads["projection"].shape != weight.shape:
        raise ValueError(
            f"{config.base_model} has a projection head of {len(weight)} dimensions: set projection_dimension to it"
        )
    heads["projection"].copy_(weight)


def check_same_run(folder: Path, config: TrainConfig) -> None:
    """Say on stderr what the recipe changes of a run's curve.

    Raises: ValueError if the folder is no run's, or one whose checkpoint the recipe would make another.
    """
    if not (folder / checkpoint.STATE_FILE).exists():
        raise ValueError(f"{folder} is no run to continue: name another output, or train it on as base_model")
    fixed, of_curve = changes(read_json(folder / "training_config.json"), config)
    if fixed:
        raise ValueError(
            f"{folder} cannot go on with {', '.join(fixed)}: name another output, or train it on as base_model"
        )
    if of_curve:
        print(f"the run goes on with other settings: {', '.join(of_curve)}", file=sys.stderr)


def load_state(folder: Path, optimizers: list[torch.optim.Optimizer], grit: GritModel) -> checkpoint.Resumed:
    """As `checkpoint.load_state`, with the recipe's rates, decay and betas instead of those that were saved."""
    own = [
        [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
        for optimizer in optimizers
    ]
    resumed = checkpoint.load_state(folder, optimizers, grit.heads())
    for optimizer, settings in zip(optimizers, own, strict=True):
        for group, each in zip(optimizer.param_groups, settings, strict=True):
            group.update(each)
    return resumed


def start_token_embeddings(
    model: PreTrainedModel, sources: Sources, tokenizer: FrameTokenizer, config: TrainConfig
) -> None:
    """Teacher's vectors, fitted as a bag of tokens, put into the model: each only if the recipe asks for it."""
    vectors_VK = None
    if config.token_embeddings_from:
        vectors_VK = teacher_token_embeddings(tokenizer, config.token_embeddings_from, start_dimension(config))
    if config.static_steps:
        vectors_VK = fit_static_embeddings(vectors_VK, sources.pairs, tokenizer, config)
    if vectors_VK is not None:
        place_token_embeddings(model, vectors_VK)


def clip_gradient(grit: GritModel, step: int, config: TrainConfig) -> None:
    """Raises: ValueError if the gradient is not finite, before a weight has it."""
    norm = torch.nn.utils.clip_grad_norm_(grit.parameters(), config.clip_norm)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    if not bool(torch.isfinite(norm)):
        raise ValueError(
            f"the gradient of step {step + 1} is {norm.item()}: the checkpoint is as it was; lower the learning rate"
        )


def weights_as_they_will_be(model: PreTrainedModel, step: int, config: TrainConfig) -> AbstractContextManager[None]:
    """The quantized weights in the last steps of a run that finishes quantization-aware; else the exact ones."""
    if step < config.max_steps - config.quantization_aware_steps:
        return nullcontext()
    return quantized_weights(model.parameters(), config.quantization_aware_type)


def make_optimizers(grit: GritModel, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW; or Muon for the hidden matrices (about twice the progress per token) and AdamW for the rest."""
    model = grit.decoder
    if config.optimizer == "adamw":
        betas = (0.9, config.adam_beta2)
        trained = [parameter for parameter in grit.parameters() if parameter.requires_grad]
        plain = torch.optim.AdamW(trained, lr=config.learning_rate, betas=betas, weight_decay=config.weight_decay)
        plain.param_groups[0]["initial_lr"] = config.learning_rate
        return [plain]
    embeddings = [model.get_input_embeddings().weight]  # and the head's, where it is tied
    last_norm = model.model.norm.weight
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    apart = {id(p) for p in [*embeddings, *matrices, last_norm]}
    rest = [p for p in grit.parameters() if id(p) not in apart]
    muon = torch.optim.Muon(
        matrices, lr=config.muon_lr, weight_decay=config.muon_weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(
        [
            {"params": embeddings, "lr": config.embedding_lr},
            {"params": rest, "lr": config.head_lr},
            # AdamW's steps are as large as the rate, whatever the size of what they change
            {"params": [last_norm], "lr": config.head_lr * last_norm_scale(model)},
        ],
        betas=(0.9, config.adam_beta2),
        weight_decay=config.weight_decay,
    )
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return [muon, adamw]


class Clock:
    """How much of a run's time is left; it starts when it is made."""

    def __init__(self, max_seconds: int) -> None:
        self._max_seconds = max_seconds
        self._start = time.monotonic()

    @property
    def left(self) -> float:
        """Share, from 1 to 0; always 1 without a limit."""
        if not self._max_seconds:
            return 1.0
        return max(1.0 - (time.monotonic() - self._start) / self._max_seconds, 0.0)


def learning_rate_factor(step: int, config: TrainConfig, time_left: float = 1.0) -> float:
    """Share of the full rate at a step: linear warm-up, constant, linear decay to zero at the end.

    Args:
        time_left: share of max_seconds; the rate is at zero by whichever end comes first.
    """
    warm = (step + 1) / max(config.warmup_steps, 1)
    # a decay over all steps begins where the warm-up ends, as everywhere: or the full rate would never be reached
    decay_steps = max(min(config.max_steps * config.decay_fraction, config.max_steps - config.warmup_steps), 1)
    by_clock = time_left / config.decay_fraction if config.max_seconds and config.decay_fraction else 1.0
    return max(min(warm, 1.0, (config.max_steps - step) / decay_steps, by_clock), 0.0)


def temperature_at(step: int, config: TrainConfig) -> float:
    """Contrastive temperature of a step: geometric from its start to its final value."""
    done = min(step / max(config.temperature_steps, 1), 1.0)
    start, end = config.contrastive_temperature_start, config.contrastive_temperature
    return float(start * (end / start) ** done)


if __name__ == "__main__":
    sys.exit(main())
