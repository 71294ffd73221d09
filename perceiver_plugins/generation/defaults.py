"""Defaults that tasks of causal models share. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SMALL_MODEL: Mapping[str, Any] = {
    "data.max_seq_len": 512,
    "data.batch_size": 16,
    "model.encoder.num_input_channels": 128,
    "model.encoder.num_cross_attention_heads": 4,
    "model.encoder.num_self_attention_heads": 4,
    "model.encoder.num_self_attention_layers_per_block": 4,
    "model.decoder": "tokens",
    "model.max_seq_len": 512,
    "model.num_latents": 128,
    "model.num_latent_channels": 128,
    "optimizer": "Muon",
    "optimizer.lr": 8e-3,
    "lr_scheduler": "CosineWithWarmup",
    "lr_scheduler.warmup_steps": 100,
    "trainer.max_epochs": 1,
    "trainer.gradient_clip_val": 1.0,
}
"""A model that learns within minutes on a CPU, and its training."""
