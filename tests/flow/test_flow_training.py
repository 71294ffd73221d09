"""Training of optical flow models: loss and metrics."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
import torch
from sample_data import sample_data
from torch.utils.data import DataLoader

from perceiver_plugins.checkpoints.random_data import Rows
from perceiver_plugins.flow.data import FlyingChairsDataModule
from perceiver_plugins.flow.lightning import LitOpticalFlow, end_point_errors
from perceiver_plugins.sdk.data.loading import identity_collate
from perceiver_registry import UserError


def random_batch(size: int = 3, height: int = 8, width: int = 12) -> dict[str, torch.Tensor]:
    labels = 10 * torch.randn(size, 2, height, width)
    labels[0, :, :3] = torch.nan
    labels[1, 0, 2, 5] = torch.nan  # one unknown component
    return {"frames": torch.randn(size, 2, 3, height, width), "labels": labels}


def expected_errors(flow: np.ndarray, labels: np.ndarray) -> list[float]:
    """Compute the end-point error of each pixel with known flow."""
    return [
        float(np.hypot(*(flow[i, :, y, x] - labels[i, :, y, x])))
        for i in range(len(flow))
        for y in range(flow.shape[2])
        for x in range(flow.shape[3])
        if np.isfinite(labels[i, :, y, x]).all()
    ]


@torch.no_grad()
def test_loss_is_end_point_error_in_pixels(flow_module):
    module = flow_module(decoder={"rescale_factor": 3.0, "flow_scale_factor": 7.0})
    batch = random_batch()
    flow = module.flow(batch["frames"])
    assert flow.shape == (3, 2, 8, 12)
    output = module.model(batch) * 7.0
    torch.testing.assert_close(flow[:, :, 5, 4], output[:, 5 * 12 + 4])
    expected = expected_errors(flow.numpy(), batch["labels"].numpy())
    for loss in (module.loss_sum(batch), module.evaluate(batch, "val")):
        assert int(loss.count) == len(expected) == 3 * 96 - 36 - 1
        assert float(loss.total) == pytest.approx(sum(expected), rel=1e-4)


def test_unknown_flow_has_no_gradient(flow_module):
    module, batch = flow_module(), random_batch()
    batch["labels"][2] = torch.nan
    frames = batch["frames"].requires_grad_()
    module.loss_sum(batch).total.backward()
    assert frames.grad.isfinite().all()
    assert frames.grad[2].abs().max() == 0 < frames.grad[0].abs().max()
    assert all(parameter.grad.isfinite().all() for parameter in module.model.parameters())


def test_end_point_errors_of_perfect_flow_and_unknown_targets():
    targets = torch.randn(2, 5, 2)
    targets[0, 1] = torch.nan
    answers = targets.nan_to_num().requires_grad_()
    errors = end_point_errors(answers, targets)
    errors.total.backward()
    assert (float(errors.mean.detach()), int(errors.count), float(answers.grad.abs().max())) == (0.0, 9, 0.0)
    nothing = end_point_errors(answers, torch.full_like(targets, torch.nan))
    assert (float(nothing.mean), int(nothing.count)) == (0.0, 0)


def test_mean_loss_at_random_positions_equals_loss_at_all(flow_module):
    whole, some = flow_module(), flow_module(num_places=10)
    some.load_state_dict(whole.state_dict())
    batch = random_batch()
    with torch.no_grad():
        losses = [some.loss_sum(batch) for _ in range(200)]
        expected = float(whole.loss_sum(batch).mean)
    counts = [int(loss.count) for loss in losses]
    assert max(counts) <= 30
    assert np.mean(counts) == pytest.approx(30 * (3 * 96 - 37) / (3 * 96), rel=0.05)
    assert float(sum(loss.total for loss in losses)) / sum(counts) == pytest.approx(expected, rel=0.05)
    assert int(some.evaluate(batch, "val").count) == 3 * 96 - 37  # all, in evaluation


def test_num_places_above_number_of_pixels_decodes_all(flow_module):
    module, batch = flow_module(num_places=1000), random_batch()
    with torch.no_grad():
        assert int(module.loss_sum(batch).count) == 3 * 96 - 37


def test_metrics_are_means_over_known_pixels(flow_module, quiet_trainer):
    module = flow_module()
    batch = random_batch(5)
    expected = expected_errors(module.flow(batch["frames"]).numpy(), batch["labels"].numpy())
    zero = expected_errors(np.zeros((5, 2, 8, 12)), batch["labels"].numpy())
    loader = DataLoader(Rows(batch), batch_size=2, collate_fn=identity_collate)
    trainer = quiet_trainer()
    (validated,) = trainer.validate(module, loader, verbose=False)
    assert validated["val_loss"] == pytest.approx(validated["val_epe"], rel=1e-5)
    (tested,) = trainer.test(module, loader, verbose=False)
    for stage, found in (("val", validated), ("test", tested)):
        assert found[f"{stage}_epe"] == pytest.approx(np.mean(expected), rel=1e-4)
        assert found[f"{stage}_zero_epe"] == pytest.approx(np.mean(zero), rel=1e-4)


def test_adapter_with_fewer_positions_than_pixels_is_rejected(flow_module):
    module = flow_module()
    batch = random_batch()
    module.model.input_adapter.forward = lambda batch: type(adapted)(adapted.x[:, ::2])
    adapted = type(module.model.input_adapter).forward(module.model.input_adapter, batch)
    for use in (module.loss_sum, lambda batch: module.flow(batch["frames"])):
        with pytest.raises(UserError, match="the model has 48 output positions for frames of 8x12 pixels"):
            use(batch)


def test_invalid_options_are_rejected(flow_config):
    with pytest.raises(UserError, match="num_places=0 must be at least 1"):
        LitOpticalFlow.create(flow_config(), num_places=0)


@pytest.mark.slow
def test_model_overfits_four_pairs(flow_config, chairs, quiet_trainer):
    """The flow of the frames is (0, 0), (1, -1), (2, -2) and (3, -3)."""
    data = FlyingChairsDataModule(str(chairs(4, size=(8, 12))), val_fraction=0, batch_size=4, seed=0)
    config = flow_config({"init_scale": 0.2}, {"rescale_factor": 1.0, "flow_scale_factor": 2.0})
    module = LitOpticalFlow.create(config, optimizer={"name": "AdamW", "lr": 0.01}, num_places=48)
    trainer = quiet_trainer(max_steps=80, check_val_every_n_epoch=80)
    trainer.fit(module, data)
    metrics = trainer.callback_metrics
    assert metrics["val_zero_epe"] == pytest.approx(1.5 * 2**0.5, rel=1e-4)
    assert metrics["val_epe"] < 0.5 * metrics["val_zero_epe"]
    assert metrics["train_epe"] < 0.7 * metrics["val_zero_epe"]


@pytest.mark.slow
def test_model_overfits_flying_chairs(flow_config, quiet_trainer, tmp_path):
    with tarfile.open(sample_data("flyingchairs/pairs.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    data = FlyingChairsDataModule(str(tmp_path), val_fraction=0, downscale=16, batch_size=6, seed=0)
    config = flow_config(
        {
            "image_size": (24, 32),
            "init_scale": 0.1,
            "num_frequency_bands": 12,
            "num_self_attention_layers_per_block": 2,
        },
        {"rescale_factor": 1.0, "num_cross_attention_qk_channels": 64},
        num_latents=32,
        num_latent_channels=64,
    )
    module = LitOpticalFlow.create(config, optimizer={"name": "AdamW", "lr": 0.002}, num_places=256)
    trainer = quiet_trainer(max_steps=120, check_val_every_n_epoch=120, gradient_clip_val=1.0)
    trainer.fit(module, data)
    metrics = trainer.callback_metrics
    assert metrics["val_epe"] < 0.5 * metrics["val_zero_epe"]
