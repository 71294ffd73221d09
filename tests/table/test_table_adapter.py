"""Table input adapter against its formula."""

from __future__ import annotations

import pytest
import torch

from perceiver_plugins.table import TableEncoderConfig, TableInputAdapter

NAN = torch.nan


@pytest.fixture
def adapter(randomise) -> TableInputAdapter:
    """Adapter of odd sizes with random weights."""
    return randomise(TableInputAdapter.from_config(TableEncoderConfig(num_features=5, num_input_channels=7)))


def test_embedding_is_number_times_weight_plus_column(adapter):
    inputs = torch.randn(3, 5)
    x, pad_mask, _ = adapter({"inputs": inputs})
    assert pad_mask is None
    assert x.shape == (3, 5, adapter.num_input_channels) == (3, 5, 7)
    for example in range(3):
        for column in range(5):
            expected = inputs[example, column] * adapter.weight[column] + adapter.columns[column]
            torch.testing.assert_close(x[example, column], expected)


def test_missing_number_is_embedded_as_shared_vector(adapter):
    inputs = torch.tensor([[0.5, NAN, -2.0, NAN, 0.0]])
    x = adapter({"inputs": inputs}).x[0]
    for column in (1, 3):
        torch.testing.assert_close(x[column], adapter.missing + adapter.columns[column])
    given = adapter({"inputs": torch.tensor([[0.5, 9.0, -2.0, 9.0, 0.0]])}).x[0]
    for column in (0, 2, 4):
        torch.testing.assert_close(x[column], given[column])


def test_missing_numbers_leave_gradients_finite(adapter):
    adapter({"inputs": torch.tensor([[0.5, NAN, -2.0, 1.0, NAN], [2.0, NAN, 1.0, 1.0, 3.0]])}).x.sum().backward()
    # The gradient of the sum with respect to a weight is the sum of the numbers it is multiplied by.
    totals = torch.tensor([2.5, 0.0, -1.0, 2.0, 3.0])
    torch.testing.assert_close(adapter.weight.grad, totals[:, None].expand(5, 7))
    torch.testing.assert_close(adapter.missing.grad, torch.full((7,), 3.0))
    torch.testing.assert_close(adapter.columns.grad, torch.full((5, 7), 2.0))


def test_inputs_are_converted_to_dtype_of_weights(adapter):
    inputs = torch.randn(2, 5, dtype=torch.float64)
    assert adapter({"inputs": inputs}).x.dtype == torch.float32
    assert adapter.double()({"inputs": inputs.float()}).x.dtype == torch.float64


def test_weights_are_initialised_at_configured_scale():
    adapter = TableInputAdapter.from_config(TableEncoderConfig(num_features=40, num_input_channels=90, init_scale=0.3))
    assert adapter.weight.std().item() == pytest.approx(0.3, rel=0.05)
    assert adapter.columns.std().item() == pytest.approx(0.3, rel=0.05)


def test_columns_have_an_initial_scale_of_their_own():
    config = TableEncoderConfig(num_features=40, num_input_channels=90, init_scale=0.02, column_init_scale=0.5)
    adapter = TableInputAdapter.from_config(config)
    assert adapter.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert adapter.columns.std().item() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(("column_init_scale", "is_linear"), [(None, False), (0.2, True)])
def test_larger_columns_keep_the_size_of_numbers_through_a_layer_norm(column_init_scale, is_linear):
    torch.manual_seed(0)
    adapter = TableInputAdapter.from_config(
        TableEncoderConfig(num_features=1, num_input_channels=65, column_init_scale=column_init_scale)
    )
    norm = torch.nn.LayerNorm(65)
    with torch.no_grad():
        zero, one, four = norm(adapter({"inputs": torch.tensor([[0.0], [1.0], [4.0]])}).x[:, 0])
    # The component of the change along the direction of the weight: four times as large for a linear map.
    ratio = (((four - zero) @ adapter.weight[0]) / ((one - zero) @ adapter.weight[0])).item()
    assert (3.5 < ratio < 4.5) is is_linear


def test_number_dropout_hides_numbers_in_training_alone(randomise):
    config = TableEncoderConfig(num_features=5, num_input_channels=7, number_dropout=0.3)
    adapter = randomise(TableInputAdapter.from_config(config))
    inputs = torch.randn(900, 5)
    inputs[0, 2] = NAN
    kept, hidden = adapter.eval()({"inputs": inputs}).x, adapter({"inputs": torch.full_like(inputs, NAN)}).x
    torch.testing.assert_close(kept, torch.where(inputs.isnan()[..., None], hidden, kept))
    x = adapter.train()({"inputs": inputs}).x
    is_hidden = (x == hidden).all(-1)
    assert is_hidden[0, 2]
    assert is_hidden.float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(x, torch.where(is_hidden[..., None], hidden, kept))


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("column_init_scale", 0.0, "must be greater than 0"),
        ("number_dropout", 1.0, "must be at least 0 and less than 1"),
        ("number_dropout", -0.1, "must be at least 0 and less than 1"),
    ],
)
def test_values_out_of_range_are_refused(field, value, rule):
    with pytest.raises(ValueError, match=f"TableEncoderConfig.{field}={value}: {rule}"):
        TableEncoderConfig(**{field: value})


@pytest.mark.parametrize("shape", [(2, 4), (2, 6), (5,), (2, 5, 1)])
def test_wrong_number_of_columns_is_refused(adapter, shape):
    with pytest.raises(ValueError, match=r"inputs of shape .* num_features=5 columns"):
        adapter({"inputs": torch.zeros(shape)})


def test_data_with_other_number_of_columns_is_refused(adapter):
    class Data:
        num_features = 5

    adapter.check_data(Data)
    adapter.check_data(object())
    Data.num_features = 6
    with pytest.raises(ValueError, match="num_features=6 does not fit the model's num_features=5"):
        adapter.check_data(Data)


def test_example_batch_has_missing_numbers(adapter):
    batch = adapter.example_batch(50, torch.Generator().manual_seed(1))
    again = adapter.example_batch(50, torch.Generator().manual_seed(1))
    torch.testing.assert_close(batch["inputs"], again["inputs"], equal_nan=True)
    assert 0 < batch["inputs"].isnan().float().mean() < 0.3
    assert adapter(batch).x.isfinite().all()


@pytest.mark.parametrize("field", ["num_features", "num_input_channels"])
def test_sizes_must_be_positive(field):
    with pytest.raises(ValueError, match=f"TableEncoderConfig.{field}=0: must be at least 1"):
        TableEncoderConfig(**{field: 0})
