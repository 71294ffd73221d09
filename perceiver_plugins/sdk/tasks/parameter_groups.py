"""Parameter groups of an optimizer: weight decay without biases and norms, and layer-wise learning rate decay."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from perceiver_plugins.sdk.tasks.muon import MATRICES, Muon
from perceiver_registry.errors import UserError

LAYER_DECAY = "layer_decay"
"""Key of an optimizer's plain config: ratio of each layer's learning rate to that of the next layer."""

LR_SCALE = "lr_scale"
"""Key of a parameter group: its learning rate relative to the optimizer's, as in timm. Absent: 1."""

NO_DECAY = "no_decay"
"""Key of a parameter group without weight decay, whatever the optimizer's weight decay is."""

ENCODER_LAYER = re.compile(
    r"(?:model\.)?encoder\.(?:cross_attention_layers\.(\d+)|self_attention_blocks\.(\d+)\.(\d+))\."
)
FIRST_LAYER = re.compile(r"(?:model\.)?(?:input_adapter|encoder)\.")
ADAPTER = re.compile(r"(?:^|\.)(?:input|output)_adapter\.")


def group_parameters(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    config: Mapping[str, Any],
    optimizer: type[Optimizer],
    exclude: bool | None = None,
    matrices: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Divide trainable parameters into groups for an optimizer.

    Biases and parameters of at most one dimension, such as the scales of norms, have no weight decay: the rule of
    ``timm.optim.param_groups_weight_decay``, and of the Perceiver authors' training code. Like that code, it decays
    latents, embeddings and learned positions.

    With ``"layer_decay"`` in the config, the learning rate is multiplied by this factor from each layer to the one
    before it, as in BEiT (https://arxiv.org/abs/2106.08254). The layers are, from the lowest rate to the full one:

    1. the input adapter and the latents,
    2. each cross-attention layer and each self-attention layer of the encoder, in the order of their first
       application; a layer that is applied several times counts once,
    3. everything else: decoder, output queries and output adapter. Weights that an output adapter shares with the
       input adapter belong to the first layer.

    :class:`~perceiver_plugins.sdk.tasks.muon.Muon` has groups of matrices of layers (:func:`find_matrices`).

    Args:
        named_parameters: names and parameters of a module.
        config: plain config of the optimizer.
        optimizer: class of the optimizer.
        exclude: exclude biases and norms from weight decay. None: if the optimizer's weight decay is not 0.
        matrices: names of matrices of layers. Default: none.

    Returns:
        The groups, those with a higher learning rate first, those with weight decay before those without, and those of
        matrices last.

    Raises:
        UserError: if ``"layer_decay"`` is out of range, or the optimizer has no learning rate.
    """
    named = list(named_parameters)
    if exclude is None:
        exclude = has_weight_decay(config, optimizer)
    scales = _lr_scales([name for name, _ in named], config.get(LAYER_DECAY))
    names = set(matrices) if issubclass(optimizer, Muon) else set()
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            no_decay = exclude and (parameter.ndim <= 1 or name.endswith(".bias"))
            groups.setdefault((scales[name], no_decay, name in names), []).append(parameter)
    keys = sorted(groups, key=lambda key: (-key[0], *key[1:]))
    return [{"params": groups[key], **_options(*key, _argument("lr", config, optimizer))} for key in keys]


def find_matrices(module: nn.Module) -> frozenset[str]:
    """Return the names of the weights of all linear layers of a module, except those inside of adapters."""
    layers = ((name, each) for name, each in module.named_modules() if isinstance(each, nn.Linear))
    return frozenset(f"{name}.weight" for name, _ in layers if not ADAPTER.search(name))


def has_weight_decay(config: Mapping[str, Any], optimizer: type[Optimizer]) -> bool:
    """Return whether an optimizer has a weight decay other than 0."""
    return bool(_argument("weight_decay", config, optimizer))


def group_rates(groups: Iterable[Mapping[str, Any]], lr: float) -> list[float]:
    """Return the learning rates of parameter groups for the optimizer's learning rate ``lr``."""
    return [lr * group.get(LR_SCALE, 1) for group in groups]


def check_groups(states: Iterable[Any]) -> None:
    """Check the saved parameter groups of optimizers: their learning rates, and the options that this module sets.

    Raises:
        ValueError: if an option is missing or has a wrong type.
    """
    for state in states:
        groups = state.get("param_groups") if isinstance(state, Mapping) else None
        if not isinstance(groups, list) or not all(map(_is_group, groups)):
            raise ValueError("optimizer_states is damaged or belongs to another model")


def _is_group(group: Any) -> bool:
    if not isinstance(group, Mapping):
        return False
    scale = group.get(LR_SCALE, 1.0)
    has_decay = NO_DECAY not in group or (isinstance(group[NO_DECAY], bool) and _is_number(group.get("weight_decay")))
    return _is_number(group.get("lr")) and isinstance(scale, float | int) and 0 < scale <= 1 and has_decay


def _is_number(value: Any) -> bool:
    is_scalar = isinstance(value, Tensor) and value.numel() == 1
    return is_scalar or (isinstance(value, int | float) and not isinstance(value, bool))


def _argument(name: str, config: Mapping[str, Any], optimizer: type[Optimizer]) -> Any:
    """Value of an optimizer's argument; None if it has no such argument."""
    parameter = inspect.signature(optimizer).parameters.get(name)
    return None if parameter is None else config.get(name, parameter.default)


def _options(scale: float, no_decay: bool, are_matrices: bool, lr: Any) -> dict[str, Any]:
    """Options of a group that differ from the optimizer's."""
    options: dict[str, Any] = {"weight_decay": 0.0, NO_DECAY: True} if no_decay else {}
    if are_matrices:
        options[MATRICES] = True
    if scale != 1.0:
        if not isinstance(lr, int | float):
            raise UserError("--optimizer.layer_decay: needs a learning rate to scale (set --optimizer.lr)")
        options |= {"lr": lr * scale, LR_SCALE: scale}
    return options


def _lr_scales(names: Iterable[str], layer_decay: float | None) -> dict[str, float]:
    """Learning rates of parameters by name, relative to the optimizer's."""
    if layer_decay is None:
        return dict.fromkeys(names, 1.0)
    if not 0.0 < layer_decay <= 1.0:
        raise UserError(f"--optimizer.layer_decay: must be more than 0 and at most 1, got {layer_decay}")
    layers = {name: _layer(name) for name in names}
    last_first = sorted(set(layers.values()), reverse=True)
    return {name: layer_decay ** last_first.index(layer) for name, layer in layers.items()}


def _layer(name: str) -> tuple[int, ...]:
    """Sort key of a parameter's layer, from input to output."""
    match = ENCODER_LAYER.match(name)
    if match is None:
        return (0,) if FIRST_LAYER.match(name) else (2,)
    cross_attention, block, number = match.groups()
    return (1, int(block), 1, int(number)) if cross_attention is None else (1, int(cross_attention), 0)
