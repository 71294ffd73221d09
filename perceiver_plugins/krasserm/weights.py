"""Names of the weights of krasserm/perceiver-io.

A "pair" has the names of a parameter in this project and in perceiver-io.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from perceiver_core import EncoderConfig
from perceiver_plugins.krasserm.files import Original
from perceiver_plugins.sdk.state_dicts import Pairs, module_pairs
from perceiver_registry import UserError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")

ALL_LINEAR = (*(f"attention.{each}" for each in PROJECTIONS), "mlp.hidden", "mlp.output")
"""Linear layers of an attention layer."""


def rename_weights(
    original: Original, state: Mapping[str, Tensor], pairs: Iterable[tuple[str, str]], kind: str
) -> dict[str, Tensor]:
    """Rename the weights of an original model.

    Args:
        original: the original model, for messages.
        state: its weights.
        pairs: the pairs of all parameters.
        kind: name of the kind of model in messages.

    Raises:
        UserError: if weights are missing, or are not among the pairs.
    """
    pairs = list(pairs)
    expected = {original_name for _, original_name in pairs}
    for problem, names in (("lack", expected - {*state}), ("do not fit its configuration:", {*state} - expected)):
        if names:
            raise UserError(f"{original.source}: the weights of this {kind} {problem} {min(names)!r}")
    return {name: state[original_name] for name, original_name in pairs}


def encoder_pairs(encoder: EncoderConfig) -> Pairs:
    """Return the pairs of the encoder.

    In perceiver-io, ``_1`` is the first layer or block, and ``_n`` the later ones if they do not share its weights.
    """
    yield "encoder.latents", "0.latent_provider._query"
    own_cross = encoder.num_cross_attention_layers > 1 and not encoder.first_cross_attention_layer_shared
    for number, suffix in enumerate("1n" if own_cross else "1"):
        yield from layer_pairs(f"encoder.cross_attention_layers.{number}", f"0.cross_attn_{suffix}", cross=True)
    own_block = encoder.num_self_attention_blocks > 1 and not encoder.first_self_attention_block_shared
    for number, suffix in enumerate("1n" if own_block else "1"):
        for layer in range(encoder.num_self_attention_layers_per_block):
            yield from layer_pairs(
                f"encoder.self_attention_blocks.{number}.{layer}", f"0.self_attn_{suffix}.{layer}", cross=False
            )


def layer_pairs(
    name: str, original_name: str, cross: bool, residual: bool = True, biases: tuple[str, ...] = ALL_LINEAR
) -> Pairs:
    """Return the pairs of an attention layer.

    Args:
        name: name of the layer in this project.
        original_name: name of the layer in perceiver-io.
        cross: the layer is a cross-attention.
        residual: the attention has a residual connection, which is a module in perceiver-io.
        biases: linear layers with a bias.
    """
    attention = f"{original_name}.0.module" if residual else f"{original_name}.0"
    for norm in ("q_norm", "kv_norm") if cross else ("norm",):
        yield from module_pairs(f"{name}.{norm}", f"{attention}.{norm}")
    yield from module_pairs(f"{name}.mlp_norm", f"{original_name}.1.module.0")
    linear = {f"attention.{each}": f"{attention}.attention.{each}" for each in PROJECTIONS}
    linear |= {"mlp.hidden": f"{original_name}.1.module.1", "mlp.output": f"{original_name}.1.module.3"}
    for each, linear_name in linear.items():
        yield from module_pairs(f"{name}.{each}", linear_name, ("weight", "bias") if each in biases else ("weight",))
