"""A checkpoint under comparison, computed by transformers in float32: the plain formula.

Of the conversion only names and layout of single weights are used, and special ids: what the model computes is
transformers' own reading of the folder, and token ids are those of the checkpoint's tokenizer. torch is imported here
alone, and this file only in the child that compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForCausalLM
from transformers.utils import logging

from converters.adapter import MergedCheckpoint
from converters.plan import read_plan
from converters.tokenizer_check import reference_tokenizer
from converters.writing import load
from gritdesk.grit_format import BOS, EOS


class CheckpointReader:
    """A converters.comparison.Reader of a checkpoint folder."""

    def __init__(self, folder: Path, base: Path | None = None) -> None:
        """Arguments as of hf_to_gguf.convert. Raises: ValueError if the converter would refuse it, or transformers."""
        plan = read_plan(folder, base)
        self.name = str(folder)
        self.quantization_type = plan.source.dtype
        self.n_vocab = len(plan.vocab.tokens)
        self._source, self._specs = plan.source, {spec.target: spec for spec in plan.specs}
        self.pre = plan.vocab.table.pre
        tokenize = reference_tokenizer(plan.source.tokenizer_folder)
        if tokenize is None:
            raise ValueError(f'{folder}: no installed library reads its tokenizer; pip install "gritdesk[train]"')
        self.tokenize = tokenize
        self._id_of = {token: number for number, token in enumerate(plan.vocab.tokens)}
        self._id_of |= {BOS: plan.vocab.special_ids["bos"], EOS: plan.vocab.special_ids["eos"]}
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self.grit = plan.grit
        kind = AutoModelForCausalLM if self.grit.generates else AutoModel
        self._model: Any = _loaded(plan.source.folder, kind).eval()
        if isinstance(plan.source, MergedCheckpoint):
            self._model = _adapted(self._model, plan.source)
        self.max_tokens = int(getattr(self._model.config, "max_position_embeddings", 1 << 30))
        self.max_embedded_tokens = self.max_tokens

    def control_id(self, token: str) -> int:
        """See grit_format.FrameTokenizer."""
        return self._id_of[token]

    def hidden_states(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See Reader."""
        with torch.no_grad():
            attention = {} if self.grit.is_encoder else {"is_causal": False, "use_cache": False}  # an encoder's is full
            states = self._model.base_model(torch.tensor([ids]), **attention).last_hidden_state
        found: NDArray[np.float32] = states[0].numpy()
        return found

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See Reader."""
        with torch.no_grad():
            found: NDArray[np.float32] = self._model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
        return found

    def types(self) -> dict[str, str]:
        """See converters.weights.Weights."""
        return dict.fromkeys(self._specs, "F32")

    def weight(self, name: str) -> NDArray[np.float32]:
        """As the converter lays it out: what of that is wrong shows in what the models compute."""
        spec = self._specs[name]
        if spec.values is not None:
            return spec.values
        return np.concatenate([load(self._source, source, spec) for source in spec.sources])  # experts in their order


def _loaded(folder: Path, kind: Any) -> Any:
    try:
        # eager: other kernels read masks their own way in some versions
        return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"transformers cannot load {folder}: {reason}") from error


def _adapted(model: Any, source: MergedCheckpoint) -> Any:
    """The base with the adapter in it, as peft reads and merges it."""
    from peft import PeftModel

    if (rows := source.config.get("vocab_size")) not in (None, model.config.vocab_size):
        model.resize_token_embeddings(rows)
    try:
        merged = PeftModel.from_pretrained(model, str(source.adapter.folder)).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"peft cannot load {source.adapter.folder}: {str(error).strip().splitlines()[0]}") from error
    return merged.eval()
