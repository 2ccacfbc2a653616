"""Random checkpoints, small enough to convert and run within a test: real files of the real formats.

torch and transformers are imported inside the functions, so that collecting tests stays fast.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

TOKENIZERS = Path(__file__).parent / "data" / "tokenizers"
VOCAB_SIZE = 600
HIDDEN = 256

Family = Literal["llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"]
FAMILY_CLASSES = ("Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Phi3")

MODERN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""How Llama 3 cuts words; Qwen2 takes digits one by one."""


def make_checkpoint(
    folder: Path,
    family: Family = "llama",
    *,
    tokenizer: Literal["bpe", "sentencepiece"] = "bpe",
    pre: Literal["gpt-2", "llama-bpe", "qwen2", "smollm", "gemma"] = "gpt-2",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    shard_size: str = "1GB",
    seed: int = 0,
    **config: Any,
) -> Path:
    """A random 2-layer checkpoint whose logits vary, with a tokenizer of 600 tokens.

    Args:
        folder: made if it does not exist.
        pre: how the byte-level tokenizer cuts words; "gemma" for a SentencePiece one without a space in front.
        config: overrides of the family's config, such as tie_word_embeddings=True.
    Returns: the folder.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    model_class = {name.lower(): name for name in FAMILY_CLASSES}[family]
    settings: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": 0 if tokenizer == "bpe" else 1,
        "eos_token_id": 1 if tokenizer == "bpe" else 2,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
        "grit": {
            "dimension": config.get("hidden_size", HIDDEN),
            "markers": "special" if tokenizer == "bpe" else "text",
        },
    }
    if family.startswith("gemma"):
        settings |= {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 96, "tie_word_embeddings": True}
    if family == "phi3":
        settings["pad_token_id"] = settings["eos_token_id"]  # its own is beyond this vocabulary
    if family == "gemma3":
        bases = {"full_attention": 20000.0, "sliding_attention": 5000.0}
        settings["rope_parameters"] = {
            kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in bases.items()
        }
    config_class = f"{model_class}TextConfig" if family == "gemma3" else f"{model_class}Config"
    model_config = getattr(transformers, config_class)(**settings | config)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{model_class}ForCausalLM")(model_config)
    for name, weight in model.named_parameters():
        # norms near one and biases off zero, so that a forgotten one shows; matrices large enough to be felt
        norm_mean = 0.0 if family.startswith("gemma") else 1.0  # Gemma multiplies by 1 + weight
        torch.nn.init.normal_(weight, mean=norm_mean if "norm" in name else 0.0, std=0.1 if weight.ndim == 1 else 0.06)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard_size)
    copy_tokenizer(folder, tokenizer, pre)
    return folder


def make_encoder(
    folder: Path, family: Literal["bert", "xlm-roberta"] = "bert", *, seed: int = 0, **config: Any
) -> Path:
    """A random 2-layer encoder as transformers saves it, for texts of 128 tokens.

    Args:
        config: overrides of the family's config, such as num_hidden_layers=3.
    Returns: the folder, which is made if it does not exist.
    """
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    is_bert = family == "bert"
    settings: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128 if is_bert else 130,
        "type_vocab_size": 2 if is_bert else 1,
        "pad_token_id": 0 if is_bert else 1,
    }
    name = "Bert" if is_bert else "XLMRoberta"
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**settings | config))
    for key, weight in model.named_parameters():
        is_scale = "LayerNorm.weight" in key
        torch.nn.init.normal_(weight, mean=1.0 if is_scale else 0.0, std=0.1 if weight.ndim == 1 else 0.06)
    model.save_pretrained(folder)
    shutil.copy(TOKENIZERS / ("wordpiece" if is_bert else "unigram") / "tokenizer.json", folder)
    words = ("[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]") if is_bert else ("<s>", "</s>", "<unk>", "<pad>", "<mask>")
    kinds = ("cls_token", "sep_token", "unk_token", "pad_token", "mask_token")
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128} | dict(
        zip(kinds, words, strict=True)
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return folder


def make_sentence_folder(
    encoder: Path, folder: Path, *, pooling: str = "mean", normalize: bool = True, **settings: Any
) -> Path:
    """An encoder as sentence-transformers saves it.

    Args:
        settings: of SentenceTransformer, such as prompts.
    Returns: the folder.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    modules = [Transformer(str(encoder), max_seq_length=settings.pop("max_seq_length", None))]
    modules += [Pooling(HIDDEN, pooling_mode=pooling), *([Normalize()] if normalize else [])]
    SentenceTransformer(modules=modules, device="cpu", **settings).save(str(folder))
    return folder


def copy_tokenizer(folder: Path, tokenizer: str, pre: str = "gpt-2") -> None:
    """Put one of the checked-in tokenizers into a checkpoint folder."""
    for file in (TOKENIZERS / tokenizer).iterdir():
        shutil.copy(file, folder / file.name)
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    settings |= {"pad_token": "<|pad|>"} if tokenizer == "bpe" else {"unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if pre == "gemma":
        _as_gemmas(folder)
    elif pre != "gpt-2":
        spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        words = MODERN_WORDS if pre == "llama-bpe" else MODERN_WORDS.replace("{1,3}", "")
        split: dict[str, Any] = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False}
        if by_digits := pre == "smollm":
            split = {"type": "Digits", "individual_digits": True}
        to_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": by_digits}
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, to_bytes]}
        spec["normalizer"] = {"type": "NFC"} if pre == "qwen2" else None
        (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")


def _as_gemmas(folder: Path) -> None:
    """No space in front, a pair of newlines cut out whole, a token for images that the model has no row for."""
    (folder / "tokenizer.model").unlink()
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    spec["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    spec["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    vocab = spec["model"]["vocab"]
    vocab.pop(max(vocab, key=vocab.__getitem__))  # a single letter, which is then spelled in bytes
    vocab["\n\n"] = VOCAB_SIZE - 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    spec["added_tokens"] += [
        {"id": VOCAB_SIZE - 1, "content": "\n\n", "special": False, **flags},
        {"id": VOCAB_SIZE, "content": "<image>", "special": True, **flags},
    ]
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")


def copy_without_grit(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint as a language model that nobody made a GRIT model of."""
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["grit"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def copy_gguf_without_grit(source: Path, out: Path, **changed: str) -> Path:
    """The GGUF as a program makes it that knows nothing of GRIT, written by the gguf package.

    Args:
        changed: other values of keys in `general`, such as name="GritLM-7B".
    Returns: `out`.
    """
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if not key.startswith(("GGUF.", "grit.", "llama-embed.")) and key not in (
            "general.architecture",
            *_general(changed),
        ):
            kind = field.types[0]
            item_kind = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, item_kind)
    for key, value in _general(changed).items():
        writer.add_string(key, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _general(changed: dict[str, str]) -> dict[str, str]:
    return {f"general.{key}": value for key, value in changed.items()}
