"""Collate function for examples of different lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate


@dataclass(frozen=True)
class PadCollator:
    """Collate function for dicts of tensors of different lengths: pad on the right to the longest, with masks.

    Other entries are collated by torch's default function.

    Args:
        masks: Name of the mask of each padded entry: ``{"input_values": "attention_mask"}``. An entry (t, ...) becomes
            (b, longest, ...), its mask (b, longest), int64: 1 at elements, 0 at padding.
        padding: Padding value by entry; default 0. An entry that is only named here is padded without a mask, such as
            ``{"labels": IGNORED}`` for labels of each element.
    """

    masks: Mapping[str, str]
    padding: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate examples, dicts with the same keys, to a batch."""
        batch: dict[str, Any] = {}
        for name in examples[0]:
            values = [example[name] for example in examples]
            if name in self.masks:
                batch[self.masks[name]] = _pad([torch.ones(len(value), dtype=torch.long) for value in values])
            if name in self.masks or name in self.padding:
                batch[name] = _pad(values, self.padding.get(name, 0))
            else:
                batch[name] = default_collate(values)
        return batch


def _pad(values: list[Tensor], value: float = 0) -> Tensor:
    return pad_sequence(values, batch_first=True, padding_value=value)
