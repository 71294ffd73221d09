"""Checks of batches, adapted inputs and losses, shared with :mod:`perceiver_registry.testing`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from perceiver_core import AdaptedInput
from perceiver_registry import UserError

LABELS = "labels"
"""Batch entry with the labels."""


def as_batch(given: Any, entries: Sequence[str]) -> Any:
    """Convert a tensor, or a pair of tensors, of a data loader to a batch, if the input adapter reads a single entry.

    Args:
        given: a tensor of inputs, or a pair of tensors: inputs and labels.
        entries: entries that the input adapter reads.

    Returns:
        The batch. Objects of other types, which tasks of plugins may read, are returned unchanged.

    Raises:
        UserError: if tensors cannot be assigned to entries.
    """
    parts = [given] if isinstance(given, Tensor) else given
    if not isinstance(parts, list | tuple):
        return given
    is_pair = len(parts) in (1, 2) and all(isinstance(part, Tensor) for part in parts)
    if is_pair and len(entries) == 1:
        return dict(zip((entries[0], LABELS), parts, strict=False))
    shown = ", ".join(type(part).__name__ for part in parts)
    raise UserError(
        f"data: a batch is a {type(given).__name__} of {shown}, not a dict with {', '.join((*entries, LABELS))} "
        "(return a dict from the data set, or from collate_fn)"
    )


def entries(batch: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over the names and values of all entries of a batch, those of nested batches with dotted names."""
    for name, value in batch.items():
        if isinstance(value, Mapping):
            yield from entries(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def problems_of_array(adapted: Any, num_channels: int) -> Iterator[str]:
    """Describe errors of an input adapter's array (b, m, c) in type and shape.

    Args:
        adapted: the input adapter's result.
        num_channels: its ``num_input_channels`` c.
    """
    if not isinstance(adapted, AdaptedInput):
        yield f"forward returns {type(adapted).__name__}, no AdaptedInput"
        return
    x, shape = adapted.x, tuple(adapted.x.shape)
    if x.dim() != 3 or not x.is_floating_point():
        yield f"x is {x.dtype} of shape {shape}, not floating point (b, m, c)"
    elif shape[2] != num_channels:
        yield f"x has {shape[2]} channels, num_input_channels says {num_channels}"


def problem_of_missing(names: Iterable[str], batch: Mapping[str, Any]) -> str:
    """Describe missing entries of a batch."""
    return f"a batch has {', '.join(map(str, batch))}, and not {', '.join(names)}"


def problem_of_loss(loss: Any) -> str | None:
    """Describe an error in the type of a result of ``loss_sum`` or ``evaluate``. None: no error."""
    total, count = getattr(loss, "total", None), getattr(loss, "count", None)
    if not isinstance(total, Tensor) or not isinstance(count, Tensor):
        return f"the loss is {type(loss).__name__}, not a LossSum of two tensors"
    if total.numel() != 1 or count.numel() != 1:
        shapes = f"{tuple(total.shape)} and {tuple(count.shape)}"
        return f"the loss is a LossSum of tensors of shape {shapes}, not of two numbers"
    return None


def checked_loss(compute: Callable[[Any], Any], batch: Any, input_adapter: nn.Module | None) -> Any:
    """Compute a loss, and check the results of the input adapter and of the loss function.

    Args:
        compute: loss function of a batch.
        batch: the batch.
        input_adapter: input adapter of the model, if it has one.

    Raises:
        UserError: if the batch lacks an entry, or if array or loss are of a wrong type or shape.
    """

    def check_adapted(adapter: Any, _: Any, adapted: Any) -> None:
        problem = next(problems_of_array(adapted, adapter.num_input_channels), None)
        if problem is not None:
            raise UserError(f"{type(adapter).__name__}: {problem}")

    hook = input_adapter.register_forward_hook(check_adapted) if input_adapter is not None else None
    try:
        loss = compute(batch)
    except KeyError as error:
        name = error.args[0] if error.args else None
        if not isinstance(name, str) or not isinstance(batch, Mapping) or name in batch:
            raise
        raise UserError(f"data: {problem_of_missing([name], batch)}, which is needed (choose other data)") from error
    finally:
        if hook is not None:
            hook.remove()
    problem = problem_of_loss(loss)
    if problem is not None:
        raise UserError(problem)
    return loss
