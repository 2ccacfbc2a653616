"""A folder that changes as a person's does, at random and repeatably: for killed.py and soak.py."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

_SUFFIXES = (".txt", ".md", ".py")


class LivingTree:
    """Files in nested folders, and beside them a place that they are moved out to and in from.

    Args:
        folder: where `docs` (the tree) and `outside` are made.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.root, self._outside = folder / "docs", folder / "outside"
        self._rng = random.Random(seed)
        self._words = [f"{prefix}{n}" for n in range(400) for prefix in ("ba", "ke", "to", "mi")]
        self._number = 0
        for each in (self.root, self._outside):
            each.mkdir(parents=True)

    def change(self) -> None:
        """One random change; none is seen half done by more than a moment."""
        acts: list[tuple[Callable[[], None], int]] = [
            (self._create, 30),
            (self._edit, 25),
            (self._save_by_replacing, 8),
            (self._rename, 10),
            (self._copy, 6),
            (self._delete, 10),
            (self._move_out, 4),
            (self._move_in, 4),
            (self._rename_folder, 2),
            (self._rule, 1),
        ]
        self._rng.choices([act for act, _ in acts], [weight for _, weight in acts])[0]()

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith("."))

    def _create(self) -> None:
        path = self._new_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._text())

    def _edit(self) -> None:
        for path in self._some_file():
            paragraphs = path.read_text().split("\n\n")
            paragraphs[self._rng.randrange(len(paragraphs))] = self._paragraph()
            path.write_text("\n\n".join(paragraphs))

    def _save_by_replacing(self) -> None:
        for path in self._some_file():
            beside = path.with_name(f".{path.name}.tmp")
            beside.write_text(self._text())
            beside.replace(path)

    def _rename(self) -> None:
        for path in self._some_file():
            target = self._new_path()
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    def _copy(self) -> None:
        for path in self._some_file():
            target = self._new_path()
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)

    def _delete(self) -> None:
        for path in self._some_file():
            path.unlink()

    def _move_out(self) -> None:
        for path in self._some_file():
            source = path.parent if path.parent != self.root and self._rng.random() < 0.3 else path
            self._number += 1
            source.rename(self._outside / f"{self._number}-{source.name}")

    def _move_in(self) -> None:
        if there := sorted(self._outside.iterdir()):
            source = self._rng.choice(there)
            self._number += 1
            source.rename(self.root / f"in{self._number}-{source.name.split('-', 1)[1]}")

    def _rename_folder(self) -> None:
        if folders := sorted(path for path in self.root.iterdir() if path.is_dir()):
            self._number += 1
            self._rng.choice(folders).rename(self.root / f"folder{self._number}")

    def _rule(self) -> None:
        (self.root / ".gitignore").write_text(self._rng.choice(["*.py\n", "", "folder1*/\n", "*7.txt\n"]))

    def _some_file(self) -> list[Path]:
        files = self.files()
        return [self._rng.choice(files)] if files else []

    def _new_path(self) -> Path:
        self._number += 1
        folder = self.root / self._rng.choice(["", "a", "b", "b/deep", "folder1"])
        return folder / f"{self._number}{self._rng.choice(_SUFFIXES)}"

    def _text(self) -> str:
        return "\n\n".join(self._paragraph() for _ in range(self._rng.randint(1, 4)))

    def _paragraph(self) -> str:
        return " ".join(self._rng.choices(self._words, k=self._rng.randint(5, 60)))
