"""What quantization will do to weights, done while they are trained (quantization-aware training).

A step sees the quantized weights and its gradient goes into the exact ones, as if rounding had a slope of one
(straight-through estimator, arXiv 1308.3432).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.config import QuantizationType

BLOCK_SIZE = 32
"""Weights that share a scale, neighbours in a row."""


@contextmanager
def quantized_weights(parameters: Iterable[nn.Parameter], quantization_type: QuantizationType) -> Iterator[None]:
    """Within it the matrices among the parameters hold what their quantized form stands for."""
    exact = []
    for parameter in parameters:
        weight = parameter.detach()
        local = weight.to_local() if isinstance(weight, DTensor) else weight
        if local.ndim >= 2 and local.shape[-1] % BLOCK_SIZE == 0:
            exact.append((local, local.clone()))
            local.copy_(dequantized(local, quantization_type))
    try:
        yield
    finally:
        for local, weight in exact:
            local.copy_(weight)


@torch.no_grad()
def dequantized(weight: Tensor, quantization_type: QuantizationType) -> Tensor:
    """The weights that a GGUF tensor of this type gives back, of the same shape.

        Q8_0    d = max|w| / 127, w = d round(w/d)                      d in half precision
        Q4_0    d = -m/8, m the w of largest magnitude with its sign, w = d clip(round(w/d), -8, 7)

    Args:
        weight: last dimension a multiple of 32.
    Source: ggml's reference quantization (`quantize_row_q8_0_ref`, `quantize_row_q4_0_ref`), which rounds up at half.
    """
    blocks = weight.float().reshape(-1, BLOCK_SIZE)
    largest = blocks.gather(1, blocks.abs().argmax(dim=1, keepdim=True))
    if quantization_type == "Q8_0":
        scale = largest.abs() / 127
        steps = blocks * torch.where(scale > 0, 1 / scale, 0.0)
        steps = torch.sign(steps) * torch.floor(steps.abs() + 0.5)
    else:
        scale = largest / -8
        steps = (torch.floor(blocks * torch.where(scale != 0, 1 / scale, 0.0) + 8.5)).clamp(0, 15) - 8
    return (steps * scale.half().float()).reshape(weight.shape).to(weight.dtype)
