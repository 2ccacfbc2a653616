"""A run as it goes, told four ways: a line on stderr, a JSON-lines log, TensorBoard's event files, a picture.

Beside the checkpoint NAME lie NAME.log.jsonl, the folder NAME.tensorboard and, from the end of the run,
NAME.curves.png. A step stands in each of them once: what a killed attempt told of steps that its checkpoint does not
hold is taken back when the run continues.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.config import TrainConfig
from training.distributed import Ranks
from training.memory import peak_memory_gb
from training.steps import StepLosses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SCALARS = {
    "loss/emb": "loss_emb",
    "loss/gen": "loss_gen",
    "loss/ratio": "loss_ratio",
    "lr_factor": "lr_factor",
    "tokens_per_s": "tokens_per_s",
    "memory_gb": "memory_gb",
}
"""TensorBoard's tag -> the log's key."""


class Progress:
    """Tells of every so many steps; a context manager, which draws the curves when it is left, also by an error.

    All ranks call it, for their tokens are counted together; the first one writes.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        first_step: int,
        ranks: Ranks,
        recent: Sequence[StepLosses] = (),
    ) -> None:
        """Args:
        folder: the checkpoint's.
        first_step: updates done before.
        recent: what `recent` held when they were done: a row is the mean over its steps, by whomever they were made.
        """
        self.config = config
        self.folder = folder
        self.first_step = first_step
        self.ranks = ranks
        self.recent = deque(recent, maxlen=config.log_every_steps)
        self._started = self._row_started = time.monotonic()
        self._num_tokens = 0
        self._events: Any = None

    def __enter__(self) -> Progress:
        if self.ranks.is_first:
            cut_log(log_path(self.folder), self.first_step)
            self._events = _event_writer(tensorboard_path(self.folder), self.first_step)
        return self

    def __exit__(self, *error: object) -> None:
        if self.ranks.is_first:
            self._events.close()
            save_curves(self.folder)

    def stepped(self, step: int, losses: StepLosses, rate: float, dropped: Mapping[str, int]) -> None:
        """Take note of a step, counted from 0, and tell of it if its turn has come."""
        self.recent.append(losses)
        self._num_tokens += losses.num_tokens
        if (step + 1) % self.config.log_every_steps and step + 1 != self.config.max_steps:
            return
        num_tokens = self.ranks.sum(self._num_tokens)
        if self.ranks.is_first:
            self._tell(self._row(step + 1, rate, num_tokens, dropped))
        self._num_tokens, self._row_started = 0, time.monotonic()

    def _row(self, step: int, rate: float, num_tokens: float, dropped: Mapping[str, int]) -> dict[str, Any]:
        now = time.monotonic()
        s_per_step = (now - self._started) / (step - self.first_step)
        loss_emb = _mean([each.loss_emb for each in self.recent if each.loss_emb is not None])
        loss_gen = _mean([each.loss_gen for each in self.recent if each.loss_gen is not None])
        return {
            "step": step,
            "loss_emb": loss_emb,
            "loss_gen": loss_gen,
            "loss_ratio": _rounded(loss_emb / loss_gen) if loss_emb is not None and loss_gen else None,
            "lr_factor": round(rate, 4),
            "tokens_per_s": round(num_tokens / (now - self._row_started)),
            "memory_gb": round(peak_memory_gb(), 2),
            "dropped": sum(dropped.values()),
            "eta_min": round(s_per_step * (self.config.max_steps - step) / 60, 1),
        }

    def _tell(self, row: dict[str, Any]) -> None:
        with log_path(self.folder).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        for tag, key in _SCALARS.items():
            if row[key] is not None:
                self._events.add_scalar(tag, row[key], row["step"])
        self._events.flush()
        told = {key: value for key, value in row.items() if value is not None}
        told["step"] = f"{row['step']}/{self.config.max_steps}"
        print("  ".join(f"{key} {value}" for key, value in told.items()), file=sys.stderr, flush=True)


def log_path(folder: Path) -> Path:
    return folder.with_name(folder.name + ".log.jsonl")


def tensorboard_path(folder: Path) -> Path:
    return folder.with_name(folder.name + ".tensorboard")


def curves_path(folder: Path) -> Path:
    return folder.with_name(folder.name + ".curves.png")


def _mean(values: list[float]) -> float | None:
    return _rounded(sum(values) / len(values)) if values else None


def _rounded(value: float) -> float:
    """Six digits that count, however small the value is: a contrastive loss ends in the thousandths."""
    return float(f"{value:.6g}")


def _event_writer(folder: Path, first_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=first_step + 1)


# ---------------------------------------------------------------- the log


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows by step, none if there is no log. Of rows for one step the last counts, and half a row, left by a kill, not
    at all."""
    if not path.exists():
        return []
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            rows[row["step"]] = row
        except (ValueError, KeyError, TypeError):
            continue
    return [rows[step] for step in sorted(rows)]


def cut_log(path: Path, last_step: int) -> None:
    """Take back the rows after a step."""
    if not path.exists():
        return
    kept = [json.dumps(row) + "\n" for row in read_log(path) if row["step"] <= last_step]
    beside = path.with_name(path.name + ".new")
    beside.write_text("".join(kept), encoding="utf-8")
    os.replace(beside, path)


# ---------------------------------------------------------------- the picture


def save_curves(folder: Path) -> None:
    """Draw the log of a checkpoint into NAME.curves.png; nothing if it has no row."""
    rows = read_log(log_path(folder))
    if rows:
        draw_curves(rows, folder.name).savefig(curves_path(folder), dpi=150)


def draw_curves(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Both losses over the steps, logarithmic, and below them the learning rate's factor and the speed."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a screen

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    losses = figure.add_subplot(grid[0, :])
    losses.set_title(title, loc="left", fontweight="bold")
    for key, name, color in (("loss_emb", "contrastive", "tab:blue"), ("loss_gen", "next token", "tab:orange")):
        _draw(losses, rows, key, color, name)
    losses.set_yscale("log")
    _plain_ticks(losses)
    losses.set_ylabel("loss")
    if losses.lines:
        losses.legend(frameon=False)
    for column, (key, name) in enumerate((("lr_factor", "learning-rate factor"), ("tokens_per_s", "tokens/s"))):
        panel = figure.add_subplot(grid[1, column])
        _draw(panel, rows, key, "tab:gray")
        panel.set_ylim(bottom=0)
        panel.set_title(name, loc="left", fontsize="medium")
        panel.set_xlabel("step")
    for axes in figure.axes:
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, color: str, name: str = "") -> None:
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    if not points:
        return
    steps, values = zip(*points, strict=True)
    label = f"{name}, {values[-1]:.3g} at the end" if name else None
    axes.plot(steps, values, color=color, label=label, linewidth=1.6, marker="." if len(points) < 30 else None)


def _plain_ticks(axes: Axes) -> None:
    """2 and 0.05 instead of powers of ten, of which a curve often crosses none."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
