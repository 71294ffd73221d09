"""Caches for generation: keys and values of attentions, and the inputs from which they are rebuilt."""

from __future__ import annotations

import torch
from torch import Tensor

from perceiver_core.adapters import Batch


class KeyValueCache:
    """Keys and values of one attention at consecutive positions, in buffers that are allocated once.

    On CPUs, half-precision keys and values are stored in single precision, which torch's attention of a single query
    reads three times as fast (benchmark ``causal-decode``).

    Args:
        capacity: largest number of positions.

    Attributes:
        start: first position.
        stop: position after the last one.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.start = self.stop = 0
        self._buffers: tuple[Tensor, ...] = ()

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys (b, h, n, k) and values (b, h, n, e), and return those of all positions, start to stop.

        The returned tensors may have a higher precision than the arguments.
        """
        if not self._buffers:
            dtype = torch.promote_types(k.dtype, torch.float32) if k.device.type == "cpu" else k.dtype
            self._buffers = tuple(x.new_empty(*x.shape[:2], self.capacity, x.shape[-1], dtype=dtype) for x in (k, v))
        first = self.stop - self.start
        self.stop += k.shape[-2]
        size = self.stop - self.start
        for buffer, new in zip(self._buffers, (k, v), strict=True):
            buffer[:, :, first:size] = new
        all_keys, all_values = (buffer[:, :, :size] for buffer in self._buffers)
        return all_keys, all_values

    def restart(self, start: int) -> None:
        """Drop all positions; the next ones begin at ``start``."""
        self.start = self.stop = start

    def truncate(self, stop: int) -> None:
        """Drop the positions from ``stop`` on."""
        self.stop = min(self.stop, stop)
        self.start = min(self.start, self.stop)

    def advance(self, start: int) -> None:
        """Drop the positions before ``start``, or all of them if ``start`` is not between the first and the last."""
        if not self.start <= start <= self.stop:
            self.restart(start)
        elif start > self.start:
            shift, size = start - self.start, self.stop - self.start
            for buffer in self._buffers:
                buffer[:, :, : size - shift] = buffer[:, :, shift:size].clone()
            self.start = start

    def select_rows(self, rows: Tensor) -> None:
        """Replace the examples by those of an index (b)."""
        self._buffers = tuple(buffer.index_select(0, rows.to(buffer.device)) for buffer in self._buffers)


class SequenceCache:
    """State of generation with :meth:`perceiver_core.PerceiverAR.extend`.

    It keeps all inputs as they were given, such as tokens: with them, a sequence can be continued from any of its
    positions. Positions are columns of the batch, padding included.

    Args:
        max_seq_len: largest number of inputs m that are seen at once.
        num_latents: largest number of latents n.
        num_layers: self-attention layers.

    Attributes:
        inputs: entries of the batches so far, (b, inputs, ...) each.
        num_pads: leading padding of each example (b), on the CPU.
        bounds: window starts and latent starts of the last output (2, b), on the CPU; None before the first.
        keys: keys and values of the inputs, in the cross-attention.
        latents: keys and values of the latents, in each self-attention layer.
    """

    def __init__(self, max_seq_len: int, num_latents: int, num_layers: int):
        self.inputs: dict[str, Tensor] = {}
        self.num_pads = torch.zeros(0, dtype=torch.long)
        self.bounds: Tensor | None = None
        self.keys = KeyValueCache(max_seq_len)
        self.latents = [KeyValueCache(num_latents) for _ in range(num_layers)]

    def __len__(self) -> int:
        """Return the number of inputs so far, padding included."""
        return next(iter(self.inputs.values())).shape[1] if self.inputs else 0

    @property
    def batch_size(self) -> int:
        """Number of examples b."""
        return len(next(iter(self.inputs.values())))

    @property
    def num_seen(self) -> int:
        """Number of inputs that the last output has seen, those before the window included."""
        return self.keys.stop

    def append(self, batch: Batch) -> None:
        """Append the inputs of a batch.

        Args:
            batch: tensors (b, k, ...), with the same names and examples in each call.

        Raises:
            ValueError: if the names differ from those of the inputs so far.
        """
        if self.inputs and self.inputs.keys() != batch.keys():
            raise ValueError(f"batch: must have the entries {', '.join(self.inputs)}, got {', '.join(batch)}")
        self.inputs = {
            name: torch.cat([self.inputs[name], new], dim=1) if self.inputs else new for name, new in batch.items()
        }

    def inputs_between(self, start: int, stop: int) -> Batch:
        """Return the inputs from ``start`` to ``stop``."""
        return {name: value[:, start:stop] for name, value in self.inputs.items()}

    def truncate(self, length: int) -> None:
        """Keep the first ``length`` inputs only, padding included."""
        self.inputs = {name: value[:, :length] for name, value in self.inputs.items()}
        self.num_pads = self.num_pads.clamp(max=length)
        for each in (self.keys, *self.latents):
            each.truncate(length)

    def select_rows(self, rows: Tensor) -> None:
        """Replace the examples by those of an index, in which they may be repeated.

        Args:
            rows: indices of examples (b).
        """
        self.inputs = {name: value.index_select(0, rows.to(value.device)) for name, value in self.inputs.items()}
        for each in (self.keys, *self.latents):
            each.select_rows(rows)
        self.num_pads = self.num_pads[rows.cpu()]
        if self.bounds is not None:
            self.bounds = self.bounds[:, rows.cpu()]
