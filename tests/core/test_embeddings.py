"""Latents and embeddings of models, compared with the decoder's input and its mean."""

from __future__ import annotations

import pytest
import torch
from test_base_model import Sum
from test_perceiver_ar import LENGTH, C, M, N, assert_same, each_variant, sequences
from test_perceiver_ar import build as build_ar


def received(model, module, batch) -> torch.Tensor:
    """Return the latents that a module of the model receives in a forward pass."""
    found = []
    handle = module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[-1]))
    with torch.no_grad():
        model(batch)
    handle.remove()
    return found[0]


# Perceiver IO


def test_latents_are_those_that_the_decoder_receives(build, batch):
    model = build(encoder={"num_self_attention_blocks": 2}).eval()
    latents = model.encode(batch)
    assert latents.shape == (3, 5, 9)
    torch.testing.assert_close(latents, received(model, model.decoder, batch), atol=0, rtol=0)


def test_embeddings_are_the_mean_of_the_latents(build, batch):
    model = build().eval()
    latents = model.encode(batch)
    expected = torch.stack([sum(example) / 5 for example in latents])
    torch.testing.assert_close(model.embed(batch), expected)
    assert torch.equal(model.embed(batch, pool="none"), latents)


def test_padding_does_not_change_embeddings(build, batch):
    model = build().eval()
    changed = {**batch, "x": batch["x"].masked_fill(batch["pad_mask"][..., None], 7.0)}
    torch.testing.assert_close(model.embed(changed), model.embed(batch))


def test_embeddings_of_a_batch_are_those_of_its_examples(build, batch):
    model = build().eval()
    for number in range(3):
        one = {name: value[number : number + 1] for name, value in batch.items()}
        torch.testing.assert_close(model.embed(one), model.embed(batch)[number : number + 1])


def test_hooks_change_embeddings(build, batch):
    model = build().eval()
    before = model.embed(batch)
    model.encoder.register_forward_hook(lambda _, inputs, output: output + 1)
    torch.testing.assert_close(model.embed(batch), before + 1)


@pytest.mark.parametrize("policy", ["activation_checkpointing", "activation_offloading"])
def test_activation_policies_change_no_gradient_of_embeddings(build, batch, policy):
    gradients = []
    for values in ({}, {policy: True}):
        model = build(**values).train()
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        model.zero_grad()
        model.embed(batch).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.encoder.parameters()])
    assert all(gradient.any() for gradient in gradients[0][:3])
    torch.testing.assert_close(*gradients, atol=0, rtol=0)


def test_unknown_pooling(build, batch):
    with pytest.raises(ValueError, match="pool='max' must be one of mean, none"):
        build().embed(batch, pool="max")


def test_architectures_without_latents():
    model = Sum()
    assert model.latent_pad_mask({}) is None
    with pytest.raises(NotImplementedError, match="Sum: the architecture has no embeddings"):
        model.embed({"x": torch.randn(2, 7, 3), "shift": torch.randn(2, 5)})


# Perceiver AR


@each_variant
@pytest.mark.parametrize("length", [1, N, N + 3, M])
def test_latents_of_causal_models_are_those_that_the_output_adapter_receives(variant, length):
    model, batch = build_ar(variant), {"x": sequences(2, length)}
    latents = model.encode(batch)
    assert latents.shape == (2, min(length, N), C)
    assert_same(latents, received(model, model.output_adapter, batch))
    assert_same(model.embed(batch), latents.mean(dim=1))


@each_variant
@pytest.mark.parametrize("side", ["left", "right"])
def test_embeddings_of_padded_sequences_are_those_of_each_alone(variant, side):
    """Sequences have fewer inputs than latents, more, or none."""
    model, lengths = build_ar(variant), [M, 2, N + 4, N, 0]
    x, padding = sequences(5, M), torch.arange(M) < M - torch.tensor(lengths)[:, None]
    padding = padding if side == "left" else padding.flip(1)
    batch = {"x": x, "pad_mask": padding}
    means, latents, pad_mask = model.embed(batch), model.embed(batch, pool="none"), model.latent_pad_mask(batch)
    assert latents.shape == (5, N, C)
    for row, length in enumerate(lengths[:-1]):
        alone = model.encode({"x": x[row : row + 1, ~padding[row]]})[0]
        assert len(alone) == min(length, N)
        assert_same(means[row], alone.mean(dim=0))
        assert_same(latents[row, N - len(alone) :], alone)
        assert pad_mask[row].tolist() == [True] * (N - len(alone)) + [False] * len(alone)
        assert not latents[row, : N - len(alone)].any()
    assert not means[-1].any()


def test_sequences_longer_than_the_window_have_no_embedding():
    with pytest.raises(ValueError, match=f"input of length {LENGTH} is longer than max_seq_len={M}"):
        build_ar().embed({"x": sequences(1, LENGTH)})
