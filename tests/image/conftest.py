"""Fixtures that depend on the installed version of transformers."""

from __future__ import annotations

import pytest
from transformers.models.perceiver.modeling_perceiver import PerceiverTrainablePositionEncoding


@pytest.fixture(scope="session")
def needs_interpolation() -> None:
    """Skip a test that needs the interpolation of Hugging Face's learned positions."""
    encoding = PerceiverTrainablePositionEncoding((2, 2), num_channels=1)
    if encoding(None, interpolate_pos_encoding=True, input_size=(3, 5)).shape[0] != 3 * 5:
        pytest.skip("this version of transformers does not interpolate learned positions")
