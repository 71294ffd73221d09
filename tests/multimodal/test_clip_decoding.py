"""Decoding of selected positions and modalities, and its cost."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from perceiver_core import PerceiverIO
from perceiver_plugins.multimodal import decode, reconstruct
from perceiver_registry import assemble

NUM_POSITIONS = 4 + 2 * 4 * 8 + 1


@pytest.fixture
def model(clip_model_config, randomise) -> PerceiverIO:
    return randomise(assemble(clip_model_config())).eval()


def test_queries_have_fourier_features_and_modality_embeddings(model):
    provider = model.output_adapter.query_provider
    assert provider.num_query_channels == 15 + 2
    queries = provider(None)[0]
    assert queries.shape == (NUM_POSITIONS, 17)
    # Index i of n is at -1 + 2 i / n: the last one is not at 1.
    audio, (t, h, w) = 3, (1, 2, 5)
    position = -1 + 2 * audio / 4
    bands = [1 + band * (12 / 2 - 1) / 2 for band in range(3)]  # resolution in samples
    phases = [math.pi * position * band for band in bands]
    expected = torch.tensor([position, *map(math.sin, phases), *map(math.cos, phases)])
    torch.testing.assert_close(queries[audio, :7], expected)
    assert torch.equal(queries[audio, 7:], provider.embeddings["audio"][0])
    positions = [-1 + 2 * t / 2, -1 + 2 * h / 4, -1 + 2 * w / 8]
    phases = [
        math.pi * x * (1 + band * (n / 2 - 1)) for x, n in zip(positions, (2, 4, 8), strict=True) for band in range(2)
    ]
    expected = torch.tensor([*positions, *map(math.sin, phases), *map(math.cos, phases)])
    pixel = 4 + (t * 4 + h) * 8 + w
    torch.testing.assert_close(queries[pixel, :15], expected)
    assert torch.equal(queries[pixel, 15:], provider.embeddings["image"][0])
    assert torch.equal(queries[-1], torch.cat([provider.label_query, provider.embeddings["label"]], dim=1)[0])


@torch.no_grad()
def test_output_has_each_modality_in_its_slices(model, tiny_batch):
    adapter = model.output_adapter
    assert adapter.slices == {"audio": slice(0, 4), "image": slice(4, 68), "label": slice(68, 69)}
    assert adapter.channels == {"audio": slice(0, 3), "image": slice(3, 6), "label": slice(6, 11)}
    whole, parts = model(tiny_batch), decode(model, tiny_batch)
    assert whole.shape == (3, NUM_POSITIONS, 11)
    for modality, part in parts.items():
        torch.testing.assert_close(whole[:, adapter.slices[modality], adapter.channels[modality]], part)
    clips = reconstruct(model, tiny_batch)
    torch.testing.assert_close(clips.input_values, parts["audio"].flatten(1))
    torch.testing.assert_close(clips.pixel_values_videos[1, 1, :, 2, 5], parts["image"][1, (1 * 4 + 2) * 8 + 5])
    torch.testing.assert_close(clips.logits, parts["label"][:, 0])


def test_deprecated_name_of_slices_warns(model):
    with pytest.warns(DeprecationWarning, match="AudioVideoLabelOutputAdapter.places is deprecated: use slices"):
        assert model.output_adapter.places == model.output_adapter.slices


@torch.no_grad()
def test_positions_as_indices_or_mask(model, tiny_batch):
    whole = model(tiny_batch)
    positions = torch.tensor([[68, 5, 0, 5], [3, 4, 67, 68], [10, 11, 12, 13]])
    found = model(tiny_batch, positions=positions)
    torch.testing.assert_close(found, whole[torch.arange(3)[:, None], positions])
    mask = torch.rand(3, NUM_POSITIONS) < 0.3
    torch.testing.assert_close(model(tiny_batch, positions=mask), whole[mask])


@torch.no_grad()
@pytest.mark.parametrize("chunk_size", [None, 1, 7])
def test_positions_shared_by_clips_or_per_clip(model, tiny_batch, chunk_size):
    whole = decode(model, tiny_batch)
    shared, per_clip = torch.tensor([63, 0, 17, 17]), torch.randint(4, (3, 2))
    found = decode(model, tiny_batch, {"image": shared, "audio": per_clip}, chunk_size)
    assert set(found) == {"image", "audio"}
    torch.testing.assert_close(found["image"], whole["image"][:, shared])
    torch.testing.assert_close(found["audio"], whole["audio"][torch.arange(3)[:, None], per_clip])
    found = decode(model, tiny_batch, {"label": None}, chunk_size)
    torch.testing.assert_close(found, {"label": whole["label"]})


@torch.no_grad()
def test_reconstruction_does_not_depend_on_chunk_size(model, tiny_batch):
    expected = reconstruct(model, tiny_batch, chunk_size=None)
    for chunk_size in (1, 10, 64):
        torch.testing.assert_close(reconstruct(model, tiny_batch, chunk_size), expected)


def test_gradients_do_not_depend_on_chunk_size(clip_model_config, randomise, tiny_batch):
    model = randomise(assemble(clip_model_config()))

    def gradients(outputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        loss = sum(output.square().mean() for output in outputs.values())
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return list(torch.autograd.grad(loss, parameters))

    adapter = model.output_adapter
    whole = model(tiny_batch)
    by_modality = {name: whole[:, adapter.slices[name], adapter.channels[name]] for name in adapter.slices}
    expected = gradients(by_modality)
    for chunk_size in (None, 9):
        torch.testing.assert_close(gradients(decode(model, tiny_batch, chunk_size=chunk_size)), expected)


def test_cost_is_proportional_to_positions(clip_model_config):
    clip = {"num_frames": 4, "frame_size": (32, 32)}
    model = assemble(clip_model_config(clip)).eval()
    batch = {"input_values": torch.rand(1, 12), "pixel_values_videos": torch.rand(1, 4, 3, 32, 32)}

    def count_flops(positions) -> int:
        with FlopCounterMode(display=False) as counter:
            decode(model, batch, positions)
        return counter.get_total_flops()

    label = count_flops({"label": None})
    fewer, more = (count_flops({"label": None, "image": torch.arange(number)}) - label for number in (1000, 4000))
    assert more == pytest.approx(4 * fewer, rel=0.01)
    assert label < count_flops(None) / 5
    # Heads only run at positions of their modality: 3 channels, not 11, for each pixel.
    adapter = model.output_adapter
    with FlopCounterMode(display=False) as counter:
        adapter.output("image", torch.rand(1000, adapter.query_provider.num_query_channels))
    assert counter.get_total_flops() == 2 * 1000 * (17 * 7 + 7 * 3)
