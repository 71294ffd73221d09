"""Parameter groups with whatever else decides how weights are updated, for all pairs of features.

A resumed run equals an uninterrupted one bit for bit, also if its checkpoint is of a version that had one group.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import LearningRateFinder
from resume_matrix import Combination, assert_equal, covering_pairs

from perceiver_core import PerceiverConfig
from perceiver_plugins.sdk.tasks import lightning
from perceiver_plugins.text import LitLanguageModel
from perceiver_plugins.text.data import TextFilesDataModule

FEATURES = {
    "optimizer": ("AdamW", "SGD", "Lamb", "LaProp", "Muon"),
    "groups": ("new", "one"),
    "layer_decay": ("none", "0.5"),
    "rate": ("given", "found"),
    "resume": ("same rate", "twice the rate"),
    "schedule": ("none", "cosine", "plateau"),
    "step": ("ordinary", "in backward"),
    "freeze": ("nothing", "encoder", "decoder"),
    "average": ("no", "yes"),
    "activations": ("kept", "recomputed"),
}

SCHEDULES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "cosine": {"name": "CosineWithWarmup", "warmup_steps": 2, "training_steps": 12},
    "plateau": {"name": "ReduceLROnPlateau", "patience": 0, "threshold": 10.0},
}

SAVED, STEPS = 5, 8
"""Steps of the checkpoint, which ends an epoch, and of the whole run."""

pytestmark = pytest.mark.filterwarnings("ignore")


def is_possible(each: Combination) -> bool:
    if each["step"] == "in backward" and each["optimizer"] in ("Lamb", "LaProp", "Muon"):
        return False
    # Versions that had one group had no Muon.
    return each["groups"] == "new" or (each["layer_decay"] == "none" and each["optimizer"] != "Muon")


class Watch(Callback):
    """Save a checkpoint before a step, record the rates of the steps, and double them from the checkpoint on."""

    def __init__(self, path: Path, double: bool) -> None:
        self.path, self.double = path, double
        self.rates: list[list[float]] = []

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.global_step == SAVED and not self.path.exists():
            trainer.save_checkpoint(self.path)
            if self.double:
                for group in trainer.optimizers[0].param_groups:
                    group.update({key: 2 * group[key] for key in ("lr", "initial_lr") if key in group})
                for config in trainer.lr_scheduler_configs:
                    if hasattr(config.scheduler, "base_lrs"):
                        config.scheduler.base_lrs = [2 * rate for rate in config.scheduler.base_lrs]
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def one_group(named_parameters: Any, *_: Any, **__: Any) -> list[dict[str, Any]]:
    """The group of versions that had one."""
    return [{"params": [parameter for _, parameter in named_parameters if parameter.requires_grad]}]


@pytest.fixture
def fit(tiny_config: Callable[..., PerceiverConfig], tiny_data: Callable[..., TextFilesDataModule], quiet_trainer):
    def fit(each: Combination, watch: Watch, resumed: bool = False, **options: Any) -> Trainer:
        seed_everything(5 if resumed else 4, verbose=False)
        freeze = {part: {"freeze": each["freeze"] == part} for part in ("encoder", "decoder")}
        config = tiny_config(activation_checkpointing=each["activations"] == "recomputed")
        for part, fields in freeze.items():
            vars(getattr(config, part)).update(fields)
        optimizer = {"name": each["optimizer"], "lr": 0.01, "weight_decay": 0.1, **options}
        if each["step"] == "in backward":
            optimizer["in_backward"] = True
        if each["layer_decay"] != "none":
            optimizer["layer_decay"] = float(each["layer_decay"])
        module = LitLanguageModel.create(
            config,
            optimizer=optimizer,
            lr_scheduler=SCHEDULES[each["schedule"]],
            ema_decay=0.9 if each["average"] == "yes" else None,
            num_samples=0,
        )
        callbacks = [watch]
        if each["rate"] == "found" and not resumed:
            callbacks.append(LearningRateFinder(min_lr=1e-4, max_lr=0.1, num_training_steps=15))
        trainer = quiet_trainer(max_steps=STEPS, callbacks=callbacks)
        path = watch.path if resumed else None
        trainer.fit(module, datamodule=tiny_data(seed=3), ckpt_path=path, weights_only=True)
        return trainer

    return fit


def state_of(trainer: Trainer) -> dict[str, Any]:
    return {
        "weights": dict(trainer.lightning_module.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict(),
        "schedules": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
    }


def options_of(trainer: Trainer) -> dict[str, tuple[float, float]]:
    """Learning rate, relative to the highest one, and weight decay of each parameter."""
    groups = trainer.optimizers[0].param_groups
    names = {parameter: name for name, parameter in trainer.lightning_module.model.named_parameters()}
    highest = max(group["lr"] for group in groups)
    return {
        names[parameter]: (group["lr"] / highest, group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def expected_options(trainer: Trainer, each: Combination) -> dict[str, tuple[float, float]]:
    """The same by the names and shapes of the parameters."""
    factor = 1.0 if each["layer_decay"] == "none" else float(each["layer_decay"])
    powers = {"input_adapter.": 3, "encoder.latents": 3, "encoder.cross": 2, "encoder.self": 1, "": 0}
    parameters = {
        name: parameter
        for name, parameter in trainer.lightning_module.model.named_parameters()
        if parameter.requires_grad
    }
    scales = {
        name: factor ** next(power for start, power in powers.items() if name.startswith(start)) for name in parameters
    }
    decays = {name: 0.1 if each["groups"] == "one" or p.ndim > 1 else 0.0 for name, p in parameters.items()}
    return {name: (scale / max(scales.values()), decays[name]) for name, scale in scales.items()}


FOUND = {name: values[0] for name, values in FEATURES.items()} | {
    "layer_decay": "0.5",
    "rate": "found",
    "schedule": "cosine",
}
"""A found rate for several layers with a schedule: three features, which the pairs need not cover."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "each", [*covering_pairs(FEATURES, is_possible), FOUND], ids=lambda each: ",".join(each.values())
)
def test_resumed_run_equals_an_uninterrupted_one(each, fit, tmp_path, monkeypatch):
    double = each["resume"] == "twice the rate"
    with monkeypatch.context() as patch:
        if each["groups"] == "one":
            patch.setattr(lightning, "group_parameters", one_group)
        watch = Watch(tmp_path / "saved.ckpt", double)
        whole = fit(each, watch)
    options = options_of(whole)
    expected = expected_options(whole, each)
    assert options.keys() == expected.keys()
    for name, values in expected.items():
        assert options[name] == pytest.approx(values), name
    rate = whole.lightning_module.lr
    assert (rate == 0.01) == (each["rate"] == "given")
    resumed_watch = Watch(watch.path, double=False)
    resumed = fit(each, resumed_watch, resumed=True, lr=rate * 2 if double else rate)
    assert resumed_watch.rates == watch.rates[SAVED:]
    assert_equal(state_of(resumed), state_of(whole), "state")


PLAIN = dict.fromkeys(FEATURES, "") | {"optimizer": "AdamW", "groups": "new", "layer_decay": "none", "schedule": "none"}


def test_another_weight_decay_applies_to_the_same_parameters(fit, tmp_path):
    watch = Watch(tmp_path / "saved.ckpt", double=False)
    fit(PLAIN, watch)
    resumed = fit(PLAIN, watch, resumed=True, weight_decay=0.2)
    assert [group["weight_decay"] for group in resumed.optimizers[0].param_groups] == [0.2, 0.0]


def test_weight_decay_of_a_resumed_run_applies_to_the_one_group_it_began_with(fit, tmp_path):
    watch = Watch(tmp_path / "saved.ckpt", double=False)
    fit(PLAIN, watch, weight_decay=0.0)
    resumed = fit(PLAIN, watch, resumed=True, weight_decay=0.2)
    assert [group["weight_decay"] for group in resumed.optimizers[0].param_groups] == [0.2]


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_another_optimizer_has_groups_of_its_own_and_follows_the_schedule(fit, tmp_path, monkeypatch, schedule):
    each = PLAIN | {"schedule": schedule}
    watch = Watch(tmp_path / "saved.ckpt", double=False)
    with monkeypatch.context() as patch:
        patch.setattr(lightning, "group_parameters", one_group)
        fit(each, watch)
    resumed_watch = Watch(watch.path, double=False)
    resumed = fit(each | {"optimizer": "SGD"}, resumed_watch, resumed=True, lr=0.04)
    assert [group["weight_decay"] for group in resumed.optimizers[0].param_groups] == [0.1, 0.0]
    whole_watch = Watch(tmp_path / "unused.ckpt", double=False)
    fit(each | {"optimizer": "SGD"}, whole_watch, lr=0.04)
    expected = whole_watch.rates[SAVED:] if schedule == "cosine" else [[0.04, 0.04]] * (STEPS - SAVED)
    assert resumed_watch.rates == expected


def test_another_layer_decay_is_refused(fit, tmp_path):
    watch = Watch(tmp_path / "saved.ckpt", double=False)
    fit(PLAIN, watch)
    message = r"layer_decay: 0\.5, but the checkpoint was saved with null \(resume with --optimizer\.layer_decay=null"
    with pytest.raises(lightning.UserError, match=message):
        fit(PLAIN, watch, resumed=True, layer_decay=0.5)
