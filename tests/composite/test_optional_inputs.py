"""Composite inputs that examples may lack."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from perceiver_plugins.composite import CompositeEncoderConfig, CompositeInputAdapter

INPUTS = {
    "text": {"adapter": "text", "vocab_size": 31, "max_seq_len": 9, "num_input_channels": 13},
    "row": {"adapter": "table", "num_features": 5, "num_input_channels": 7},
}


@pytest.fixture
def adapter(randomise: Any) -> CompositeInputAdapter:
    config = CompositeEncoderConfig(inputs=INPUTS, optional_inputs=["text", "row"])
    return randomise(CompositeInputAdapter.from_config(config)).eval()


def batch_of(missing: dict[str, list[bool]]) -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([[9], [4], [1]])
    batch = {
        "row": {"inputs": torch.randn(3, 5, generator=generator)},
        "text": {
            "input_ids": torch.randint(31, (3, 9), generator=generator),
            "attention_mask": (torch.arange(9) < lengths).long(),
        },
    }
    for name, values in missing.items():
        batch[name]["missing"] = torch.tensor(values)
    return batch


def test_missing_inputs_have_one_learned_position(adapter: CompositeInputAdapter) -> None:
    complete, found = adapter(batch_of({})), adapter(batch_of({"text": [False, True, False], "row": [True] * 3}))
    assert complete.pad_mask is not None
    assert found.pad_mask is not None
    torch.testing.assert_close(found.x[[0, 2], 5:], complete.x[[0, 2], 5:], rtol=0, atol=0)
    assert torch.equal(found.pad_mask[[0, 2], 5:], complete.pad_mask[[0, 2], 5:])
    torch.testing.assert_close(found.x[1, 5], adapter.missing["text"])
    torch.testing.assert_close(found.x[:, 0], adapter.missing["row"].expand(3, -1))
    assert found.pad_mask[1, 5:].tolist() == [False] + [True] * 8
    assert found.pad_mask[:, :5].tolist() == [[False] + [True] * 4] * 3


def test_content_of_missing_inputs_has_no_effect(adapter: CompositeInputAdapter) -> None:
    first, second = (batch_of({"row": [True, False, True]}) for _ in range(2))
    second["row"]["inputs"][[0, 2]] = torch.nan
    (x, mask, _), (other, other_mask, _) = adapter(first), adapter(second)
    assert torch.equal(mask, other_mask)
    torch.testing.assert_close(x[~mask], other[~mask], rtol=0, atol=0)


def test_other_composites_keep_their_parameters() -> None:
    names = [*CompositeInputAdapter.from_config(CompositeEncoderConfig(inputs=INPUTS)).state_dict()]
    assert not any("missing" in name for name in names if not name.startswith("parts."))


def test_unknown_optional_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"optional_inputs=.*: no such input: 'photo'"):
        CompositeEncoderConfig(inputs=INPUTS, optional_inputs=["photo"])
