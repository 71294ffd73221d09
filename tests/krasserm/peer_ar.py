"""Independent implementation of perceiver-io's Perceiver AR, as an oracle."""

from __future__ import annotations

import functools
import math
from typing import Any

import peer
import torch
from torch import Tensor

CONFIG: peer.Config = {
    "num_heads": 4,
    "max_heads_parallel": None,
    "num_self_attention_layers": 3,
    "num_self_attention_rotary_layers": 1,
    "self_attention_widening_factor": 4,
    "cross_attention_widening_factor": 3,
    "cross_attention_dropout": 0.4,
    "post_attention_dropout": 0.1,
    "residual_dropout": 0.2,
    "activation_checkpointing": False,
    "activation_offloading": False,
    "vocab_size": 262,
    "max_seq_len": 23,
    "max_latents": 7,
    "num_channels": 32,
    "output_norm": False,
    "output_bias": True,
    "abs_pos_emb": True,
    "init_scale": 0.03,
}


def model_config(**values: Any) -> peer.Config:
    return CONFIG | values


def shapes(config: peer.Config) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights by perceiver-io's names."""
    channels, vocabulary = config["num_channels"], config["vocab_size"]
    found: dict[str, tuple[int, ...]] = {"input_adapter.txt_embedding.weight": (vocabulary, channels)}
    if config["abs_pos_emb"]:
        found["input_adapter.pos_embedding.weight"] = (config["max_seq_len"], channels)
    norms = []
    for name, widening in [("cross_attention", config["cross_attention_widening_factor"])] + [
        (f"self_attention.{layer}", config["self_attention_widening_factor"])
        for layer in range(config["num_self_attention_layers"])
    ]:
        norms += [f"{name}.0.module.{norm}" for norm in (("q_norm", "kv_norm") if name[0] == "c" else ("norm",))]
        norms += [f"{name}.1.module.0"]
        for projection in "qkvo":
            found[f"{name}.0.module.attention.{projection}_proj.weight"] = (channels, channels)
        found[f"{name}.1.module.1.weight"] = (widening * channels, channels)
        found[f"{name}.1.module.3.weight"] = (channels, widening * channels)
    found["cross_attention.0.module.attention.o_proj.bias"] = (channels,)
    for norm in [*norms, *(["out_norm"] if config["output_norm"] else [])]:
        found[f"{norm}.weight"] = found[f"{norm}.bias"] = (channels,)
    if config["output_bias"]:
        found["output_adapter.bias"] = (vocabulary,)
    return found


def num_rotated(config: peer.Config) -> int:
    return config["num_channels"] // config["num_heads"] // (2 if config["abs_pos_emb"] else 1)


def frequencies(config: peer.Config) -> Tensor:
    dim = num_rotated(config)
    return torch.tensor([10_000 ** (-2 * i / dim) for i in range(dim // 2)])


def random_state(config: peer.Config) -> peer.State:
    """Return random weights, so large that a wrong model differs."""
    state = {
        name: torch.randn(shape) * (1.5 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.5)
        for name, shape in shapes(config).items()
    }
    return state | {"input_adapter.frq_pos_encoding.inv_freq": frequencies(config)}


def outputs(config: peer.Config, state: peer.State, ids: Tensor, prefix: int, num_pads: int = 0) -> Tensor:
    """Compute the logits (n, vocabulary) for one sequence in double precision, by loops over queries.

    Args:
        config: the configuration.
        state: the weights.
        ids: tokens (m,).
        prefix: tokens before those of latents.
        num_pads: leading tokens that are padding, fewer than ``prefix``.
    """
    state = {name: value.double() for name, value in state.items()}
    rotated, half_turns = num_rotated(config), frequencies(config).double()

    def norm(name: str, x: Tensor) -> Tensor:
        return functools.partial(torch.nn.functional.layer_norm, x, x.shape[-1:])(
            state[f"{name}.weight"], state[f"{name}.bias"]
        )

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(()))

    def rotate(x: Tensor, position: int) -> Tensor:
        """Multiply pairs of channels of heads (h, k), as complex numbers, by exp(i * position * frequency)."""
        pairs = torch.view_as_complex(x[:, :rotated].reshape(len(x), -1, 2).contiguous())
        turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(half_turns), position * half_turns))
        return torch.cat([turned.flatten(1), x[:, rotated:]], dim=1)

    def layer(name: str, x: Tensor, q: Tensor, kv: Tensor, first: int, pads: int, is_rotated: bool) -> Tensor:
        attention = f"{name}.0.module.attention"
        heads = (config["num_heads"], -1)
        q, k, v = (
            linear(f"{attention}.{each}_proj", y).unflatten(-1, heads) for each, y in (("q", q), ("k", kv), ("v", kv))
        )
        offset = len(k) - len(q)
        if is_rotated:
            q = torch.stack([rotate(each, first + offset + i) for i, each in enumerate(q)])
            k = torch.stack([rotate(each, first + i) for i, each in enumerate(k)])
        found = []
        for i, query in enumerate(q):
            seen = slice(pads, offset + i + 1)
            weights = (torch.einsum("hc,mhc->mh", query, k[seen]) / math.sqrt(query.shape[-1])).softmax(dim=0)
            found.append(torch.einsum("mh,mhc->hc", weights, v[seen]).flatten())
        x = x + linear(f"{attention}.o_proj", torch.stack(found))
        hidden = linear(f"{name}.1.module.1", norm(f"{name}.1.module.0", x))
        return x + linear(f"{name}.1.module.3", hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2))))

    x = state["input_adapter.txt_embedding.weight"][ids]
    if config["abs_pos_emb"]:
        positions = (torch.arange(len(ids)) - num_pads).clamp(min=0)
        x = x + state["input_adapter.pos_embedding.weight"][positions]
    before, latents = x[:prefix], x[prefix:]
    queries = norm("cross_attention.0.module.q_norm", latents)
    keys = torch.cat([norm("cross_attention.0.module.kv_norm", before), queries])
    latents = layer("cross_attention", latents, queries, keys, 0, num_pads, True)
    for i in range(config["num_self_attention_layers"]):
        inputs = norm(f"self_attention.{i}.0.module.norm", latents)
        is_rotated = i < config["num_self_attention_rotary_layers"] or config["num_self_attention_rotary_layers"] == -1
        latents = layer(f"self_attention.{i}", latents, inputs, inputs, prefix, 0, is_rotated)
    if config["output_norm"]:
        latents = norm("out_norm", latents)
    logits = latents @ state["input_adapter.txt_embedding.weight"].T
    return logits + state["output_adapter.bias"] if config["output_bias"] else logits


def save_folder(path: Any, config: peer.Config, state: peer.State, is_music: bool = False, **settings: Any) -> str:
    """Write a folder as perceiver-io publishes models."""
    kind = "symbolic-audio-model" if is_music else "causal-language-model"
    return peer.save_folder(path, "", config, state, **{"model_type": f"perceiver-ar-{kind}"} | settings)
