"""Optimizers and learning rate schedules by name: own ones, torch's and, if it is installed, timm's."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from perceiver_plugins.sdk.tasks.muon import Muon
from perceiver_plugins.sdk.tasks.parameter_groups import LAYER_DECAY, LR_SCALE, NO_DECAY, group_rates
from perceiver_registry.errors import UserError, near
from perceiver_registry.extras import MissingRequirement, find_requirement

NAME = "name"
"""Key of a plain config: name of the optimizer or schedule. The other keys are its arguments."""

IN_BACKWARD = "in_backward"
"""Key of an optimizer's plain config: step inside the backward pass."""

OWN_KEYS = (NAME, IN_BACKWARD, LAYER_DECAY)
"""Keys of an optimizer's plain config that are not arguments of its class."""


def constant_with_warmup(optimizer: Optimizer, warmup_steps: int = 0) -> LRScheduler:
    """Constant learning rate after linear warm-up from 0.

    Args:
        optimizer: the optimizer.
        warmup_steps: optimizer steps until the full learning rate.
    """
    return LambdaLR(optimizer, functools.partial(_constant_factor, warmup_steps=warmup_steps))


def cosine_with_warmup(
    optimizer: Optimizer,
    warmup_steps: int = 0,
    training_steps: int | None = None,
    min_fraction: float = 0.0,
    constant_fraction: float = 0.0,
) -> LRScheduler:
    """Cosine decay of the learning rate after linear warm-up from 0.

    Args:
        optimizer: the optimizer.
        warmup_steps: optimizer steps until the full learning rate.
        training_steps: optimizer steps until the end. None: number of steps of the run.
        min_fraction: final learning rate as a fraction of the full one.
        constant_fraction: fraction of the optimizer steps, warm-up included, before the decay begins.
    """
    if training_steps is None:
        raise ValueError("cosine_with_warmup: training_steps is unknown")
    if not 0.0 <= constant_fraction < 1.0:
        raise ValueError(f"constant_fraction={constant_fraction} must be at least 0 and less than 1")
    factor = functools.partial(
        _cosine_factor,
        warmup_steps=warmup_steps,
        decay_start=max(warmup_steps, round(constant_fraction * training_steps)),
        training_steps=training_steps,
        min_fraction=min_fraction,
    )
    return LambdaLR(optimizer, factor)


def _constant_factor(step: int, *, warmup_steps: int) -> float:
    return step / max(1.0, warmup_steps) if step < warmup_steps else 1.0


def _cosine_factor(
    step: int, *, warmup_steps: int, decay_start: int, training_steps: int, min_fraction: float
) -> float:
    if step < decay_start:
        return _constant_factor(step, warmup_steps=warmup_steps)
    progress = (step - decay_start) / max(1, training_steps - decay_start)
    factor = 0.5 * (1.0 + math.cos(math.pi * progress))
    return max(0.0, factor * (1 - min_fraction) + min_fraction)


def _key(name: str) -> str:
    """Normalise a name for comparison: lower case, without underscores and a final "LR"."""
    return name.lower().replace("_", "").removesuffix("lr")


def _classes(module: Any, base: type) -> Iterable[tuple[str, Any]]:
    for name, value in vars(module).items():
        public = inspect.isclass(value) and not name.startswith("_")
        if public and issubclass(value, base) and value is not base and not inspect.isabstract(value):
            yield name, value


@functools.cache
def optimizers() -> dict[str, type[Optimizer]]:
    """Return all optimizers by name: :func:`built_in_optimizers` and, if timm is installed, those of ``timm.optim``."""
    try:
        import timm.optim
    except ModuleNotFoundError:
        return built_in_optimizers()
    return dict(_classes(timm.optim, Optimizer)) | built_in_optimizers()


def built_in_optimizers() -> dict[str, type[Optimizer]]:
    """Return the optimizers of ``torch.optim`` by name, with :class:`~perceiver_plugins.sdk.tasks.muon.Muon`."""
    return dict(_classes(torch.optim, Optimizer)) | {"Muon": Muon}


@functools.cache
def lr_schedulers() -> dict[str, Callable[..., Any]]:
    """Return all schedules by name: constant and cosine with warm-up, and ``torch.optim.lr_scheduler``'s."""
    schedules = dict(_classes(torch.optim.lr_scheduler, LRScheduler))
    return schedules | {"CosineWithWarmup": cosine_with_warmup, "ConstantWithWarmup": constant_with_warmup}


def _match(name: str, known: Mapping[str, Any]) -> Any:
    by_key = {_key(each): value for each, value in known.items()}
    return by_key.get(_key(name.rpartition(".")[2]))


def _find(name: str, known: Mapping[str, Any], noun: str) -> Any:
    found = _match(name, known)
    if found is None:
        raise UserError(f"unknown {noun} {name!r}; {near(name, known)}")
    return found


def find_optimizer(name: str) -> type[Optimizer]:
    """Find an optimizer class by name (``AdamW``, ``Lamb``, ``torch.optim.SGD``).

    Raises:
        UserError: if the name is unknown; the message suggests similar ones.
    """
    found = _match(name, built_in_optimizers())
    if found is None and importlib.util.find_spec("timm") is None:
        missing = find_requirement("timm") or MissingRequirement("timm", "timm")
        raise UserError(
            f"unknown optimizer {name!r}; {near(name, built_in_optimizers())}; an optimizer of timm {missing}"
        )
    return found or _find(name, optimizers(), "optimizer")


def find_lr_scheduler(name: str) -> Callable[..., Any]:
    """Find a learning rate schedule by name (``CosineWithWarmup``, ``cosine_with_warmup``, ``StepLR``).

    Raises:
        UserError: if the name is unknown; the message suggests similar ones.
    """
    return _find(name, lr_schedulers(), "learning rate schedule")


def create_optimizer(
    config: Mapping[str, Any], parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], prefer_fused: bool = True
) -> Optimizer:
    """Create an optimizer.

    Args:
        config: name under ``"name"``, and arguments. ``"in_backward"`` and ``"layer_decay"`` are ignored here.
        parameters: the parameters to optimize, or groups of them.
        prefer_fused: use the fused kernel of an optimizer that has one, unless ``config`` has ``fused`` or
            ``foreach``. It is the fastest one on CPU and GPU.

    Raises:
        UserError: if the name or an argument is unknown, or an argument is out of range.
    """
    options = {key: value for key, value in config.items() if key not in OWN_KEYS}
    optimizer = find_optimizer(config[NAME])
    has_fused = "fused" in inspect.signature(optimizer).parameters
    if has_fused and options.get("fused") is None and not options.get("foreach"):
        options["fused"] = prefer_fused
    try:
        return optimizer(parameters, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer {config[NAME]!r}: {error}") from error


def create_lr_scheduler(
    config: Mapping[str, Any], optimizer: Optimizer, training_steps: Callable[[], int]
) -> dict[str, Any]:
    """Create a schedule in the form of Lightning's ``configure_optimizers``.

    Args:
        config: name under ``"name"``, arguments, and optionally ``interval``: "step" or "epoch". Default: "step", but
            "epoch" for ``ReduceLROnPlateau``, which monitors ``val_loss``.
        optimizer: the optimizer.
        training_steps: returns the number of optimizer steps of the run; called if the schedule needs it.

    Raises:
        UserError: if the name or an argument is unknown, or an argument is out of range.
    """
    options = dict(config)
    create = find_lr_scheduler(options.pop(NAME))
    watches_loss = create is ReduceLROnPlateau
    interval = options.pop("interval", None) or ("epoch" if watches_loss else "step")
    if "training_steps" in inspect.signature(create).parameters and options.get("training_steps") is None:
        options["training_steps"] = training_steps()
    options |= _scaled_rates(options, optimizer)
    try:
        scheduler = create(optimizer, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"learning rate schedule {config[NAME]!r}: {error}") from error
    return {"scheduler": scheduler, "interval": interval} | ({"monitor": "val_loss"} if watches_loss else {})


def _scaled_rates(options: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """Return a schedule's learning rates as lists, one per parameter group, if groups have scaled rates."""
    if not any(LR_SCALE in group for group in optimizer.param_groups):
        return {}
    rates = {name: options.get(name) for name in ("base_lr", "max_lr", "min_lr")}
    return {
        name: group_rates(optimizer.param_groups, rate) for name, rate in rates.items() if isinstance(rate, int | float)
    }


def override_state(saved: Mapping[str, Any], current: Mapping[str, Any], checkpoint: dict[str, Any]) -> None:
    """Override the arguments in a checkpoint's optimizer state by the current ones.

    Args:
        saved: optimizer config that the checkpoint was written with.
        current: optimizer config of this run.
        checkpoint: the checkpoint, whose optimizer states and schedules are changed in place.

    Raises:
        UserError: if the layer-wise learning rate decay differs, which decides the parameter groups.
    """
    _check_layer_decay(saved.get(LAYER_DECAY), current.get(LAYER_DECAY))
    changed = {key: value for key, value in current.items() if key not in OWN_KEYS and saved.get(key) != value}
    lr = changed.pop("lr", None)
    groups = [group for state in checkpoint["optimizer_states"] for group in state["param_groups"]]
    for group in groups:
        kept = {"weight_decay": group["weight_decay"]} if group.get(NO_DECAY) else {}
        group.update(changed | kept)
        if lr is not None:
            _rescale(group, saved.get("lr"), lr)
    if lr is not None:
        _set_base_rates(checkpoint.get("lr_schedulers", []), group_rates(groups, lr))


def _check_layer_decay(saved: float | None, current: float | None) -> None:
    if saved != current:
        previous, given = ("null" if value is None else value for value in (saved, current))
        raise UserError(
            f"--optimizer.layer_decay: {given}, but the checkpoint was saved with {previous} (resume with "
            f"--optimizer.layer_decay={previous}, or start a new run with --model.params)"
        )


def _set_base_rates(schedules: Iterable[dict[str, Any]], rates: list[float]) -> None:
    for schedule in schedules:
        if "base_lrs" in schedule:
            schedule["base_lrs"] = list(rates)


def remove_optimizer(checkpoint: dict[str, Any]) -> None:
    """Remove the optimizer's state from a checkpoint, and the learning rates of its groups from its schedules."""
    checkpoint["optimizer_states"] = []
    for schedule in checkpoint.get("lr_schedulers", []):
        for key in ("base_lrs", "max_lrs", "min_lrs", "_last_lr"):
            schedule.pop(key, None)
        if "lr_lambdas" in schedule:
            schedule["lr_lambdas"] = []


def _rescale(group: dict[str, Any], saved: float | None, current: float) -> None:
    """Continue on a new scale from the learning rate that the schedule has reached."""
    (rate,) = group_rates([group], current)
    group["lr"] = group["lr"] * current / saved if saved else rate
    if "initial_lr" in group:
        group["initial_lr"] = rate


def follow_schedule(optimizer: Optimizer, schedule: Any = None) -> None:
    """Set an optimizer's learning rates to those of a schedule at its current step.

    Args:
        optimizer: the optimizer.
        schedule: its schedule. None, or without a closed form: the initial rates are set.
    """
    for group in optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])
    if isinstance(schedule, LambdaLR):
        rates = [
            base * at(schedule.last_epoch) for base, at in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        ]
    elif hasattr(schedule, "_get_closed_form_lr"):
        rates = schedule._get_closed_form_lr()
    else:
        return
    for group, lr in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = lr
