"""Which texts a model is weighed by."""

from __future__ import annotations

from pathlib import Path

import pytest

from gritdesk.calibration import calibration_texts
from gritdesk.errors import ConfigError


def test_passages_come_from_all_files_and_are_the_same_each_time(tmp_path: Path) -> None:
    for number in range(40):
        text = "\n\n".join(f"Paragraph {paragraph} of document {number}. " * 30 for paragraph in range(20))
        (tmp_path / f"{number}.md").write_text(text, encoding="utf-8")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    texts = calibration_texts(tmp_path, num_texts=64)
    assert texts == calibration_texts(tmp_path, num_texts=64) and len(texts) == 64
    assert len({text.split(" of document ")[1].split(".")[0] for text in texts}) > 20
    assert len(calibration_texts(tmp_path / "3.md", num_texts=8)) == 8, "one file alone gives all"


def test_where_no_text_is_a_person_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is nothing at"):
        calibration_texts(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no file at .* holds text that can be read; give a folder of documents"):
        calibration_texts(tmp_path)
