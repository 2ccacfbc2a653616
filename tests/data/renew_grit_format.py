"""Writes the token ids of grit_format.json anew: needed only when the tokenizers beside it are replaced.

The frames' spelling in that file (`rendered`, `counted`) was written by hand and is not touched.
Run as `PYTHONPATH=tests python tests/data/renew_grit_format.py`, then read the difference.
"""

from __future__ import annotations

import json
from pathlib import Path

from frame_tokenizers import JsonTokenizer, SentencePieceTokenizer

from gritdesk.grit_format import FrameTokenizer, Markers, chat_frame, embedding_frame, encode
from gritdesk.records import Turn

HERE = Path(__file__).parent


def main() -> None:
    cases = json.loads((HERE / "grit_format.json").read_text(encoding="utf-8"))
    tokenizers: dict[str, tuple[FrameTokenizer, Markers]] = {
        "bpe": (JsonTokenizer(HERE / "tokenizers" / "bpe"), "special"),
        "sentencepiece": (SentencePieceTokenizer(HERE / "tokenizers" / "sentencepiece"), "text"),
    }
    for case in cases:
        chat = [Turn(role, text) for role, text in case.get("chat", [])]
        frame = chat_frame(chat) if chat else embedding_frame(*case["embedding"])
        for name, (tokenizer, markers) in tokenizers.items():
            encoded = encode(frame, tokenizer, markers)
            case[name] = {"ids": encoded.ids, "counts": "".join(str(int(counts)) for counts in encoded.counts)}
    lines = (json.dumps(case, ensure_ascii=False) for case in cases)
    (HERE / "grit_format.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
