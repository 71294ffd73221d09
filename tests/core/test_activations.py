"""Checkpointing and offloading keep less and change nothing."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

SAVERS = [(True, False), (False, True), (True, True)]
REPEATED = {"num_cross_attention_layers": 2, "num_self_attention_blocks": 3}


def gradients(model, batch, seed=3):
    model.zero_grad(set_to_none=True)
    torch.manual_seed(seed)
    model(batch).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("checkpointing", "offloading"), SAVERS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_equal_those_without_checkpointing(build, batch, randomise, checkpointing, offloading, dropout):
    parts = {"encoder": REPEATED | {"dropout": dropout}, "decoder": {"dropout": dropout}}
    keeps_all = randomise(build(**parts))
    expected = gradients(keeps_all, batch)
    saver = build(activation_checkpointing=checkpointing, activation_offloading=offloading, **parts)
    saver.load_state_dict(keeps_all.state_dict())
    actual = gradients(saver, batch)
    assert not any(gradient is None for gradient in actual.values())
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)
    if dropout:
        assert not gradients(keeps_all, batch, seed=4)["encoder.latents"].equal(expected["encoder.latents"])


@pytest.mark.parametrize(("checkpointing", "expected_calls"), [(False, 1), (True, 2)])
def test_checkpointing_recomputes_each_layer_in_the_backward_pass(build, batch, checkpointing, expected_calls):
    model = build(activation_checkpointing=checkpointing)
    layers = (
        *model.encoder.cross_attention_layers,
        *model.encoder.self_attention_blocks[0],
        model.decoder.cross_attention_layer,
    )
    calls = []
    for layer in layers:
        # Not the layer's end: recomputing stops as soon as all that is needed is there again.
        layer.attention.register_forward_hook(lambda attention, *_: calls.append(attention))
    gradients(model, batch)
    assert [calls.count(layer.attention) for layer in layers] == [expected_calls] * len(layers)


def kept_bytes(model, batch):
    """Bytes of what a forward pass hands to autograd to keep, outside of an offloading context."""
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(batch)
    return sum(sizes)


def test_checkpointing_stores_fewer_activations(build, batch):
    assert kept_bytes(build(activation_checkpointing=True), batch) < 0.5 * kept_bytes(build(), batch)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_offloading_moves_activations_but_no_weights(build, batch, monkeypatch, checkpointing):
    moved = []
    init = save_on_cpu.__init__

    def recording(self, pin_memory=False):
        init(self, pin_memory)
        move = self.pack_hook
        self.pack_hook = lambda tensor: (moved.append(tensor), move(tensor))[1]

    monkeypatch.setattr(save_on_cpu, "__init__", recording)
    model = build(activation_checkpointing=checkpointing, activation_offloading=True)
    before = kept_bytes(build(activation_checkpointing=checkpointing), batch)
    assert not moved
    assert kept_bytes(model, batch) < 0.5 * before
    # The inputs of the two cross-attentions are kept in any case.
    shapes = [tensor.shape for tensor in moved]
    assert (3, 13, 10) in shapes
    assert (3, 5, 9) in shapes
    layers = [parameter for name, parameter in model.named_parameters() if "attention" in name]
    weights = {parameter.untyped_storage().data_ptr() for parameter in layers}
    assert not [tensor.shape for tensor in moved if tensor.untyped_storage().data_ptr() in weights]
