"""The tokenizer of a checkpoint as a GGUF keeps it: tokens, types, merges or scores, special ids, chat template.

The rule owned here: special tokens become CONTROL tokens, GRIT's markers above all. llama.cpp finds USER_DEFINED
ones inside any text, so that a person's text could spell a marker; CONTROL ones only where they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.architectures.base import Fields
from converters.byte_level import is_byte_level, read_byte_level
from converters.checkpoint import read_json
from converters.piece_table import CONTROL, UNKNOWN, UNUSED, USER_DEFINED, PieceTable
from converters.sentencepiece_bpe import read_sentencepiece_json, read_sentencepiece_model
from converters.unigram import read_unigram
from converters.wordpiece import read_wordpiece
from gritdesk.grit_format import CHAT_TEMPLATE, MARKERS, Markers


@dataclass(frozen=True)
class Vocab:
    table: PieceTable
    tokens: list[str]
    types: list[int]
    special_ids: dict[str, int]
    """Of bos and eos, which an encoder calls cls and sep, and of unk, pad and mask where the tokenizer has them."""
    chat_template: str
    """Empty for an encoder."""

    @property
    def markers(self) -> Markers:
        """Whether all three GRIT markers are tokens of their own."""
        control = {token for token, kind in zip(self.tokens, self.types, strict=True) if kind == CONTROL}
        return "special" if control.issuperset(MARKERS) else "text"

    def fields(self) -> Fields:
        """GGUF keys."""
        values: Fields = {
            "model": self.table.model,
            "pre": self.table.pre,
            "tokens": self.tokens,
            "token_type": self.types,
            "add_bos_token": True,
            "add_eos_token": self.table.closes,
            "add_space_prefix": self.table.add_space_prefix,
        }
        values |= self.table.fields
        if self.table.merges:
            values["merges"] = list(self.table.merges)
        if (scores := self.table.scores) is not None:
            beside = {UNUSED: -10000.0}  # as llama.cpp's converter scores what SentencePiece does not know
            values["scores"] = [scores.get(each, beside.get(kind, -1000.0)) for each, kind in enumerate(self.types)]
        gguf_names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "mask": "mask"}
        values |= {f"{gguf_names[name]}_token_id": token_id for name, token_id in self.special_ids.items()}
        if self.table.closes:
            values["seperator_token_id"] = self.special_ids["eos"]  # llama.cpp's spelling
        named: Fields = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
        return named | ({"tokenizer.chat_template": self.chat_template} if self.chat_template else {})


def read_vocab(folder: Path, config: dict[str, Any], vocab_size: int, *, is_encoder: bool = False) -> Vocab:
    """The tokenizer of a checkpoint folder, filled up to the rows of its embedding matrix.

    Args:
        is_encoder: whether it is an encoder's tokenizer, which are of other kinds.
    Raises: ValueError if there is none, or none that llama.cpp would read the same way.
    """
    try:
        settings = _settings(folder)
        spec = read_json(folder / "tokenizer.json") if (folder / "tokenizer.json").exists() else {}
        table = _read_encoders_table(folder, spec) if is_encoder else _read_table(folder, spec)
        added = _added_tokens(folder, spec, settings)
        tokens, types = _with_added_tokens(folder, table, added, vocab_size)
        special_ids = _special_ids(folder, table, tokens, settings, config)
        template = "" if is_encoder else _chat_template(folder, settings)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{folder}: its tokenizer files are damaged or of an unknown form ({error!r})") from error
    except OSError as error:
        raise ValueError(f"cannot read {error.filename}: {error.strerror}") from error
    if max(tokens) >= vocab_size:
        raise ValueError(
            f"{folder}: the tokenizer has {max(tokens) + 1} tokens, config.json vocab_size is {vocab_size}"
        )
    types |= {special_ids["bos"]: CONTROL, special_ids["eos"]: CONTROL}
    return Vocab(
        table,
        [tokens.get(token_id, f"[PAD{token_id}]") for token_id in range(vocab_size)],
        [types.get(token_id, UNUSED) for token_id in range(vocab_size)],
        special_ids,
        template,
    )


def _read_table(folder: Path, spec: dict[str, Any]) -> PieceTable:
    if spec and (kind := spec["model"].get("type", "BPE")) != "BPE":
        raise ValueError(f"{folder / 'tokenizer.json'}: a {kind} tokenizer cannot be converted, only BPE")
    if spec and is_byte_level(spec):
        return read_byte_level(folder / "tokenizer.json", spec)
    if (path := folder / "tokenizer.model").exists():
        table = read_sentencepiece_model(path)
        # SentencePiece takes user-defined pieces whole (Gemma's runs of spaces), transformers merges them like others:
        # what training saw is its tokenizer.json
        if not spec or USER_DEFINED not in table.types.values():
            return table
    if spec:
        return read_sentencepiece_json(folder / "tokenizer.json", spec)
    raise ValueError(f"{folder} has neither tokenizer.json nor tokenizer.model; copy its tokenizer too")


def _read_encoders_table(folder: Path, spec: dict[str, Any]) -> PieceTable:
    path = folder / "tokenizer.json"
    if not spec:
        raise ValueError(f"{folder} has no tokenizer.json; save its tokenizer again with transformers")
    readers = {"WordPiece": read_wordpiece, "Unigram": read_unigram}
    if (kind := spec["model"].get("type")) not in readers:
        raise ValueError(f"{path}: a {kind} tokenizer of an encoder cannot be converted, only {' or '.join(readers)}")
    return readers[kind](path, spec)


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json; both may be missing."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).exists():
            settings |= {key: value for key, value in read_json(folder / name).items() if value is not None}
    return settings


def _added_tokens(folder: Path, spec: dict[str, Any], settings: dict[str, Any]) -> dict[int, tuple[str, bool]]:
    """Tokens beside the table's own, by id, each with whether it is special; from whichever file lists them."""
    added: dict[int, tuple[str, bool]] = {}
    if (path := folder / "added_tokens.json").exists():
        added |= {token_id: (content, True) for content, token_id in read_json(path).items()}
    for token_id, token in settings.get("added_tokens_decoder", {}).items():
        added[int(token_id)] = token["content"], bool(token.get("special"))
    for token in spec.get("added_tokens") or []:
        added[token["id"]] = token["content"], bool(token.get("special"))
    return added


def _with_added_tokens(
    folder: Path, table: PieceTable, added: dict[int, tuple[str, bool]], vocab_size: int
) -> tuple[dict[int, str], dict[int, int]]:
    """All tokens that the model has rows for and their types, by id."""
    tokens, types = dict(table.pieces), dict(table.types)
    for token_id, (content, is_special) in added.items():
        if token_id not in tokens and token_id >= vocab_size:
            continue  # Gemma 3 names a token for images, which a text model has no row for
        if tokens.setdefault(token_id, content) != content:
            raise ValueError(f"{folder}: token {token_id} is both {tokens[token_id]!r} and {content!r}")
        if types.get(token_id) != UNKNOWN:
            types[token_id] = CONTROL if is_special else USER_DEFINED
    types |= {token_id: CONTROL for token_id, content in tokens.items() if content in MARKERS}
    # llama.cpp looks for the user-defined pieces of SentencePiece in a text whose spaces are not yet ▁
    for token_id, kind in table.types.items():
        if kind == types[token_id] == USER_DEFINED:
            tokens[token_id] = tokens[token_id].replace("▁", " ")
    return tokens, types


def _special_ids(
    folder: Path, table: PieceTable, tokens: dict[int, str], settings: dict[str, Any], config: dict[str, Any]
) -> dict[str, int]:
    """Ids as tokenizer_config.json names them, else config.json, else the SentencePiece model itself."""
    id_of = {content: token_id for token_id, content in tokens.items()}
    found: dict[str, int] = {}
    if table.closes:
        settings = _as_a_decoders(table, settings)
    for name in ("bos", "eos", "unk", "pad", *(["mask"] if table.closes else [])):
        token = settings.get(f"{name}_token")
        content = token["content"] if isinstance(token, dict) else token
        token_id = config.get(f"{name}_token_id")
        token_id = token_id[0] if isinstance(token_id, list) else token_id
        if content is not None:
            if content not in id_of:
                raise ValueError(f"{folder}: {name}_token is {content!r}, which the tokenizer does not hold")
            token_id = id_of[content]
        elif token_id in (None, -1):  # -1 is how some configs say "none"
            token_id = {"bos": table.bos_id, "eos": table.eos_id}.get(name)
        if token_id is not None and token_id not in tokens:
            raise ValueError(f"{folder}: {name}_token_id is {token_id!r}, which is no token of the tokenizer")
        if token_id is not None:
            found[name] = int(token_id)
        elif name in ("bos", "eos"):
            raise ValueError(f"{folder}: the tokenizer names no {name}_token, which GRIT's frames need")
    return found


def _as_a_decoders(table: PieceTable, settings: dict[str, Any]) -> dict[str, Any]:
    """An encoder's special tokens by the names that a decoder has for them; old files leave out the usual ones."""
    opening, closing = ("[CLS]", "[SEP]") if table.model == "bert" else ("<s>", "</s>")
    unknown = next(token_id for token_id, kind in table.types.items() if kind == UNKNOWN)
    return settings | {
        "bos_token": settings.get("cls_token", opening),
        "eos_token": settings.get("sep_token", closing),
        "unk_token": table.pieces[unknown],
    }


def _chat_template(folder: Path, settings: dict[str, Any]) -> str:
    """The checkpoint's own template; GRIT's chat frame where it has none."""
    if (path := folder / "chat_template.jinja").exists():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8; copy it again") from error
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template if isinstance(template, str) else CHAT_TEMPLATE
