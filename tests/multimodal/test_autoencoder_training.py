"""Training of the multimodal autoencoder: losses and metrics against independent formulas, and overfitting."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate

from perceiver_plugins.checkpoints.random_data import RandomDataModule
from perceiver_plugins.multimodal import LitMultimodalAutoencoder, VideoFolderDataModule, decode, reconstruct
from perceiver_plugins.multimodal.data import ClipFormat
from perceiver_registry import UserError, read_checkpoint
from perceiver_registry.checkpoint import KEY

ALL = {"audio_places": None, "video_places": None}


@pytest.fixture
def autoencoder(clip_model_config, randomise):
    """Factory of a module with random parameters, whose outputs differ between clips."""

    def autoencoder(encoder=None, **options) -> LitMultimodalAutoencoder:
        module = LitMultimodalAutoencoder.create(clip_model_config(encoder=encoder), **options)
        randomise(module.model)
        return module.eval()

    return autoencoder


def parts_of_loss(module: LitMultimodalAutoencoder, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute the mean loss of each modality from full reconstructions."""
    reconstruction = reconstruct(module.model, batch)
    power = 2 if module.error == "mse" else 1
    return {
        "audio": (reconstruction.input_values - batch["input_values"]).abs().pow(power).mean(),
        "video": (reconstruction.pixel_values_videos - batch["pixel_values_videos"]).abs().pow(power).mean(),
        "label": cross_entropy(reconstruction.logits, batch["labels"]),
    }


@torch.no_grad()
@pytest.mark.parametrize("error", ["l1", "mse"])
def test_loss_is_weighted_sum_of_modalities(autoencoder, tiny_batch, error):
    weights = {"audio": 0.5, "video": 3.0, "label": 0.2}
    options = {f"{name}_weight": weight for name, weight in weights.items()}
    module = autoencoder(error=error, **options, **ALL)
    parts = parts_of_loss(module, tiny_batch)
    expected = sum(weights[name] * part for name, part in parts.items())
    for loss in (module.loss_sum(tiny_batch), module.evaluate(tiny_batch, "val"), module.evaluate(tiny_batch, "test")):
        torch.testing.assert_close(loss.mean, expected)
        assert loss.count == 3
    for name, part in parts.items():
        one_weight = {f"{other}_weight": float(other == name) for other in weights}
        single = autoencoder(error=error, **one_weight, **ALL)
        single.load_state_dict(module.state_dict())
        torch.testing.assert_close(single.loss_sum(tiny_batch).mean, part)


def test_default_weights_and_numbers_of_positions_are_the_papers(autoencoder):
    module = autoencoder()
    assert module.weights == {"audio": 1.0, "image": 0.03, "label": 0.0001}
    assert module.limits == {"audio": 32, "image": 512}  # 512 samples, 16 in a patch


@pytest.mark.slow
@torch.no_grad()
def test_loss_at_random_positions_is_unbiased(autoencoder, tiny_batch):
    module = autoencoder(label_weight=0.1, audio_places=2, video_places=9)
    expected = autoencoder(label_weight=0.1, **ALL)
    expected.load_state_dict(module.state_dict())
    drawn = torch.stack([module.loss_sum(tiny_batch).mean for _ in range(300)])
    assert drawn.std() > 0
    error = 4 * drawn.std().item() / math.sqrt(len(drawn))
    assert drawn.mean().item() == pytest.approx(expected.loss_sum(tiny_batch).mean.item(), abs=error)


def test_positions_are_random_per_clip_in_training_and_fixed_in_validation(autoencoder, tiny_batch):
    module = autoencoder(audio_places=4, video_places=20)
    positions = module.random_positions(tiny_batch)
    assert positions["audio"] is positions["label"] is None  # all positions
    assert positions["image"].shape == (3, 20)
    assert not torch.equal(positions["image"][0], positions["image"][1])
    assert not torch.equal(positions["image"], module.random_positions(tiny_batch)["image"])
    fixed = module.fixed_positions()
    assert fixed["image"].shape == (20,)
    assert len(fixed["image"].unique()) == 20
    assert torch.equal(fixed["image"], module.fixed_positions()["image"])


@torch.no_grad()
def test_targets_are_the_input_at_the_positions(autoencoder, tiny_batch):
    module = autoencoder()
    positions = {"audio": torch.tensor([3, 0]), "image": torch.tensor([[0, 45], [1, 63], [32, 9]]), "label": None}
    targets = module.targets(tiny_batch, positions)
    assert torch.equal(targets["audio"][1], tiny_batch["input_values"][1].view(4, 3)[[3, 0]])
    frames = tiny_batch["pixel_values_videos"]
    assert torch.equal(targets["image"][0, 1], frames[0, 1, :, 1, 5])  # 45 = (1 * 4 + 1) * 8 + 5
    assert torch.equal(targets["image"][2], torch.stack([frames[2, 1, :, 0, 0], frames[2, 0, :, 1, 1]]))


@torch.no_grad()
def test_padding_examples_do_not_count(autoencoder, tiny_batch):
    module = autoencoder(**ALL)
    whole = module.evaluate({name: value[:2] for name, value in tiny_batch.items()}, "val")
    expected = {name: metric.compute() for name, metric in module.metrics["val"].items()}
    for metric in module.metrics["val"].values():
        metric.reset()
    filled = tiny_batch | {"labels": torch.tensor([4, 0, -100])}
    loss = module.evaluate(filled, "val")
    assert loss.count == 2
    torch.testing.assert_close(loss.mean, whole.mean)
    torch.testing.assert_close({name: metric.compute() for name, metric in module.metrics["val"].items()}, expected)
    empty = module.evaluate(tiny_batch | {"labels": torch.full((3,), -100)}, "val")
    assert (empty.count, empty.mean) == (0, 0)


@torch.no_grad()
def test_metrics_are_computed_over_all_clips(autoencoder, tiny_batch):
    module = autoencoder(**ALL, chunk_size=11)
    for part in (slice(0, 1), slice(1, 3)):
        module.evaluate({name: value[part] for name, value in tiny_batch.items()}, "test")
    reconstruction = reconstruct(module.model, tiny_batch)
    audio = (reconstruction.input_values.clamp(-1, 1) - tiny_batch["input_values"]).square().mean()
    video = (reconstruction.pixel_values_videos.clamp(0, 1) - tiny_batch["pixel_values_videos"]).square().mean()
    found = {name: metric.compute().item() for name, metric in module.metrics["test"].items(keep_base=True)}
    assert found["audio_psnr"] == pytest.approx(10 * math.log10(2**2 / audio), abs=1e-3)
    assert found["video_psnr"] == pytest.approx(10 * math.log10(1 / video), abs=1e-3)
    accuracy = (reconstruction.logits.argmax(dim=-1) == tiny_batch["labels"]).float().mean().item()
    assert found["accuracy"] == pytest.approx(accuracy)


@torch.no_grad()
def test_label_is_hidden_in_validation(autoencoder, tiny_batch):
    module = autoencoder({"label_mask_probability": 0.0}, **ALL)
    outputs = [decode(module.model, tiny_batch | {"labels": labels}) for labels in torch.tensor([[0, 1, 2], [3, 3, 3]])]
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    module.train()
    outputs = [decode(module.model, tiny_batch | {"labels": labels}) for labels in torch.tensor([[0, 1, 2], [3, 3, 3]])]
    assert not torch.allclose(outputs[0]["image"], outputs[1]["image"], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video_weight": -1.0}, "video_weight=-1.0, .*must be at least 0"),
        ({"audio_weight": 0, "video_weight": 0, "label_weight": 0}, "and at least one must be greater"),
        ({"error": "l3"}, "error='l3' must be l1 or mse"),
        ({"video_places": 0}, "video_places=0 must be at least 1"),
        ({"chunk_size": 0}, "chunk_size=0 must be at least 1"),
    ],
)
def test_invalid_options_are_reported(clip_model_config, options, message):
    with pytest.raises(UserError, match=message):
        LitMultimodalAutoencoder.create(clip_model_config(), **options)


def test_training_on_random_data_with_half_of_the_labels_masked(clip_model_config, quiet_trainer):
    module = LitMultimodalAutoencoder.create(clip_model_config(encoder={"label_mask_probability": 0.5}))
    data = RandomDataModule(num_examples=6, batch_size=3, seed=0)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(module, data)
    assert {"val_loss", "val_audio_psnr", "val_video_psnr", "val_accuracy"} <= set(trainer.callback_metrics)


CLIPS = ClipFormat(num_frames=4, frame_size=(16, 16), frame_rate=8, samples_per_frame=64)


@pytest.mark.slow
def test_overfits_a_few_clips(clip_folder, clip_model_config, quiet_trainer, tmp_path):
    torch.manual_seed(1)
    written = dataclasses.replace(CLIPS, samples_per_frame=128)
    path = clip_folder({"circle": 3, "square": 3}, written, suffix=".mkv")
    data = VideoFolderDataModule(
        str(path), num_frames=4, frame_size=16, frame_rate=8, samples_per_frame=64, batch_size=4, val_fraction=0.3
    )
    clip = {
        "num_frames": data.num_frames,
        "frame_size": data.frame_size,
        "num_audio_samples": data.num_audio_samples,
        "samples_per_patch": 16,
        "num_classes": data.num_classes,
        "num_audio_frequency_bands": 12,
        "num_video_frequency_bands": 6,
    }
    small = {"num_self_attention_layers_per_block": 2, "init_scale": 0.1}
    decoder = {
        "num_label_query_channels": 32,
        "num_output_channels": 48,
        "init_scale": 0.1,
        "label_names": data.label_names,
    }
    decoder["label_names"] = data.label_names
    config = clip_model_config(clip, small, decoder, num_latents=32, num_latent_channels=64)
    module = LitMultimodalAutoencoder.create(
        config,
        optimizer={"name": "AdamW", "lr": 4e-3},
        error="mse",
        video_weight=5.0,
        label_weight=0.05,
        video_places=256,
    )
    trainer = quiet_trainer(max_steps=220, gradient_clip_val=1.0, check_val_every_n_epoch=1000)
    trainer.fit(module, data)
    module.eval()
    data.setup()
    examples = data.split_datasets["train"]
    batch = default_collate([examples[i] for i in range(len(examples))])
    with torch.no_grad():
        reconstruction = reconstruct(module.model, batch)
    frames, samples = batch["pixel_values_videos"], batch["input_values"]
    mean_error = (frames - frames.mean(dim=0)).square().mean()
    colour_error = (frames - frames.mean(dim=(1, 3, 4), keepdim=True)).square().mean()  # one colour per clip
    error = (reconstruction.pixel_values_videos - frames).square().mean()
    assert error < 0.2 * mean_error
    assert error < 0.5 * colour_error
    assert (reconstruction.input_values - samples).square().mean() < 0.2 * (
        samples - samples.mean(dim=0)
    ).square().mean()
    assert torch.equal(reconstruction.logits.argmax(dim=-1), batch["labels"])

    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert read_checkpoint(tmp_path / "a.ckpt")[KEY]["data"] == data.description()
    loaded = LitMultimodalAutoencoder.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu", weights_only=True)
    with torch.no_grad():
        torch.testing.assert_close(reconstruct(loaded.eval().model, batch), reconstruction, rtol=0, atol=0)
