"""Runs with an infinite loss fail, and weights that are not finite are refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture
def flags(regressor) -> list[str]:
    """Flags of a run that diverges in its first steps."""
    return [*regressor.flags, "--trainer.max_epochs=4", "--optimizer.lr=1e30", "--trainer.gradient_clip_val=null"]


def test_diverging_run_fails(perceiver, flags, tmp_path):
    result = perceiver("fit", *flags)
    assert result.code == 1
    line = result.err.splitlines()[-1]
    assert line.startswith("perceiver: step 1: the training loss is not finite (NaN or infinite); likely causes: ")
    assert "--optimizer.lr, now 1e+30" in line
    for path in tmp_path.rglob("*.ckpt"):
        assert all(value.isfinite().all() for value in torch.load(path, weights_only=True)["state_dict"].values())


@pytest.mark.slow
def test_last_finite_state_can_be_resumed(perceiver, regressor, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "perceiver_plugins.sdk.tasks.lightning.LitPerceiver.on_before_zero_grad",
        lambda self, _: self.trainer.global_step == 3 and self.trainer.optimizers[0].param_groups[0].update(lr=1e30),
        raising=False,
    )
    result = perceiver("fit", *regressor.flags, "--checkpoint.every_n_steps=3")
    assert result.code == 1
    path = "logs/regression/version_0/checkpoints/last.ckpt"
    assert result.err.splitlines()[-1].endswith(f"; the last finite state is {path}")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert perceiver("fit", f"--ckpt_path={path}", "--optimizer.lr=1e-3").code == 0


@pytest.mark.parametrize("command", ["predict", "validate", "test", "fit"])
def test_checkpoint_with_nan_is_refused(perceiver, regressor, table, command):
    checkpoint = torch.load(regressor.last, weights_only=True)
    checkpoint["state_dict"]["model.output_adapter.linear.bias"][0] = torch.nan
    torch.save(checkpoint, "nan.ckpt")
    inputs = [str(table)] if command == "predict" else []
    line = perceiver(command, "--ckpt_path=nan.ckpt", *inputs).error
    assert line.startswith("nan.ckpt: 'model.output_adapter.linear.bias' is not finite (NaN or infinite)")


def test_safetensors_with_infinity_is_refused(perceiver, regressor):
    assert perceiver("convert", str(regressor.last), "good.safetensors").code == 0
    weights = load_file("good.safetensors")
    weights["output_adapter.linear.bias"][0] = torch.inf
    save_file(weights, "inf.safetensors")
    assert "is not finite" in perceiver("fit", *regressor.flags, "--model.params=inf.safetensors").error


def test_run_without_validation_is_reported(perceiver, regressor):
    result = perceiver("fit", *regressor.flags, "--trainer.limit_val_batches=0")
    assert result.code == 0, result.err
    assert "No validation was run, so best.ckpt was not saved.\n" in result.out
