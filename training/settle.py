"""`python -m training.settle CHECKPOINT BASE READINGS... --output FOLDER`: put back what steps of language moved.

Long runs of the next-token loss leave the pooled dimensions alone and change two habits all the same. Both are put back
in closed form, for which no gradient is needed:

    token weights   The last norm divides a token's state by its length, most of which language writes. How much a token
                    counts in a text's embedding moves with it, so pooled parts are scaled until it counts as in BASE.
    first choice    Rows of many questions have the passage asked about anywhere, the app puts the nearest first. The
                    output row of "1" gets a vector that raises its logit where an answer names its passage, and next
                    to nowhere else.

READINGS are rows of `training.reading`, BASE is the model the run began with, a folder or a GGUF made here. For Llamas
with a tied head.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from gritdesk.grit_format import EncodedFrame, chat_frame, embedding_frame, encode, query_input
from training.attention import bidirectional_mask, passage_mask
from training.checkpoint import TOKENIZER_FILES
from training.data import pad_rows
from training.examples import Chat, parse_chat, read_rows
from training.gguf_base import read_gguf
from training.model import load_model
from training.tokenizer import FrameTokenizer

SEEN_ONCE = 6.0
"""Draws of a token at which what was seen of it counts half: the rest is the mean of all."""
STEADY = 0.05
"""Share of the states' mean square that is added to each direction, so that few states do not choose rare ones."""
MAX_TOKENS = 200


@torch.no_grad()
def keep_token_weights(model: PreTrainedModel, base: PreTrainedModel, frames: Sequence[EncodedFrame]) -> float:
    """Scale the pooled part of each token embedding so that tokens count as they do in `base`.

    Args:
        frames: of texts to embed.
    Returns: standard deviation of the logarithm of the scales.
    """
    (ids_K, own_K), (_, base_K) = (_token_weights(each, frames) for each in (model, base))
    ratio_K = (base_K / own_K).log()
    ratio_K -= ratio_K.mean()
    weight_VD = model.get_input_embeddings().weight
    num_V = torch.bincount(ids_K, minlength=len(weight_VD)).float()
    scale_V = torch.zeros_like(num_V).index_add(0, ids_K, ratio_K) / (num_V + SEEN_ONCE)
    weight_VD[:, : model.config.grit["dimension"]] *= scale_V.exp()[:, None]
    return float(scale_V.std())


@torch.no_grad()
def _token_weights(model: PreTrainedModel, frames: Sequence[EncodedFrame]) -> tuple[Tensor, Tensor]:
    """(id, what the last norm multiplies its state with) of every pooled token."""
    ids, weights = [], []
    for frame in frames:
        rows = pad_rows([frame], [[0]], 0)
        last_BTD = _states(model, rows.ids_BT, bidirectional_mask(rows.mask_BT, torch.float32), before_norm=True)
        pooled_BT = rows.counts_BT.bool()
        ids.append(rows.ids_BT[pooled_BT])
        weights.append(last_BTD[pooled_BT].square().mean(dim=-1).rsqrt())
    return torch.cat(ids), torch.cat(weights)


@torch.no_grad()
def raise_first_label(
    model: PreTrainedModel, tokenizer: FrameTokenizer, chats: Sequence[Chat], shift: float
) -> tuple[float, float]:
    """Raise the logit of "1" by `shift` where an answer names its passage.

    The least change of its row, weighed by what it does elsewhere: u = shift M^-1 a / (a M^-1 a), a being the mean
    state there and M the second moment of all other states. Of the pooled dimensions nothing is used.

    Args:
        chats: whose answers name a passage.
    Returns: mean shift at the labels, and standard deviation of the shift elsewhere.
    """
    first = tokenizer.tokenize("[1] a")[1]
    labels, others = [], []
    for chat in chats:
        frame = encode(chat_frame(chat.turns, blocks=True), tokenizer, tokenizer.markers)
        rows = pad_rows([frame], [[0]], tokenizer.pad_id)
        mask = passage_mask(rows.mask_BT, rows.block_BT, torch.float32, bidirectional=True)
        state_TD = _states(model, rows.ids_BT, mask)[0]
        label = frame.counts.index(True)
        labels.append(state_TD[label])
        others.append(state_TD[[at for at, block in enumerate(frame.blocks) if not block and at != label]])
    pooled = model.config.grit["dimension"]
    label_LD, other_KD = torch.stack(labels)[:, pooled:], torch.cat(others)[:, pooled:]
    moment_DD = other_KD.T @ other_KD / len(other_KD)
    moment_DD += torch.eye(len(moment_DD)) * moment_DD.diagonal().mean() * STEADY
    mean_D = label_LD.mean(dim=0)
    change_D = torch.linalg.solve(moment_DD, mean_D)
    change_D *= shift / (mean_D @ change_D)
    model.get_input_embeddings().weight[first, pooled:] += change_D
    return float((label_LD @ change_D).mean()), float((other_KD @ change_D).std())


def _states(model: PreTrainedModel, ids_BT: Tensor, mask: Tensor, *, before_norm: bool = False) -> Tensor:
    """Last hidden states, or what the last norm is given."""
    given: list[Tensor] = []
    handle = model.model.norm.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        output = model.model(input_ids=ids_BT, attention_mask=mask, use_cache=False)
    finally:
        handle.remove()
    states: Tensor = given[0] if before_norm else output.last_hidden_state
    return states


def read_readings(paths: Sequence[Path], num: int, rng: random.Random) -> Iterator[Chat]:
    """Chats of one question that is answered, about so many of each file's first rows."""
    for path in paths:
        rows = list(itertools.islice(read_rows(path, 2000), 2000))
        for row in rng.sample(rows, min(num, len(rows))):
            answered = [each for each in row.get("questions", ()) if str(each[1]).startswith("[")]
            if answered:
                yield parse_chat({**row, "questions": [rng.choice(answered)]})


def _texts(chat: Chat) -> Iterator[tuple[str, str]]:
    """A chat's question and its passages as they are embedded."""
    documents, _, asked = chat.turns[0].text.rpartition("\n\nQuestion: ")
    yield query_input(asked.partition("\n")[0])
    yield from (("", line.partition("] ")[2]) for line in documents.splitlines() if "] " in line[:5])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.settle", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("base", type=Path, help="what the run began with: a folder, or a GGUF made here")
    parser.add_argument("readings", type=Path, nargs="+", help=".jsonl files of training.reading")
    parser.add_argument("--shift", type=float, default=2.0, help='of the logit of "1", default 2')
    parser.add_argument("--rows", type=int, default=60, help="of each file, default 60")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    try:
        if given.output.exists():
            raise ValueError(f"{given.output} is there already: name another output")
        tokenizer, model = FrameTokenizer.from_folder(given.checkpoint), load_model(given.checkpoint).eval()
        chats = list(read_readings(given.readings, given.rows, random.Random(1)))
        if not chats:
            raise ValueError("no answer of the readings names a passage: give rows of training.reading")
        frames = [
            encode(embedding_frame(*text), tokenizer, tokenizer.markers) for chat in chats for text in _texts(chat)
        ]
        cut = [EncodedFrame(frame.ids[:MAX_TOKENS], frame.counts[:MAX_TOKENS]) for frame in frames]
        with tempfile.TemporaryDirectory() as beside:
            is_gguf = given.base.suffix == ".gguf"
            base = (read_gguf(given.base, Path(beside)) if is_gguf else load_model(given.base)).eval()
        spread = keep_token_weights(model, base, cut)
        there, elsewhere = raise_first_label(model, tokenizer, chats, given.shift)
        model.save_pretrained(given.output)
        for name in TOKENIZER_FILES:
            if (given.checkpoint / name).exists():
                shutil.copy(given.checkpoint / name, given.output / name)
    except (ValueError, OSError) as error:
        print(f"settle: {error}", file=sys.stderr)
        return 1
    print(
        f'tokens are scaled by {100 * spread:.1f} %; "1" is raised by {there:.2f} at labels, elsewhere {elsewhere:.2f}',
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
