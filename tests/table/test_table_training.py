"""Training and prediction with table models, through Lightning."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from sklearn.datasets import load_iris

from perceiver_core import PerceiverConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig, RegressionDecoderConfig
from perceiver_plugins.classification.lightning import LitClassifier
from perceiver_plugins.classification.prediction import NumberPredictor
from perceiver_plugins.classification.regression import LitRegressor
from perceiver_plugins.sdk.sizing import DataSize
from perceiver_plugins.table import DiabetesDataModule, TableEncoderConfig, TableFilesDataModule, TableReader
from perceiver_plugins.table.sizing import choose_defaults

OPTIMIZER = {"name": "AdamW", "lr": 1e-3}
LR_SCHEDULER = {"name": "CosineWithWarmup", "warmup_steps": 20}


@pytest.fixture(autouse=True)
def _restore_seed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # set first, so that monkeypatch restores it after the run
        monkeypatch.setenv(variable, "0")
        monkeypatch.delenv(variable)


def small_config(num_features: int, decoder) -> PerceiverConfig:
    """Default model of small tables."""
    defaults = choose_defaults(DataSize(300))
    prefix = "model.encoder."
    encoder = {name.removeprefix(prefix): value for name, value in defaults.items() if name.startswith(prefix)}
    latents = {name: defaults[f"model.{name}"] for name in ("num_latents", "num_latent_channels")}
    return PerceiverConfig(TableEncoderConfig(num_features=num_features, **encoder), decoder, **latents)


def quiet_trainer(tmp_path, **options) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=tmp_path, gradient_clip_val=1.0, **(quiet | options))


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory) -> tuple[LitRegressor, DiabetesDataModule, Trainer]:
    """Trained regressor, its data module and the trainer."""
    seed_everything(0, verbose=False)
    data = DiabetesDataModule()
    decoder = RegressionDecoderConfig(
        num_targets=data.num_targets,
        target_names=data.target_names,
        target_mean=data.target_mean,
        target_std=data.target_std,
        num_output_query_channels=64,
        num_cross_attention_heads=1,
        pool_inputs=True,
    )
    module = LitRegressor.create(
        small_config(data.num_features, decoder), optimizer=OPTIMIZER, lr_scheduler=LR_SCHEDULER
    )
    trainer = quiet_trainer(tmp_path_factory.mktemp("run"), max_epochs=10, enable_checkpointing=False)
    trainer.fit(module, data)
    return module.eval(), data, trainer


@pytest.mark.slow
def test_regressor_beats_mean_predictor(diabetes):
    module, data, trainer = diabetes
    assert trainer.callback_metrics["val_r2"] > 0.3  # a linear model reaches 0.5, the mean 0
    logged = trainer.test(module, data, verbose=False)[0]
    assert logged["test_r2"] > 0.3
    targets = data.split_datasets["test"].labels
    mean_predictor = (targets - data.target_mean[0]).abs().mean()
    assert logged["test_mae"] < 0.85 * mean_predictor


@pytest.mark.slow
def test_rows_of_a_file_are_predicted_as_in_validation(diabetes, tmp_path):
    module, data, _ = diabetes
    table = data.tables.splits["validation"]
    with (tmp_path / "patients.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *reversed(data.feature_names)])
        writer.writerows([number, *row[::-1]] for number, row in enumerate(table.features.tolist()))
    description = json.loads(json.dumps(data.description()))
    reader = TableReader(description, module.model.input_adapter)
    predictor = NumberPredictor(module, reader)
    written = ",".join(f"{name}={value}" for name, value in zip(data.feature_names, table.features[0], strict=True))
    predictions = predictor.predict([str(tmp_path / "patients.csv"), written])
    assert predictor.failures == []
    with torch.no_grad():
        expected = module.model({"inputs": data.split_datasets["validation"].inputs})[:, 0]
    found = torch.tensor([prediction["progression"] for prediction in predictions], dtype=torch.float64)
    torch.testing.assert_close(found, torch.cat([expected, expected[:1]]), rtol=1e-4, atol=1e-2)
    assert predictions[2]["input"] == f"{tmp_path / 'patients.csv'}:3"
    predictor = NumberPredictor(module, reader, attention=str(tmp_path / "attention"))
    assert predictor.predict([written])[0]["progression"] == pytest.approx(predictions[0]["progression"], abs=1e-2)
    assert len(list((tmp_path / "attention").glob("*.png"))) == 1


def test_each_missing_number_changes_the_prediction(diabetes):
    module, data, _ = diabetes
    inputs = data.split_datasets["validation"].inputs[:1].repeat(11, 1)
    inputs[range(10), range(10)] = torch.nan
    with torch.no_grad():
        predictions = module.model({"inputs": inputs})[:, 0]
    assert predictions.isfinite().all()
    assert len(predictions.unique()) == 11


def test_checkpoint_round_trip(diabetes, tmp_path):
    module, data, trainer = diabetes
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert checkpoint["perceiver"]["data"] == data.description()
    assert checkpoint["perceiver"]["model"]["encoder"]["adapter"] == "table"
    loaded = LitRegressor.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu", weights_only=True).eval()
    batch = {"inputs": data.split_datasets["test"].inputs}
    assert torch.equal(loaded.model(batch), module.model(batch))


@pytest.mark.slow
def test_classifier_learns_classes_of_a_file(write, tmp_path):
    seed_everything(0, verbose=False)
    iris = load_iris()
    rows = [
        {**{f"x{column}": value for column, value in enumerate(row)}, "species": iris.target_names[target]}
        for row, target in zip(iris.data.tolist(), iris.target, strict=True)
    ]
    data = TableFilesDataModule(
        write("iris.csv", rows), target="class", label_column="species", val_fraction=0.3, batch_size=16
    )
    assert data.label_names == ["setosa", "versicolor", "virginica"]
    decoder = ClassificationDecoderConfig(
        num_classes=data.num_classes,
        label_names=data.label_names,
        num_output_query_channels=64,
        num_cross_attention_heads=1,
        pool_inputs=True,
    )
    module = LitClassifier.create(
        small_config(data.num_features, decoder),
        optimizer=OPTIMIZER,
        lr_scheduler=LR_SCHEDULER,
        class_weights="balanced",
    )
    trainer = quiet_trainer(tmp_path, max_epochs=40, enable_checkpointing=False)
    trainer.fit(module, data)
    assert trainer.callback_metrics["val_accuracy"] > 0.85  # chance level: 1/3
