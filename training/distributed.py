"""One process or many: what the ranks of a run tell each other. torchrun starts several, anything else one.

Gradients are averaged over the ranks by FSDP. A loss of which each rank holds a part, or whose gradient each rank
knows for its own texts alone, is therefore multiplied by the number of ranks (`Ranks.size`), or its weight would
shrink with every machine that is added.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT = datetime.timedelta(hours=6)
"""How long a rank waits for the others: they do while the first one fetches a model, trains a tokenizer, fits token
embeddings or writes a checkpoint, and NCCL's 10 minutes would end the run. A rank that dies is found at once by
torchrun, which ends the others; only one that hangs is found as late as this."""


class Ranks:
    """The processes of this run and this one's place among them."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @classmethod
    def from_environment(cls) -> Ranks:
        """Join the processes that torchrun started; alone without it."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def device(self) -> torch.device:
        """Where this rank computes: its GPU, or the CPU where there is none."""
        return _device()

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def sum(self, value: float) -> float:
        """A number added up over all ranks."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=_device())
        dist.all_reduce(total)
        return float(total)

    def max(self, value: int) -> int:
        """The largest of all ranks' numbers."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, device=_device())
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The rows of all ranks in their order; gradients flow into this rank's own.

        Ranks may have different numbers of rows, also none.
        """
        if self.size == 1:
            return rows
        counts_R = torch.empty(self.size, dtype=torch.long, device=_device())
        dist.all_gather_into_tensor(counts_R, torch.tensor([len(rows)], device=_device()))
        counts = counts_R.tolist()
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows.detach()
        gathered = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(gathered, padded)
        every = [each[:count] for each, count in zip(gathered, counts, strict=True)]
        every[self.rank] = rows
        return torch.cat(every)

    def share(self, num: int) -> slice:
        """This rank's part of `num` things: neighbours, as even as can be."""
        return slice(num * self.rank // self.size, num * (self.rank + 1) // self.size)

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


def shard(model: nn.Module, layers: Iterable[nn.Module], ranks: Ranks) -> None:
    """Give each rank a part of every parameter and of its gradient and optimizer state (FSDP2); alone: nothing.

    Args:
        layers: parts of the model that are gathered one at a time, when a pass comes to them.
    """
    if ranks.size == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(_device().type, (ranks.size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
