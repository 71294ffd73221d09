"""Precision plugins of the trainer, which replace the default precision."""

from __future__ import annotations

import pytest
import torch

PLUGIN = "--trainer.plugins=[{class_path: MixedPrecision, init_args: {precision: bf16-mixed, device: cpu}}]"


def test_plugin_replaces_the_default_precision(perceiver, small, monkeypatch):
    dtypes = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr("torch.nn.functional.linear", lambda *args: dtypes.append((y := linear(*args)).dtype) or y)
    result = perceiver("fit", *small, "--trainer.max_steps=1", PLUGIN)
    assert result.code == 0, result.err
    assert torch.bfloat16 in dtypes


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_plugin_beside_a_precision_is_refused(precision, perceiver, small):
    assert "Choose one" in perceiver("fit", *small, f"--trainer.precision={precision}", PLUGIN).error
