"""One file per family of checkpoints; `find` picks by config.json."""

from __future__ import annotations

from typing import Any

from converters.architectures.base import Architecture
from converters.architectures.bert import Bert, XlmRoberta
from converters.architectures.gemma2 import Gemma2
from converters.architectures.gemma3 import Gemma3
from converters.architectures.llama import Llama
from converters.architectures.mistral import Mistral
from converters.architectures.mixtral import Mixtral
from converters.architectures.phi3 import Phi3
from converters.architectures.qwen2 import Qwen2
from converters.architectures.qwen3 import Qwen3

DECODERS: tuple[type[Architecture], ...] = (Llama, Mistral, Mixtral, Qwen2, Qwen3, Gemma2, Gemma3, Phi3)
ENCODERS: tuple[type[Architecture], ...] = (Bert, XlmRoberta)
FAMILIES = (*DECODERS, *ENCODERS)
_NO_GRAPH = "llama.cpp has no such model"
REFUSED = {
    "T5EncoderModel": "Instructor, GTR and Sentence-T5 end in a Dense layer, which llama.cpp does not compute",
    "MPNetModel": _NO_GRAPH,
    "MPNetForMaskedLM": _NO_GRAPH,
    "DebertaV2Model": _NO_GRAPH,
    "GPTJForCausalLM": _NO_GRAPH,  # it knows the name, of files from before GGUF, and nothing to compute
    "GPTJModel": _NO_GRAPH,
}
"""What people may well try, and why it is in vain."""
ARCHITECTURES = {kind.hf_class: kind for kind in FAMILIES}
BODIES = {kind.hf_class.replace("ForCausalLM", "TextModel" if kind is Gemma3 else "Model"): kind for kind in DECODERS}
"""Decoders that were saved without their output matrix, as training for embeddings alone leaves them."""


def find(config: dict[str, Any]) -> Architecture:
    """The architecture of a checkpoint.

    Raises: ValueError that names what was found and what is known.
    """
    names = config.get("architectures") or []
    if not isinstance(names, list):
        raise ValueError(f"config.json: architectures must be a list of names, found {names!r}")
    for name in names:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]()
        if name in BODIES:
            return BODIES[name](has_head=False)
    found = ", ".join(map(str, names)) or "none"
    reason = next((f" ({REFUSED[name]})" for name in names if name in REFUSED), "")
    raise ValueError(
        f"config.json: architecture {found} cannot be converted{reason}; known: {', '.join(ARCHITECTURES)}"
    )
