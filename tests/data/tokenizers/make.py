"""Makes the tokenizers beside this file from corpus.txt. They are checked in, so that expected token ids hold.

Run it only to replace them: `python tests/data/tokenizers/make.py`, then renew_grit_format.py one folder above.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

HERE = Path(__file__).parent
SPECIAL_TOKENS = ["<s>", "</s>", "<|user|>", "<|embed|>", "<|assistant|>", "<|pad|>"]


def make_bpe() -> None:
    """Byte-level BPE of 600 tokens, GRIT's markers special: like the tokenizer of a trained gritdesk model."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # as one text, not line by line: a pair of newlines becomes a token, which frames must not be split by
    tokenizer.train_from_iterator([(HERE / "corpus.txt").read_text(encoding="utf-8")], trainer)
    tokenizer.save(str(HERE / "bpe" / "tokenizer.json"))


def make_sentencepiece() -> None:
    """SentencePiece BPE of 600 pieces with byte fallback and no markers: like Mistral's, hence GritLM's."""
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            input=str(HERE / "corpus.txt"),
            model_prefix=f"{folder}/tokenizer",
            model_type="bpe",
            vocab_size=600,
            byte_fallback=True,
            character_coverage=0.99995,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            minloglevel=2,
        )
        model = Path(folder, "tokenizer.model").read_bytes()
    (HERE / "sentencepiece" / "tokenizer.model").write_bytes(model)
    as_tokenizer_json(HERE / "sentencepiece" / "tokenizer.model").save(str(HERE / "sentencepiece" / "tokenizer.json"))


def as_tokenizer_json(path: Path) -> Tokenizer:
    """The same tokenizer for the `tokenizers` library, merges in the order of their pieces' scores."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    vocab = {processor.id_to_piece(token_id): token_id for token_id in range(len(processor))}
    whole = [processor.is_unknown, processor.is_control, processor.is_byte]
    by_score = sorted(vocab, key=lambda piece: (-processor.get_score(vocab[piece]), vocab[piece]))
    merges = [
        (piece[:cut], piece[cut:])
        for piece in by_score
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab and not any(kind(vocab[piece]) for kind in whole)
    ]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<unk>", "<s>", "</s>")])
    return tokenizer


def make_wordpiece() -> None:
    """WordPiece of 600 pieces, all lowercase: like BERT's, hence BGE's and MiniLM's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([(HERE / "corpus.txt").read_text(encoding="utf-8")], trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(HERE / "wordpiece" / "tokenizer.json"))


def make_unigram() -> None:
    """SentencePiece unigram of 600 pieces: like XLM-RoBERTa's, hence that of BGE-M3 and of multilingual E5."""
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            input=str(HERE / "corpus.txt"),
            model_prefix=f"{folder}/tokenizer",
            model_type="unigram",
            vocab_size=598,
            hard_vocab_limit=False,
            character_coverage=0.99995,
            normalization_rule_name="nmt_nfkc",
            minloglevel=2,
        )
        model = sentencepiece_model_pb2.ModelProto.FromString(Path(folder, "tokenizer.model").read_bytes())
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(piece.piece, piece.score) for piece in model.pieces if piece.type == piece.NORMAL]
    vocab = [*((token, 0.0) for token in special), *pieces[:595]]
    vocab += [(f"<unused{number}>", -100.0) for number in range(599 - len(vocab))] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3))
    tokenizer.normalizer = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in [*special, "<mask>"]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(HERE / "unigram" / "tokenizer.json"))


if __name__ == "__main__":
    for kind in (make_bpe, make_sentencepiece, make_wordpiece, make_unigram):
        kind()
