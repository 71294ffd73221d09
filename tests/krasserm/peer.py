"""Independent implementation of perceiver-io's file layout and models, as an oracle."""

from __future__ import annotations

import copy
import functools
import json
import math
import sys
from dataclasses import make_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

Config = dict[str, Any]
State = dict[str, Tensor]

ENCODER = {
    "num_cross_attention_heads": 2,
    "num_cross_attention_qk_channels": None,
    "num_cross_attention_v_channels": None,
    "num_cross_attention_layers": 1,
    "first_cross_attention_layer_shared": False,
    "cross_attention_widening_factor": 1,
    "num_self_attention_heads": 4,
    "num_self_attention_qk_channels": None,
    "num_self_attention_v_channels": None,
    "num_self_attention_layers_per_block": 2,
    "num_self_attention_blocks": 1,
    "first_self_attention_block_shared": True,
    "self_attention_widening_factor": 1,
    "dropout": 0.1,
    "init_scale": 0.02,
    "freeze": True,
}
DECODER = {
    "num_cross_attention_heads": 2,
    "num_cross_attention_qk_channels": None,
    "num_cross_attention_v_channels": None,
    "cross_attention_widening_factor": 1,
    "cross_attention_residual": True,
    "dropout": 0.1,
    "init_scale": 0.02,
    "freeze": False,
}
WORDS = {"vocab_size": 262, "max_seq_len": 23}
CLASSES = {"num_output_queries": 1, "num_output_query_channels": 12, "num_classes": 5}
KINDS: dict[str, tuple[Config, Config]] = {
    "masked-language-model": (
        WORDS | {"num_input_channels": 14, "params": None},
        WORDS | {"num_output_query_channels": None},
    ),
    "text-classifier": (WORDS | {"num_input_channels": 14, "params": "some.ckpt"}, CLASSES),
    "image-classifier": (
        {"image_shape": (6, 9, 3), "num_frequency_bands": 3, "num_cross_attention_heads": 1},
        CLASSES,
    ),
    "optical-flow": (
        {
            "image_shape": (5, 8),
            "num_patch_input_channels": 27,
            "num_patch_hidden_channels": 10,
            "num_frequency_bands": 3,
        },
        {"image_shape": (5, 8), "rescale_factor": 30.0, "cross_attention_residual": False},
    ),
}
"""Values of encoder and decoder by kind, the suffix of ``model_type``."""


def model_config(kind: str, encoder: Config | None = None, decoder: Config | None = None, **values: Any) -> Config:
    """Return the ``model_config`` of ``config.json``, optionally changed."""
    encoder_values, decoder_values = copy.deepcopy(KINDS[kind])
    return {
        "encoder": ENCODER | encoder_values | (encoder or {}),
        "decoder": DECODER | decoder_values | (decoder or {}),
        "num_latents": 6,
        "num_latent_channels": 16,
        "activation_checkpointing": False,
        "activation_offloading": False,
    } | values


def fourier_table(shape: tuple[int, ...], num_bands: int) -> Tensor:
    """Compute Fourier positions (positions, channels) with scalars."""
    rows = []
    for index in torch.cartesian_prod(*(torch.arange(length) for length in shape)).view(-1, len(shape)).tolist():
        position = [-1.0 + 2.0 * i / (length - 1) for i, length in zip(index, shape, strict=True)]
        phases = [
            math.pi * p * (1.0 + (length / 2 - 1.0) * band / (num_bands - 1))
            for p, length in zip(position, shape, strict=True)
            for band in range(num_bands)
        ]
        rows.append([*position, *map(math.sin, phases), *map(math.cos, phases)])
    return torch.tensor(rows)


def num_input_channels(config: Config) -> int:
    encoder = config["encoder"]
    if "vocab_size" in encoder:
        return encoder["num_input_channels"]
    if "num_patch_hidden_channels" in encoder:
        return encoder["num_patch_hidden_channels"] + 2 * (2 * encoder["num_frequency_bands"] + 1)
    return encoder["image_shape"][2] + 2 * (2 * encoder["num_frequency_bands"] + 1)


def suffixes(number: int, is_first_shared: bool) -> str:
    """Return the suffixes of repeated layers: ``1`` for the first, ``n`` for later ones with other weights."""
    return "1" if number == 1 or is_first_shared else "1n"


class Shapes(dict[str, tuple[int, ...]]):
    """Shapes of weights by name."""

    def add_linear(self, name: str, inputs: int, outputs: int) -> None:
        self[f"{name}.weight"], self[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def add_norm(self, name: str, channels: int) -> None:
        self[f"{name}.weight"] = self[f"{name}.bias"] = (channels,)

    def add_layer(
        self, name: str, q: int, kv: int, qk: int | None, v: int | None, widening: int, residual=True
    ) -> None:
        """Add an attention layer; with ``kv=0`` a self-attention layer."""
        attention = f"{name}.0.module" if residual else f"{name}.0"
        qk = qk or q
        v = v or qk
        if kv:
            self.add_norm(f"{attention}.q_norm", q)
            self.add_norm(f"{attention}.kv_norm", kv)
        else:
            self.add_norm(f"{attention}.norm", q)
        self.add_linear(f"{attention}.attention.q_proj", q, qk)
        self.add_linear(f"{attention}.attention.k_proj", kv or q, qk)
        self.add_linear(f"{attention}.attention.v_proj", kv or q, v)
        self.add_linear(f"{attention}.attention.o_proj", v, q)
        self.add_norm(f"{name}.1.module.0", q)
        self.add_linear(f"{name}.1.module.1", q, widening * q)
        self.add_linear(f"{name}.1.module.3", widening * q, q)

    def add_encoder(self, config: Config) -> None:
        encoder, latent, inputs = config["encoder"], config["num_latent_channels"], num_input_channels(config)
        self["0.latent_provider._query"] = (config["num_latents"], latent)
        qk, v = (encoder[f"num_cross_attention_{kind}_channels"] for kind in ("qk", "v"))
        if "image_shape" in encoder:
            qk = qk or inputs
        if "num_patch_hidden_channels" in encoder:
            v = v or inputs
        for suffix in suffixes(encoder["num_cross_attention_layers"], encoder["first_cross_attention_layer_shared"]):
            self.add_layer(f"0.cross_attn_{suffix}", latent, inputs, qk, v, encoder["cross_attention_widening_factor"])
        qk, v = (encoder[f"num_self_attention_{kind}_channels"] for kind in ("qk", "v"))
        for suffix in suffixes(encoder["num_self_attention_blocks"], encoder["first_self_attention_block_shared"]):
            for i in range(encoder["num_self_attention_layers_per_block"]):
                self.add_layer(f"0.self_attn_{suffix}.{i}", latent, 0, qk, v, encoder["self_attention_widening_factor"])

    def add_input_adapter(self, config: Config) -> None:
        encoder, inputs = config["encoder"], num_input_channels(config)
        if "vocab_size" in encoder:
            self["0.input_adapter.txt_embedding.weight"] = (encoder["vocab_size"], inputs)
            self["0.input_adapter.pos_embedding.weight"] = (encoder["max_seq_len"], inputs)
        if "num_patch_hidden_channels" in encoder:
            hidden = encoder["num_patch_hidden_channels"]
            self.add_linear("0.input_adapter.linear", 2 * encoder["num_patch_input_channels"], hidden)

    def add_decoder(self, config: Config) -> None:
        encoder, decoder = config["encoder"], config["decoder"]
        queries = decoder.get("num_output_query_channels") or num_input_channels(config)
        number = decoder.get("max_seq_len") or ("vocab_size" in encoder and decoder.get("num_output_queries")) or 1
        if "rescale_factor" not in decoder:
            self["1.output_query_provider._query"] = (number, queries)
        qk, v = (decoder[f"num_cross_attention_{kind}_channels"] for kind in ("qk", "v"))
        widening, residual = decoder["cross_attention_widening_factor"], decoder["cross_attention_residual"]
        self.add_layer("1.cross_attn", queries, config["num_latent_channels"], qk, v, widening, residual)
        if "vocab_size" in decoder and decoder["num_output_query_channels"] is None:
            self["1.output_adapter.bias"] = (decoder["vocab_size"],)
        else:
            outputs = decoder.get("num_classes") or decoder.get("vocab_size") or 2
            self.add_linear("1.output_adapter.linear", queries, outputs)


def random_state(config: Config) -> State:
    """Return random weights with perceiver-io's names."""
    shapes = Shapes()
    shapes.add_encoder(config)
    shapes.add_input_adapter(config)
    shapes.add_decoder(config)
    # Scaled so that attention does not saturate.
    state = {
        name: torch.randn(shape) * (1.0 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.5)
        for name, shape in shapes.items()
    }
    encoder = config["encoder"]
    if "vocab_size" in encoder:
        return state
    table = fourier_table(tuple(encoder["image_shape"][:2]), encoder["num_frequency_bands"])
    return state | {"0.input_adapter.position_encoding.position_encoding": table}


def apply_linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def input_array(encoder: Config, state: State, x: Tensor) -> Tensor:
    if "vocab_size" in encoder:
        embedding = state["0.input_adapter.txt_embedding.weight"]
        return embedding[x] + state["0.input_adapter.pos_embedding.weight"][: x.shape[1]]
    if x.dim() == 5:
        x = apply_linear(state, "0.input_adapter.linear", x.double().flatten(1, 2).permute(0, 2, 3, 1))
    table = fourier_table(tuple(encoder["image_shape"][:2]), encoder["num_frequency_bands"]).double()
    return torch.cat([x.double().flatten(1, 2), table.expand(len(x), -1, -1)], dim=-1)


def outputs(config: Config, state: State, x: Tensor, padding: Tensor | None = None) -> Tensor:
    """Compute the model's output with the paper's formulas in double precision.

    Args:
        config: the configuration.
        state: the weights.
        x: tokens (b, n), pixels (b, h, w, c), or patches of two frames (b, 2, 27, h, w).
        padding: (b, n), True at padding.
    """
    state = {name: value.double() for name, value in state.items()}
    encoder, decoder = config["encoder"], config["decoder"]

    linear = functools.partial(apply_linear, state)

    def norm(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * state[f"{name}.weight"]
            + state[f"{name}.bias"]
        )

    def layer(name: str, x: Tensor, other: Tensor | None, heads: int, residual: bool = True) -> Tensor:
        attention = f"{name}.0.module" if residual else f"{name}.0"
        if other is None:
            x_q = x_kv = norm(f"{attention}.norm", x)
        else:
            x_q, x_kv = norm(f"{attention}.q_norm", x), norm(f"{attention}.kv_norm", other)
        q, k, v = (
            linear(f"{attention}.attention.{projection}_proj", each).unflatten(-1, (heads, -1)).transpose(1, 2)
            for projection, each in (("q", x_q), ("k", x_kv), ("v", x_kv))
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if padding is not None and name.startswith("0.cross"):
            scores = scores.masked_fill(padding[:, None, None], -math.inf)
        values = (scores.exp() / scores.exp().sum(-1, keepdim=True)) @ v
        values = linear(f"{attention}.attention.o_proj", values.transpose(1, 2).flatten(2))
        x = x + values if residual else values
        hidden = linear(f"{name}.1.module.1", norm(f"{name}.1.module.0", x))
        return x + linear(f"{name}.1.module.3", hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))

    array = input_array(encoder, state, x)
    latents = state["0.latent_provider._query"].expand(len(x), -1, -1)
    heads = encoder["num_cross_attention_heads"], encoder["num_self_attention_heads"]
    for block in range(encoder["num_self_attention_blocks"]):
        suffix = "1" if block == 0 or "0.cross_attn_n.0.module.q_norm.weight" not in state else "n"
        if block < encoder["num_cross_attention_layers"]:
            latents = layer(f"0.cross_attn_{suffix}", latents, array, heads[0])
        suffix = "1" if block == 0 or "0.self_attn_n.0.0.module.norm.weight" not in state else "n"
        for i in range(encoder["num_self_attention_layers_per_block"]):
            latents = layer(f"0.self_attn_{suffix}.{i}", latents, None, heads[1])

    queries = state["1.output_query_provider._query"][None] if "rescale_factor" not in decoder else array
    residual = decoder["cross_attention_residual"]
    decoded = layer("1.cross_attn", queries, latents, decoder["num_cross_attention_heads"], residual)
    if "1.output_adapter.bias" in state:
        output = decoded @ state["0.input_adapter.txt_embedding.weight"].T + state["1.output_adapter.bias"]
    else:
        output = linear("1.output_adapter.linear", decoded) / decoder.get("rescale_factor", 1.0)
    return output[:, 0] if output.shape[1] == 1 else output


def random_inputs(config: Config) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return arguments of :func:`outputs`, and the same input as a batch of this project."""
    encoder = config["encoder"]
    if "vocab_size" in encoder:
        length = encoder["max_seq_len"]
        ids = torch.randint(encoder["vocab_size"], (3, length))
        padding = torch.arange(length) >= torch.tensor([[length], [length - 5], [3]])
        return {"x": ids, "padding": padding}, {"input_ids": ids, "attention_mask": (~padding).long()}
    if len(encoder["image_shape"]) == 3:
        pixels = torch.randn(3, *encoder["image_shape"])
        return {"x": pixels}, {"pixel_values": pixels.permute(0, 3, 1, 2)}
    height, width = encoder["image_shape"]
    frames = torch.randn(3, 2, 3, height, width)
    # Channels of the patch around a pixel in the order row, column, colour, as in TensorFlow.
    border = math.isqrt(encoder["num_patch_input_channels"] // 3) // 2
    bordered = torch.zeros(3, 2, 3, height + 2 * border, width + 2 * border)
    bordered[..., border : border + height, border : border + width] = frames
    patches = torch.cat(
        [
            bordered[..., row : row + height, column : column + width]
            for row in range(2 * border + 1)
            for column in range(2 * border + 1)
        ],
        dim=2,
    )
    return {"x": patches}, {"frames": frames}


def save_folder(path: Path, kind: str, config: Config, state: State, safe: bool = True, **settings: Any) -> str:
    """Write a folder as perceiver-io publishes models."""
    path.mkdir(parents=True, exist_ok=True)
    file_config = {"model_type": f"perceiver-io-{kind}", "model_config": config, "transformers_version": "4.31.0"}
    (path / "config.json").write_text(json.dumps(file_config | settings))
    weights = {f"backend_model.{name}": value for name, value in state.items()}
    if safe:
        save_file(weights, path / "model.safetensors", {"format": "pt"})
    else:
        torch.save(weights, path / "pytorch_model.bin")
    return str(path)


def save_checkpoint(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hyper_parameters: Config,
    state: State,
    data_options: Config | None = None,
    **more: Any,
) -> str:
    """Writes a checkpoint as Lightning does, with objects of perceiver-io's classes where a part is a configuration."""
    with monkeypatch.context() as patch:
        parts = {
            part: instance(
                patch, f"perceiver.model.{part}.backend", f"Some{part.title()}Config", hyper_parameters[part]
            )
            for part in ("encoder", "decoder")
            if part in hyper_parameters
        }
        checkpoint = {
            "epoch": 3,
            "global_step": 20,
            "pytorch-lightning_version": "2.0.2",
            "state_dict": {f"model.{name}": value for name, value in state.items()},
            "loops": {},
            "callbacks": {},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(20.0)}}, "param_groups": []}],
            "lr_schedulers": [],
            "hparams_name": "kwargs",
            "hyper_parameters": hyper_parameters | parts | {"params": None},
        }
        if data_options is not None:
            checkpoint["datamodule_hyper_parameters"] = data_options
        torch.save(checkpoint | more, path)
    return str(path)


def instance(patch: pytest.MonkeyPatch, module: str, name: str, values: Config) -> Any:
    """Return an object of a class in a temporary module, which can be pickled."""
    kind = make_dataclass(name, values)
    kind.__module__ = module
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        patch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
    sys.modules[module].__dict__[name] = kind
    return kind(**values)


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()
