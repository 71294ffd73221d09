"""Frozen parts get no gradients; the others do."""

from __future__ import annotations

import pytest

ENCODER_PARTS, DECODER_PARTS = {"input_adapter", "encoder"}, {"decoder", "output_adapter"}


@pytest.mark.parametrize("freeze_encoder", [False, True])
@pytest.mark.parametrize("freeze_decoder", [False, True])
def test_frozen_parts_get_no_gradients(build, batch, freeze_encoder, freeze_decoder):
    model = build(encoder={"freeze": freeze_encoder}, decoder={"freeze": freeze_decoder})
    frozen = (ENCODER_PARTS if freeze_encoder else set()) | (DECODER_PARTS if freeze_decoder else set())
    loss = model(batch).square().sum()
    if loss.requires_grad:
        loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name.split(".")[0] in frozen), name
