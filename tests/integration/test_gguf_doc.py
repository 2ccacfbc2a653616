"""docs/gguf.md tells of every key there is, and whoever follows it gets the engine's embeddings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import make_checkpoint, make_encoder

from converters.hf_to_gguf import convert
from gritdesk.engine.embedder import Embedder
from gritdesk.engine.llama import LlamaModel
from gritdesk.gguf_file import read_header

PAGE = (Path(__file__).parents[2] / "docs" / "gguf.md").read_text(encoding="utf-8")
TEXTS = [
    ("", "The river runs to the sea."),
    ("Find: what matters\n", "Where does the wind <|embed|> come from?</s>"),
    ("", "\n\n  a text that begins with line breaks"),
]


@pytest.fixture
def example() -> dict[str, Any]:
    """What the page's example defines."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[0], names)
    return names


def grit_keys(path: Path) -> set[str]:
    return {key for key in read_header(path).values if key.startswith("grit.")}


def test_page_lists_the_keys_of_both_kinds_of_files_and_no_others(tiny_gguf: Path, tmp_path: Path) -> None:
    convert(make_encoder(tmp_path / "encoder"), tmp_path / "encoder.gguf", "F32")
    rows = re.findall(r"^\| `(grit\..+?)` \| (\w+) \|", PAGE, flags=re.MULTILINE)
    assert grit_keys(tiny_gguf) | grit_keys(tmp_path / "encoder.gguf") == {key for key, _ in rows}
    kinds = {bool: "bool", int: "uint32", str: "string"}
    values = read_header(tiny_gguf).values
    assert {key: kinds[type(values[key])] for key, _ in rows} == dict(rows)
    missing = {"grit.markers", "grit.embedding.architecture"} | {
        f"grit.generation.{name}" for name in ("frame", "turn_separator", "passages")
    }
    assert grit_keys(tiny_gguf) - grit_keys(tmp_path / "encoder.gguf") == missing


@pytest.mark.parametrize(
    ("settings", "twin"),
    [
        ({}, "llama-embed"),
        ({"family": "mistral", "tokenizer": "sentencepiece", "tie_word_embeddings": True}, "llama-embed"),
        ({"family": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}, "llama-embed"),
        ({"family": "qwen2"}, ""),
    ],
)
def test_example_gives_the_engines_embeddings(
    tmp_path: Path, example: dict[str, Any], settings: dict[str, Any], twin: str
) -> None:
    convert(make_checkpoint(tmp_path / "checkpoint", **settings), tmp_path / "out.gguf", "F16")
    with LlamaModel(tmp_path / "out.gguf") as model:
        assert model.grit.embedding_architecture == twin
        expected = Embedder(model).embed(TEXTS)
    for text, ours in zip(TEXTS, expected, strict=True):
        assert example["embed"](str(tmp_path / "out.gguf"), *text) @ ours > 0.99999


def test_twin_of_gemma_sees_beyond_the_window_as_in_training(tmp_path: Path, example: dict[str, Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    kinds = ["full_attention", "sliding_attention"]
    folder = make_checkpoint(tmp_path / "checkpoint", "gemma3", sliding_window=8, layer_types=kinds)
    path = str(tmp_path / "out.gguf")
    convert(folder, Path(path), "F32")
    text = "The river runs to the sea, and the sea to the river, and the lamp is lit at dusk."
    ids, num_before = example["frame_tokens"](example["load"](path), "Find: what matters", text)
    assert len(ids) > 20
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    masks = dict.fromkeys(kinds, torch.zeros(1, 1, len(ids), len(ids)))  # all see all
    with torch.no_grad():
        states = reference.model(torch.tensor([ids]), attention_mask=masks).last_hidden_state[0, num_before:]
    expected = torch.nn.functional.normalize(states.mean(dim=0), dim=0).numpy()
    assert example["embed"](path, "Find: what matters", text) @ expected > 0.9999


def test_file_is_causal_to_programs_that_do_not_know_it_and_bidirectional_as_its_twin(
    tiny_gguf: Path, example: dict[str, Any]
) -> None:
    ids = list(range(20, 40))
    for architecture, sees_the_last in (("", False), ("llama-embed", True)):
        states = [_first_state(example, tiny_gguf, architecture, [*ids, last]) for last in (50, 51)]
        assert np.array_equal(*states) != sees_the_last


def _first_state(example: dict[str, Any], path: Path, architecture: str, ids: list[int]) -> NDArray[np.float32]:
    """With the attention that llama.cpp chooses by itself."""
    llama_cpp = example["llama_cpp"]
    model = example["load"](str(path), architecture)
    params = llama_cpp.llama_context_default_params()
    params.embeddings = True
    context = llama_cpp.llama_init_from_model(model, params)
    array = (llama_cpp.llama_token * len(ids))(*ids)
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(ids))) == 0
    state = np.ctypeslib.as_array(llama_cpp.llama_get_embeddings(context), (256,)).copy()
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return state
