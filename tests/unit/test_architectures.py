"""What config.json says becomes GGUF keys and a list of tensors; what it asks for beyond is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters import architectures
from converters.architectures.base import permute

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "rope_theta": 500000.0,
}

YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
GEMMA2: dict[str, Any] = {"architectures": ["Gemma2ForCausalLM"], "head_dim": 16, "query_pre_attn_scalar": 16}
GEMMA2 |= {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}
GEMMA3 = {**GEMMA2, "architectures": ["Gemma3ForCausalLM"]}
PHI3: dict[str, Any] = {"architectures": ["Phi3ForCausalLM"], "max_position_embeddings": 16384}
LONGROPE: dict[str, Any] = {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


def fields(**changes: Any) -> dict[str, Any]:
    config = {**CONFIG, **changes}
    architecture = architectures.find(config)
    return dict(architecture.fields(architecture.hyperparameters(config)))


def tensor_names(**changes: Any) -> set[str]:
    config = {**CONFIG, **changes}
    architecture = architectures.find(config)
    return {spec.target for spec in architecture.tensors(architecture.hyperparameters(config))}


def test_keys_are_those_llama_cpp_reads() -> None:
    assert {key: value for key, value in fields().items() if key.startswith("llama.")} == {
        "llama.block_count": 3,
        "llama.context_length": 2048,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 500000.0,
        "llama.vocab_size": 100,
    }


def test_embedding_twin_has_the_same_keys_and_attends_both_ways() -> None:
    for changes in ({}, {"rope_scaling": YARN}, {"architectures": ["MixtralForCausalLM"]}):
        found = fields(**changes)
        twin = {key.removeprefix("llama-embed."): found[key] for key in found if key.startswith("llama-embed.")}
        own = {key.removeprefix("llama."): found[key] for key in found if key.startswith("llama.")}
        assert twin == own | {"attention.causal": False}
    assert not any("-embed" in key for key in fields(architectures=["Qwen2ForCausalLM"]))


def test_embedding_twin_of_gemma_sees_the_whole_text_in_windowed_layers() -> None:
    found = fields(**GEMMA3, sliding_window=512, num_hidden_layers=6)
    assert found["gemma3.attention.sliding_window"] == 512
    assert found["gemma-embedding.attention.sliding_window"] == 2 * 2048  # half of it to each side
    # llama.cpp scales the largest model otherwise, and has no twin without layers of both kinds
    for changes in ({"num_hidden_layers": 62}, {"num_hidden_layers": 5}, {"layer_types": ["full_attention"] * 3}):
        assert not any(key.startswith("gemma-embedding.") for key in fields(**{**GEMMA3, **changes}))


def test_rope_theta_is_found_where_transformers_4_and_5_keep_it() -> None:
    four = {"rope_theta": 20000.0}
    five = {"rope_theta": None, "rope_parameters": {"rope_theta": 20000.0, "rope_type": "default"}}
    assert fields(**four)["llama.rope.freq_base"] == fields(**five)["llama.rope.freq_base"] == 20000.0
    assert fields(rope_theta=None)["llama.rope.freq_base"] == 10000.0


def test_heads_may_be_wider_than_their_share_of_the_hidden_size() -> None:
    assert fields(head_dim=32)["llama.attention.key_length"] == 32
    assert fields(architectures=["Qwen3ForCausalLM"])["qwen3.attention.key_length"] == 128


def test_as_many_key_heads_as_heads_where_the_config_names_none() -> None:
    assert fields(num_key_value_heads=None)["llama.attention.head_count_kv"] == 4


def test_context_ends_where_a_sliding_window_would_begin_to_matter() -> None:
    mistral, qwen2 = {"architectures": ["MistralForCausalLM"]}, {"architectures": ["Qwen2ForCausalLM"]}
    assert fields(**mistral, sliding_window=512)["llama.context_length"] == 512
    assert fields(**mistral, sliding_window=None)["llama.context_length"] == 2048
    assert fields(**qwen2, sliding_window=512, use_sliding_window=False)["qwen2.context_length"] == 2048
    assert fields(**qwen2, sliding_window=512, use_sliding_window=True)["qwen2.context_length"] == 512


def test_linear_scaling_is_written_and_llama3_scaling_becomes_a_tensor() -> None:
    scaled = fields(rope_scaling={"type": "linear", "factor": 4})
    assert (scaled["llama.rope.scaling.type"], scaled["llama.rope.scaling.factor"]) == ("linear", 4.0)
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert "rope_freqs.weight" in tensor_names(rope_scaling=llama3)
    assert "rope_freqs.weight" not in tensor_names()


def test_yarn_scaling_is_written_with_what_attention_is_to_grow_beyond_llama_cpps_own() -> None:
    scaled = fields(rope_scaling=YARN)
    assert scaled["llama.rope.scaling.type"] == "yarn"
    assert scaled["llama.rope.scaling.factor"] == 4.0
    assert scaled["llama.rope.scaling.original_context_length"] == 512
    assert "llama.rope.scaling.attn_factor" not in scaled
    own = 1 + 0.1 * np.log(4)
    stated = fields(rope_scaling={**YARN, "attention_factor": 1.5})
    assert stated["llama.rope.scaling.attn_factor"] == pytest.approx(1.5 / own)
    divided = fields(rope_scaling={**YARN, "mscale": 2.0, "mscale_all_dim": 0.5})
    growth = (1 + 0.2 * np.log(4)) / (1 + 0.05 * np.log(4))
    assert divided["llama.rope.scaling.attn_factor"] == pytest.approx(growth / own)


def test_tied_model_has_no_output_matrix() -> None:
    assert "output.weight" in tensor_names()
    assert "output.weight" not in tensor_names(tie_word_embeddings=True)


def test_families_differ_in_biases_and_norms() -> None:
    qwen2, qwen3 = ({"architectures": [name]} for name in ("Qwen2ForCausalLM", "Qwen3ForCausalLM"))
    assert "blk.2.attn_k.bias" in tensor_names(**qwen2) and "blk.2.attn_k.bias" not in tensor_names()
    assert "blk.0.attn_q_norm.weight" in tensor_names(**qwen3) - tensor_names(**qwen2)
    assert "blk.0.attn_q.bias" not in tensor_names(**qwen3)
    assert {"blk.0.attn_q.bias", "blk.0.attn_output.bias"} <= tensor_names(attention_bias=True)


def test_experts_matrices_of_one_kind_become_one_tensor() -> None:
    mixtral = {"architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 3}
    assert fields(**mixtral)["llama.expert_count"] == 4
    assert fields(**mixtral)["llama.expert_used_count"] == 3
    assert fields(architectures=["MixtralForCausalLM"])["llama.expert_count"] == 8
    names = tensor_names(**mixtral)
    assert "blk.2.ffn_gate.weight" in tensor_names() - names
    assert {f"blk.2.ffn_{kind}.weight" for kind in ("gate_inp", "gate_exps", "down_exps", "up_exps")} < names


def test_gemma_is_written_with_its_window_and_caps() -> None:
    gemma2 = fields(**GEMMA2, sliding_window=128)
    assert gemma2["gemma2.attention.sliding_window"] == 128
    assert gemma2["gemma2.attn_logit_softcapping"] == 50.0
    assert gemma2["gemma2.final_logit_softcapping"] == 30.0
    assert "gemma2.attention.sliding_window_pattern" not in gemma2
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    assert fields(**GEMMA2, layer_types=kinds)["gemma2.attention.sliding_window_pattern"] == [False, True, True]
    assert not [key for key in fields(**GEMMA3) if "softcapping" in key]
    assert "output.weight" not in tensor_names(**GEMMA2)


def test_gemma3_rotates_by_two_bases_wherever_they_are_kept() -> None:
    four = {"rope_theta": 5e5, "rope_local_base_freq": 5e3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    whole = {"rope_theta": 5e5, "rope_type": "linear", "factor": 8.0}
    five = {
        "rope_theta": None,
        "rope_parameters": {"full_attention": whole, "sliding_attention": {"rope_theta": 5e3}},
    }
    assert fields(**{**GEMMA3, **four}) == fields(**{**GEMMA3, **five})
    found = fields(**{**GEMMA3, **four})
    assert (found["gemma3.rope.freq_base"], found["gemma3.rope.freq_base_swa"]) == (5e5, 5e3)
    assert found["gemma3.rope.scaling.factor"] == 8.0
    assert fields(**{**GEMMA3, "rope_theta": None})["gemma3.rope.freq_base"] == 1e6


def test_gemmas_norms_hold_what_is_beyond_one() -> None:
    for config in (GEMMA2, GEMMA3):
        architecture = architectures.find(config)
        specs = list(architecture.tensors(architecture.hyperparameters({**CONFIG, **config})))
        assert {spec.added for spec in specs if "norm" in spec.target} == {1.0}
        assert {spec.added for spec in specs if "norm" not in spec.target} == {0.0}
        sources = {spec.target: spec.source for spec in specs}
        assert sources["blk.0.ffn_norm.weight"] == "model.layers.0.pre_feedforward_layernorm.weight"
        assert sources["blk.0.post_attention_norm.weight"] == "model.layers.0.post_attention_layernorm.weight"


def test_phi3_keeps_its_fused_matrices() -> None:
    found = tensor_names(**PHI3)
    assert {"blk.0.attn_qkv.weight", "blk.0.ffn_up.weight"} < found
    assert not {"blk.0.attn_q.weight", "blk.0.ffn_gate.weight", "rope_factors_long.weight"} & found
    assert fields(**PHI3)["phi3.context_length"] == 16384
    assert fields(**PHI3, sliding_window=2047)["phi3.context_length"] == 2047
    assert fields(**PHI3, partial_rotary_factor=0.75)["phi3.rope.dimension_count"] == 12


@pytest.mark.parametrize("name", ["longrope", "su", "yarn"])
def test_phi3_ends_where_its_frequencies_would_change(name: str) -> None:
    scaled = {**PHI3, "rope_scaling": {**LONGROPE, "type": name}}
    assert fields(**scaled)["phi3.context_length"] == 4096
    assert fields(**scaled)["phi3.rope.scaling.original_context_length"] == 4096
    growth = np.sqrt(1 + np.log(4) / np.log(4096))
    assert fields(**scaled)["phi3.rope.scaling.attn_factor"] == pytest.approx(growth)
    architecture = architectures.find(config := {**CONFIG, **scaled})
    specs = {spec.target: spec for spec in architecture.tensors(architecture.hyperparameters(config))}
    for kind in ("long", "short"):  # whatever the size of a context
        np.testing.assert_array_equal(specs[f"rope_factors_{kind}.weight"].values, LONGROPE["short_factor"])


def test_permute_turns_halves_into_neighbours_within_each_head() -> None:
    rows = np.arange(8, dtype=np.float32)  # two heads of x0 x1 y0 y1
    np.testing.assert_array_equal(permute(rows, 2), [0, 2, 1, 3, 4, 6, 5, 7])
    matrix = np.stack([rows, rows + 100], axis=1)
    np.testing.assert_array_equal(permute(matrix, 2)[:, 1], permute(rows, 2) + 100)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel cannot be converted; known: LlamaForCausalLM"),
        ({"architectures": None}, "architecture none"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"hidden_size": 65}, "no multiple of num_attention_heads"),
        ({"num_key_value_heads": 3}, "no multiple of num_key_value_heads"),
        ({"num_hidden_layers": None}, "num_hidden_layers must be a positive whole number, found None"),
        ({"vocab_size": "100"}, "vocab_size must be a positive whole number"),
        ({"intermediate_size": -1}, "intermediate_size must be"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn rope scaling lacks 'original_max_position_emb"),
        ({"rope_scaling": {**YARN, "beta_fast": 64}}, "beta_fast is 64, llama.cpp computes yarn rope scaling with 32"),
        ({"rope_scaling": {**YARN, "truncate": False}}, "truncate is False"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope scaling 'dynamic'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": {"rope_type": "linear"}}, "linear rope scaling lacks 'factor'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "llama3 rope scaling lacks 'low_freq_factor'"),
        ({"architectures": ["Qwen3ForCausalLM"], "attention_bias": True}, "attention_bias"),
        ({"architectures": ["MixtralForCausalLM"], "num_local_experts": 1}, "num_experts_per_tok 2 is more than"),
        ({**GEMMA2, "hidden_activation": "relu"}, "hidden_activation is 'relu'"),
        ({**GEMMA2, "query_pre_attn_scalar": 32}, "query_pre_attn_scalar is 32, llama.cpp computes with 16"),
        ({**GEMMA2, "num_hidden_layers": 46, "head_dim": 32, "query_pre_attn_scalar": 32}, "computes with 16"),
        ({**GEMMA2, "tie_word_embeddings": False}, "gemma2 has no output matrix"),
        ({**GEMMA2, "final_logit_softcapping": None}, "final_logit_softcapping must be a positive number"),
        ({**GEMMA2, "sliding_window": None}, "sliding_window must be a positive whole number, found None"),
        ({**GEMMA2, "layer_types": ["chunked_attention"] * 3}, "layer_types must name"),
        ({**GEMMA3, "use_bidirectional_attention": True}, "cannot generate"),
        ({**GEMMA3, "attn_logit_softcapping": 50.0}, "attn_logit_softcapping is set"),
        ({**GEMMA3, "sliding_window_pattern": 2}, "sliding_window_pattern must be 6"),
        ({**GEMMA3, "rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2}}}, "windowed layers"),
        ({**PHI3, "head_dim": 32}, "head_dim 32 is not hidden_size / heads"),
        ({**PHI3, "rope_scaling": {**LONGROPE, "long_factor": [1.0]}}, "long_factor must be 8 positive numbers"),
        ({**PHI3, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope scaling 'linear'"),
        ({"architectures": ["T5EncoderModel"]}, r"T5EncoderModel cannot be converted \(.* end in a Dense layer"),
        ({"architectures": ["MPNetModel"]}, r"MPNetModel cannot be converted \(llama.cpp has no such model\)"),
        (
            {"architectures": ["GPTJForCausalLM"]},
            r"GPTJForCausalLM cannot be converted \(llama.cpp has no such model\)",
        ),
        ({"architectures": ["Gemma3ForConditionalGeneration"]}, "Gemma3ForConditionalGeneration cannot be converted"),
    ],
)
def test_config_that_cannot_be_written_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tensor_names(**changes)
        fields(**changes)
