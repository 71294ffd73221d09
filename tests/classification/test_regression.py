"""Regression: standardised loss, metrics in original units, missing targets."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from pytorch_lightning.plugins import HalfPrecision
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from perceiver_plugins.classification.adapters import RegressionOutputAdapter
from perceiver_plugins.classification.config import RegressionDecoderConfig
from perceiver_plugins.classification.regression import LitRegressor
from perceiver_plugins.sdk.tasks.precision import keep_labels
from perceiver_registry import UserError, assemble, config_from_dict, config_to_dict

MEAN, STD = [-3.0, 250.0], [0.25, 40.0]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*not resumable.*", "ignore:.*LeafSpec.*"
)


@pytest.fixture
def regressor(model_config, randomise):
    """Function that creates a regressor, by default of two targets."""

    def regressor(num_targets: int = 2, mean=MEAN, std=STD, **options) -> LitRegressor:
        decoder = RegressionDecoderConfig(
            num_targets=num_targets,
            num_output_query_channels=6,
            num_cross_attention_heads=2,
            target_mean=mean,
            target_std=std,
        )
        module = LitRegressor.create(model_config(decoder), **options)
        randomise(module.model)
        return module

    return regressor


@pytest.fixture
def batch(sequences):
    """Batch with some missing targets."""
    labels = torch.randn(23, 2) * torch.tensor(STD) + torch.tensor(MEAN)
    labels[3, 0] = labels[3, 1] = labels[7, 1] = math.nan
    return {**sequences(23), "labels": labels}


def in_stds(values: torch.Tensor, given: torch.Tensor) -> np.ndarray:
    return ((values.detach() - torch.tensor(MEAN)) / torch.tensor(STD))[given].numpy()


def huber(targets: np.ndarray, predictions: np.ndarray) -> float:
    error = np.abs(targets - predictions)
    return np.where(error < 1, error**2 / 2, error - 1 / 2).mean()


@pytest.mark.parametrize(
    ("loss", "expected"), [("mse", mean_squared_error), ("l1", mean_absolute_error), ("huber", huber)]
)
def test_loss_is_computed_on_standardised_targets(regressor, batch, loss, expected):
    module, given = regressor(loss=loss), ~batch["labels"].isnan()
    targets, predictions = in_stds(batch["labels"], given), in_stds(module.model(batch), given)
    result = module.loss_sum(batch)
    assert result.mean.item() == pytest.approx(expected(targets, predictions), rel=1e-5)
    assert result.count == 43
    assert module.evaluate(batch, "val").mean.item() == pytest.approx(result.mean.item())


def test_missing_targets_have_no_gradient(regressor, batch):
    module = regressor()
    module.loss_sum(batch).mean.backward()
    gradients = [parameter.grad.clone() for parameter in module.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)
    module.zero_grad()
    rest = {name: values[[i for i in range(23) if i != 3]] for name, values in batch.items()}
    module.loss_sum(rest).mean.backward()
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_loss_of_batch_without_targets_is_zero(regressor, batch):
    batch["labels"].fill_(math.nan)
    assert regressor().loss_sum(batch).mean.item() == 0


@pytest.mark.parametrize("batch_size", [4, 50])
def test_metrics_equal_those_of_scikit_learn(regressor, batch, data_module, quiet_trainer, batch_size):
    module, given = regressor(), ~batch["labels"].isnan()
    predictions = module.model(batch).detach()
    expected = {
        "val_mae": mean_absolute_error(batch["labels"][given], predictions[given]),
        "val_r2": r2_score(in_stds(batch["labels"], given), in_stds(predictions, given)),
        "val_loss": mean_squared_error(in_stds(batch["labels"], given), in_stds(predictions, given)),
    }
    for column in range(2):
        pair = [values[given[:, column], column] for values in (batch["labels"], predictions)]
        expected[f"val_mae_target {column + 1}"] = mean_absolute_error(*pair)
        expected[f"val_r2_target {column + 1}"] = r2_score(*pair)
    trainer = quiet_trainer()
    for _ in range(2):  # metrics are reset between runs
        (metrics,) = trainer.validate(module, datamodule=data_module(batch, batch_size), verbose=False)
        assert metrics == pytest.approx(expected, rel=1e-4)
    (metrics,) = trainer.test(module, datamodule=data_module(batch, batch_size), verbose=False)
    assert {name.replace("test", "val"): value for name, value in metrics.items()} == pytest.approx(expected, rel=1e-4)


def test_metrics_of_named_targets(regressor, batch, data_module, quiet_trainer):
    module = regressor()
    module.config.decoder.target_names = ["a.b", "c/d e"]
    batch["labels"][1:, 1] = math.nan  # R2 is undefined for a single target
    (metrics,) = quiet_trainer().validate(module, datamodule=data_module(batch, 4), verbose=False)
    assert metrics.keys() == {"val_loss", "val_mae", "val_r2", "val_mae_a.b", "val_r2_a.b"}
    (single,) = quiet_trainer().validate(
        regressor(1, MEAN[:1], STD[:1]),
        datamodule=data_module(batch | {"labels": batch["labels"][:, :1]}, 4),
        verbose=False,
    )
    assert single.keys() == {"val_loss", "val_mae", "val_r2"}


def test_targets_in_another_order_are_refused(regressor, batch, data_module):
    module = regressor()
    module.config.decoder.target_names = ["a", "b"]
    with pytest.raises(UserError, match=r"the targets of the data \(b, a\) are in another order than the model's"):
        module.check_data(data_module(batch, target_names=["b", "a"]))
    module.check_data(data_module(batch, target_names=["b", "c"]))


@pytest.mark.parametrize("number", [1, 2, 23])  # a single target in all; one per process; many
def test_metrics_of_two_processes_equal_those_of_one(regressor, batch, data_module, quiet_trainer, number):
    few = {name: values[:number] for name, values in batch.items()}
    few["labels"] = few["labels"][:, :1]
    module = regressor(1, MEAN[:1], STD[:1])
    # A copy, since metrics updated in inference mode cannot be used outside of it.
    (one,) = quiet_trainer().validate(copy.deepcopy(module), datamodule=data_module(few, 2), verbose=False)
    two_processes = quiet_trainer(devices=2, strategy="ddp_fork")
    (two,) = two_processes.validate(module, datamodule=data_module(few, 1), verbose=False)
    assert two == pytest.approx(one, rel=1e-5)
    assert ("val_r2" in one) == (number > 1)


def test_single_target_may_be_a_vector(regressor, batch):
    module = regressor(1, MEAN[:1], STD[:1])
    column = {**batch, "labels": batch["labels"][:, :1]}
    vector = {**batch, "labels": batch["labels"][:, 0]}
    assert module.loss_sum(vector).count == 22
    torch.testing.assert_close(module.loss_sum(vector).mean, module.loss_sum(column).mean)


def test_output_is_scaled_and_shifted(regressor, batch):
    module = regressor()
    adapter = module.model.output_adapter
    with torch.no_grad():
        adapter.linear.weight.zero_()
        adapter.linear.bias.copy_(torch.tensor([0.0, 1.0]))
    expected = torch.tensor([MEAN[0], MEAN[1] + STD[1]], dtype=torch.float64).expand(23, 2)
    torch.testing.assert_close(module.model(batch), expected)


def test_output_without_statistics_is_not_scaled(regressor, batch):
    module = regressor(mean=None, std=None)
    with torch.no_grad():
        module.model.output_adapter.linear.weight.zero_()
        module.model.output_adapter.linear.bias.copy_(torch.tensor([0.5, 7.0]))
    torch.testing.assert_close(module.model(batch), torch.tensor([0.5, 7.0], dtype=torch.float64).expand(23, 2))


def test_statistics_are_in_config_but_not_in_state_dict(regressor):
    module = regressor()
    plain = json.loads(json.dumps(config_to_dict(module.config)))
    assert plain["decoder"]["target_mean"] == MEAN
    assert plain["decoder"]["target_std"] == STD
    model = assemble(config_from_dict(plain))
    assert isinstance(model.output_adapter, RegressionOutputAdapter)
    assert model.output_adapter.mean == MEAN
    assert model.output_adapter.std == STD
    names = {name for name in model.state_dict() if name.startswith("output_adapter")}
    assert names == {
        "output_adapter.query_provider.queries",
        "output_adapter.linear.weight",
        "output_adapter.linear.bias",
    }


def test_data_with_other_number_of_targets_is_refused(regressor, batch, data_module, quiet_trainer):
    data = data_module(batch, num_targets=3)
    with pytest.raises(UserError, match=r"^the data has 3 targets per example, the model 2$"):
        quiet_trainer(max_steps=1).fit(regressor(), datamodule=data)


@pytest.mark.slow
def test_training_explains_most_variance(regressor, batch, data_module, quiet_trainer):
    module = regressor(optimizer={"name": "AdamW", "lr": 0.02})
    trainer = quiet_trainer(max_epochs=40, limit_val_batches=0)
    trainer.fit(module, datamodule=data_module(batch, 23))
    (metrics,) = trainer.test(module, datamodule=data_module(batch, 23), verbose=False)
    assert metrics["test_r2"] > 0.5


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "64-true"])
def test_large_targets_keep_precision(regressor, batch, data_module, quiet_trainer, precision):
    """Metrics and predictions are exact to a fraction of the standard deviation at any precision."""
    mean, std = 1.7e9, 10.0
    deviations = torch.linspace(-1.5, 1.5, 23, dtype=torch.float64)
    labels = mean + std * deviations[:, None]
    module = regressor(1, [mean], [std])
    with torch.no_grad():
        module.model.output_adapter.linear.weight.zero_()
        module.model.output_adapter.linear.bias.fill_(0.5)
    trainer = quiet_trainer(precision=precision)
    (metrics,) = trainer.validate(module, datamodule=data_module({**batch, "labels": labels}, 7), verbose=False)
    assert metrics["val_mae"] == pytest.approx(std * (0.5 - deviations).abs().mean().item(), rel=1e-5)
    assert metrics["val_loss"] == pytest.approx((0.5 - deviations).square().mean().item(), rel=1e-5)
    predictions = module.model(batch)
    assert predictions.dtype == torch.float64
    assert predictions.flatten().tolist() == [mean + std * 0.5] * 23


def test_infinite_targets_are_refused(regressor, batch):
    batch["labels"][5, 1] = math.inf
    with pytest.raises(UserError, match="a target is infinite"):
        regressor().loss_sum(batch)


def test_precision_plugin_does_not_round_labels():
    plugin = HalfPrecision("bf16-true")
    keep_labels(plugin)
    keep_labels(plugin)
    exact = torch.tensor([1.7e9 + 1], dtype=torch.float64)
    converted = plugin.convert_input({"inputs": torch.ones(1), "labels": exact})
    assert converted["inputs"].dtype == torch.bfloat16
    assert converted["labels"].item() == 1.7e9 + 1
    assert plugin.convert_input(torch.ones(1)).dtype == torch.bfloat16
