"""Export of causal models, for lengths on both sides of the number of latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from perceiver_core import PerceiverAR, PerceiverARConfig
from perceiver_plugins.generation import NextTokenDecoderConfig, TokenEncoderConfig
from perceiver_plugins.serving.exporting import Backend, build_checked_program
from perceiver_plugins.serving.programs import Programs
from perceiver_registry import assemble

SIZE = 14
"""Largest number of inputs; the traced one is 12."""

PEER = {"separate_prefix_norm": True, "absolute_positions": True}


def make(num_latents: int, randomise: Callable[[Any], Any], **options: Any) -> PerceiverAR:
    encoder = TokenEncoderConfig(
        vocab_size=20,
        num_input_channels=16,
        num_cross_attention_heads=2,
        num_self_attention_heads=2,
        num_self_attention_layers_per_block=1,
    )
    config: Any = PerceiverARConfig(
        encoder,
        NextTokenDecoderConfig(),
        num_latents=num_latents,
        num_latent_channels=16,
        max_seq_len=SIZE,
        **options,
    )
    return randomise(assemble(config)).eval()


@torch.no_grad()
def check_lengths(model: PerceiverAR, *backends: Backend) -> None:
    """Compare an exported model with the original at all lengths.

    Args:
        model: original model.
        backends: formats. The first one checks the program that all of them write.
    """
    first, *others = backends
    program = build_checked_program(first, model)
    assert (program.traced.sizes["length"].lowest, program.traced.sizes["length"].highest) == (1, SIZE)
    runs = [first.run(program.built), *(backend.run(backend.build(program.traced)) for backend in others)]
    for batch_size in (1, 3):
        for length in range(1, SIZE + 1):
            ids = torch.randint(20, (batch_size, length))
            mask = (torch.arange(length) >= torch.randint(length, (batch_size, 1))).long()
            batch = {"input_ids": ids, "attention_mask": mask}
            expected = model(batch)
            for run in runs:
                torch.testing.assert_close(torch.as_tensor(run(batch)["logits"]), expected, rtol=1e-4, atol=1e-4)


# The other combinations of 4, 12 and 13 latents are tested with both formats.
@pytest.mark.parametrize(
    ("num_latents", "options"), [(4, {}), (12, {}), (12, PEER), (13, PEER)], ids=["4", "12", "peer-12", "peer-13"]
)
def test_programs_take_all_lengths(num_latents: int, options: dict[str, Any], randomise: Any) -> None:
    check_lengths(make(num_latents, randomise, **options), Programs())


@pytest.mark.slow
@pytest.mark.parametrize(("num_latents", "options"), [(13, {}), (4, PEER)], ids=["13", "peer-4"])
def test_both_formats_take_all_lengths(
    num_latents: int, options: dict[str, Any], randomise: Any, onnx_backend: Backend
) -> None:
    check_lengths(make(num_latents, randomise, **options), onnx_backend, Programs())


@torch.no_grad()
def test_outputs_at_padding_are_those_of_zero_latents(randomise: Any) -> None:
    model = make(4, randomise)
    ids, mask = torch.randint(20, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, :7] = 0
    found = model({"input_ids": ids, "attention_mask": mask})
    expected = model.output_adapter(model.output_norm(torch.zeros(1, 16)))[0]
    torch.testing.assert_close(found[1, :2], expected.expand(2, -1))
