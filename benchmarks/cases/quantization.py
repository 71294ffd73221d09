"""Dynamic 8-bit linear layers for prediction on CPUs: inexact, and labelled so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.case import OURS, Case, Comparison, Contender, Job, Options
from benchmarks.cases.language_model import contender, masked_bytes, model_and_logits, sizes
from benchmarks.turns import resolve

if TYPE_CHECKING:
    from torch import Tensor

QUANTIZE = "perceiver_plugins.sdk.tasks.quantization:quantize"
"""Import path of the function that quantizes a model's linear layers."""


def comparisons(options: Options) -> list[Comparison]:
    quantized = Contender(f"{OURS}, int8", f"{__name__}:forward", sizes(options), exact=False)
    return [Comparison((contender(OURS, "forward", options, implementation=OURS), quantized))]


def forward(options: Options, length: int, overrides: dict[str, Any]) -> Job:
    """Prediction at all positions by the quantized language model."""
    import torch

    model, _ = model_and_logits(OURS, options, overrides)
    quantized = resolve(QUANTIZE)(model.eval())
    input_ids, _, _ = masked_bytes(options, 1, length)

    @torch.inference_mode()
    def run() -> Tensor:
        return quantized({"input_ids": input_ids})

    return Job(run)


CASES = [
    Case(
        "int8",
        "8-bit prediction",
        "The language model's forward pass with dynamic 8-bit linear layers (`--quantize=int8`). It is not exact: "
        "how far the largest logit is off stands in the table.",
        comparisons,
        device="cpu",
    )
]
