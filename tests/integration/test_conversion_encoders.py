"""An encoder's GGUF embeds as its folder does, by pooling, prompts and all; it generates nothing and says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from frame_tokenizers import JsonTokenizer
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tiny import make_encoder, make_sentence_folder

from converters.hf_to_gguf import convert
from gritdesk.config import Config, EngineConfig, SearchConfig
from gritdesk.desk import Desk
from gritdesk.engine.embedder import Embedder
from gritdesk.engine.host import EngineHost
from gritdesk.engine.llama import EmbeddingContext, GenerationContext, LlamaModel
from gritdesk.errors import ModelError, RequestRefused
from gritdesk.grit_format import EncodedFrame, GritMetadata, encode
from gritdesk.models import only_embeds
from gritdesk.records import Sampling, Turn

DATA = Path(__file__).parents[1] / "data"
TEXTS: dict[str, str] = json.loads((DATA / "texts.json").read_text(encoding="utf-8"))
VISIBLE = [text for text in TEXTS.values() if text.strip()]
HARDER = ["हिन्दी में लिखा, 한국어 문장", "x" * 101 + " ok " + "Y" * 100, "Ünïcödé; naïve CAFÉ"]


@pytest.fixture(scope="module", params=["bert", "xlm-roberta"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder") / "model", request.param)


@pytest.fixture(scope="module")
def encoder_gguf(encoder: Path) -> Path:
    convert(encoder, encoder.parent / "model.gguf", "F32")
    return encoder.parent / "model.gguf"


def reference_hidden(folder: Path, batch: list[list[int]]) -> list[NDArray[np.float32]]:
    import torch
    from transformers import AutoModel

    torch.set_num_threads(1)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return [model(torch.tensor([ids])).last_hidden_state[0].numpy() for ids in batch]


def frames(model: LlamaModel, texts: list[str]) -> list[EncodedFrame]:
    return [encode(model.grit.frame("", text), model, model.grit.markers) for text in texts]


def test_token_ids_equal_those_of_the_folders_tokenizer(encoder: Path, encoder_gguf: Path) -> None:
    tokenizer = JsonTokenizer(encoder)
    with LlamaModel(encoder_gguf) as model:
        for text in [*TEXTS.values(), *HARDER]:
            assert model.tokenize(text) == tokenizer.tokenize(text), text
        special = {model.control_id(each) for each in ("<s>", "</s>")}
        assert special.isdisjoint(model.tokenize("[CLS] <s> [SEP] </s>")), "a text is never a frame"


def test_hidden_states_equal_those_of_transformers(encoder: Path, encoder_gguf: Path) -> None:
    with LlamaModel(encoder_gguf) as model, closing(EmbeddingContext(model, batch_tokens=2048)) as context:
        assert context.max_tokens == 128
        batch = [frame.ids[:128] for frame in frames(model, VISIBLE)]
        found = context.hidden_states(batch)
    for hidden, reference in zip(found, reference_hidden(encoder, batch), strict=True):
        cosines = (hidden * reference).sum(axis=1) / np.linalg.norm(hidden, axis=1) / np.linalg.norm(reference, axis=1)
        assert cosines.min() > 0.9999
        assert np.abs(hidden - reference).max() < 2e-2


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_equal_those_of_sentence_transformers(encoder: Path, tmp_path: Path, pooling: str) -> None:
    from sentence_transformers import SentenceTransformer

    prompts = {"query": "query: ", "document": "passage: "}
    folder = make_sentence_folder(encoder, tmp_path / "model", pooling=pooling, max_seq_length=40, prompts=prompts)
    convert(folder, tmp_path / "model.gguf", "F32")
    reference = SentenceTransformer(str(folder), device="cpu")
    with LlamaModel(tmp_path / "model.gguf") as model:
        assert (model.grit.pooling, model.grit.query_prompt, model.grit.passage_prompt) == (pooling, *prompts.values())
        embedder = Embedder(model)
        assert embedder.context.max_tokens == 40, "what is longer is cut, but for the token that closes it"
        passages, queries = embedder.embed([("", text) for text in VISIBLE]), embedder.embed([("Find", VISIBLE[0])])
    assert ((passages * reference.encode_document(VISIBLE)).sum(axis=1) > 0.9999).all()
    assert ((queries * reference.encode_query(VISIBLE[:1])).sum(axis=1) > 0.9999).all()


def test_file_says_that_it_only_embeds(encoder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    convert(encoder, tmp_path / "model.gguf", "Q8_0", say=lines.append)
    assert lines[0] == "an encoder: the file will embed (mean pooling) and cannot generate"
    with LlamaModel(tmp_path / "model.gguf") as model:
        assert model.grit == GritMetadata(256, generation_attention="none", is_encoder=True)
        assert model.metadata["grit.jobs"] == "embedding" and only_embeds(tmp_path / "model.gguf")
        assert model.metadata["grit.embedding.frame"] == "<s>{text}</s>"
        assert "tokenizer.chat_template" not in model.metadata
        with pytest.raises(ModelError, match=r"model\.gguf only embeds and cannot generate"):
            GenerationContext(model)


def test_engine_embeds_and_refuses_to_write(encoder_gguf: Path, tmp_path: Path) -> None:
    with EngineHost(encoder_gguf, EngineConfig(), tmp_path) as host:
        assert not host.info().generates
        embeddings = host.embed([("", VISIBLE[0]), ("Find", VISIBLE[0])])
        np.testing.assert_allclose(embeddings[0], embeddings[1], atol=1e-3)
        for ask in (host.count_prompt_tokens, lambda turns: list(host.stream(turns, Sampling()))):
            with pytest.raises(RequestRefused, match="this model only embeds: .* choose a GRIT model"):
                ask([Turn("user", "Why?")])
        np.testing.assert_allclose(host.embed([("", VISIBLE[0])]), embeddings[:1], atol=1e-3)


def test_person_searches_by_meaning_and_is_told_why_nothing_is_answered(encoder_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "light.txt").write_text("The keeper lights the lamp at dusk.")
    with Desk.open(Config(tmp_path / "home", engine=EngineConfig(model=str(encoder_gguf)))) as desk:
        notices: list[str] = []
        desk.subscribe(notices.append)
        desk.index([tmp_path / "docs"])
        (said,) = notices
        assert "model.gguf reads texts of 128 tokens" in said and said.endswith("set index.chunk_tokens (256) to 64")
        assert [hit.path.name for hit in desk.search("Who lights the lamp?", mode="semantic")] == ["light.txt"]
        with pytest.raises(ModelError, match=r"^model\.gguf: this model only embeds: .*; search with it, or choose"):
            next(iter(desk.ask("Who lights the lamp?")))
        assert not desk.prefill("Who lights the lamp?")
        *_, reread = desk.rerank("Who lights the lamp?", desk.search("lamp"), 60)
        assert reread.is_complete and len(reread.hits) == 1
        desk.config = replace(desk.config, search=SearchConfig(rerank_by="likelihood"))
        with pytest.raises(ModelError, match='only embeds .* set search.rerank_by to "windows"'):
            next(desk.rerank("Who lights the lamp?", desk.search("lamp")))


@pytest.mark.parametrize("quantization_type", ["F16", "BF16", "Q8_0", "Q6_K", "Q4_K_M"])
def test_quantized_files_stay_near(encoder: Path, encoder_gguf: Path, tmp_path: Path, quantization_type: str) -> None:
    convert(encoder, tmp_path / "model.gguf", quantization_type)
    assert only_embeds(tmp_path / "model.gguf")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    for name in ("position_embd.weight", "token_types.weight"):
        assert tensors[name].tensor_type.name == "F32", "llama.cpp aborts on another type"
    inputs = [("", text) for text in VISIBLE]
    with LlamaModel(encoder_gguf) as exact, LlamaModel(tmp_path / "model.gguf") as model:
        cosines = (Embedder(exact).embed(inputs) * Embedder(model).embed(inputs)).sum(axis=1)
    assert cosines.min() > (0.9 if quantization_type == "Q4_K_M" else 0.99)


def test_config_may_name_pooling_and_prompts_where_a_folder_does_not(encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    stated = {"pooling": "cls", "query_prompt": "query: ", "passage_prompt": "passage: "}
    change_json(folder / "config.json", grit=stated)
    lines: list[str] = []
    convert(folder, tmp_path / "model.gguf", "Q8_0", say=lines.append)
    assert lines[1] == "it will read queries as '<s>query: {text}</s>' and passages as '<s>passage: {text}</s>'"
    with LlamaModel(tmp_path / "model.gguf") as model:
        assert model.grit == GritMetadata(256, generation_attention="none", is_encoder=True, **stated)
        assert model.metadata["bert.pooling_type"] == gguf.PoolingType.CLS


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def add_module(folder: Path, kind: str) -> None:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules.append({"idx": 3, "name": "3", "path": f"3_{kind}", "type": f"sentence_transformers.models.{kind}"})
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")


def without_normalize(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    (folder / "modules.json").write_text(json.dumps(modules[:2]), encoding="utf-8")
    change_json(folder / "config_sentence_transformers.json", similarity_fn_name="dot")


REFUSALS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another module": (lambda folder: add_module(folder, "Dense"), "module Dense cannot be converted"),
    "another pooling": (
        lambda folder: change_json(folder / "1_Pooling" / "config.json", pooling_mode="lasttoken"),
        "pooling lasttoken cannot be converted; known: mean, cls",
    ),
    "two poolings": (
        lambda folder: change_json(folder / "1_Pooling" / "config.json", pooling_mode=["cls", "mean"]),
        "pooling cls with mean cannot be converted",
    ),
    "pooling without the prompt": (
        lambda folder: (
            change_json(folder / "1_Pooling" / "config.json", include_prompt=False),
            change_json(folder / "config_sentence_transformers.json", prompts={"query": "Find: "}),
        ),
        "include_prompt is false",
    ),
    "dot products": (without_normalize, "similarity_fn_name is 'dot'"),
    "damaged modules": (lambda folder: (folder / "modules.json").write_text("{"), "no list of modules"),
    "no tokenizer.json": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "another way to cut words": (
        lambda folder: change_json(folder / "tokenizer.json", pre_tokenizer={"type": "Whitespace"}),
        "it prepares text by BertNormalizer \\+ Whitespace, which is not how BERT does",
    ),
    "another enclosing": (
        lambda folder: change_json(folder / "tokenizer_config.json", sep_token="[MASK]"),
        "its tokenizer reads 'a' as",
    ),
    "a decoder": (lambda folder: change_json(folder / "config.json", is_decoder=True), "is_decoder is True"),
    "relative positions": (
        lambda folder: change_json(folder / "config.json", position_embedding_type="relative_key"),
        "position_embedding_type is 'relative_key'",
    ),
    "an unknown wish": (
        lambda folder: change_json(folder / "config.json", grit={"markers": "special"}),
        "grit of an encoder holds pooling, query_prompt, passage_prompt alone",
    ),
    "a pooling of a wish": (
        lambda folder: change_json(folder / "config.json", grit={"pooling": "max"}),
        "grit needs pooling mean or cls",
    ),
    "another activation": (
        lambda folder: change_json(folder / "config.json", hidden_act="relu"),
        "hidden_act is 'relu', llama.cpp's bert has gelu",
    ),
}


@pytest.fixture(scope="module")
def sentence_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentence")
    return make_sentence_folder(make_encoder(folder / "encoder"), folder / "model")


@pytest.mark.parametrize("reason", REFUSALS)
def test_what_the_file_cannot_hold_is_refused_in_one_line(sentence_folder: Path, tmp_path: Path, reason: str) -> None:
    change, message = REFUSALS[reason]
    folder = Path(shutil.copytree(sentence_folder, tmp_path / "model"))
    change(folder)
    with pytest.raises(ValueError, match=message) as raised:
        convert(folder, tmp_path / "model.gguf")
    assert "\n" not in str(raised.value) and not (tmp_path / "model.gguf").exists()


def test_older_folders_are_read(sentence_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sentence_folder, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"embeddings.position_ids": np.arange(128)[None]}, folder / "model.safetensors")
    stated = {"word_embedding_dimension": 256, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    convert(folder, tmp_path / "model.gguf", "Q8_0")
    with LlamaModel(tmp_path / "model.gguf") as model:
        assert model.grit.pooling == "cls"


def test_unigram_tokenizer_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "model", "xlm-roberta")
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    for change, message in (({"unk_id": None}, "no unknown token"), ({"byte_fallback": True}, "with byte fallback")):
        change_json(folder / "tokenizer.json", model=model | change)
        with pytest.raises(ValueError, match=message):
            convert(folder, tmp_path / "model.gguf")
    change_json(folder / "tokenizer.json", model=model, normalizer={"type": "NFKC"})
    with pytest.raises(ValueError, match="prepares text by NFKC .* which is not how XLM-RoBERTa does"):
        convert(folder, tmp_path / "model.gguf")


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
STRIP_END = {"type": "Strip", "strip_left": False, "strip_right": True}


def merge_spaces(into: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": into}


@pytest.mark.parametrize("steps", [[merge_spaces(" ")], [STRIP_END, merge_spaces("▁")], []], ids=["4.33", "5", "none"])
def test_ways_of_merging_spaces_are_read_unless_they_are_none(tmp_path: Path, steps: list[dict[str, Any]]) -> None:
    """Versions of transformers save one XLM-RoBERTa tokenizer in several ways."""
    folder = make_encoder(tmp_path / "model", "xlm-roberta")
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    normalizer = {"type": "Sequence", "normalizers": [spec["normalizer"], *steps]}
    change_json(folder / "tokenizer.json", normalizer=normalizer, pre_tokenizer=METASPACE)
    if not steps:
        with pytest.raises(ValueError, match="read 'two spaces before,   three .* differently"):
            convert(folder, tmp_path / "model.gguf")
        return
    convert(folder, tmp_path / "model.gguf")
    tokenizer = JsonTokenizer(folder)
    with LlamaModel(tmp_path / "model.gguf") as model:
        for text in VISIBLE:
            assert model.tokenize(text.strip()) == tokenizer.tokenize(text.strip()), text


def test_special_tokens_that_an_old_folder_leaves_out_are_the_usual_ones(encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    convert(folder, tmp_path / "model.gguf")
    tokenizer = JsonTokenizer(folder)
    with LlamaModel(tmp_path / "model.gguf") as model:
        ids = frames(model, ["lamp " + "x" * 101])[0].ids
        assert ids == tokenizer.tokenize_with_special("lamp " + "x" * 101, enclosed=True)
