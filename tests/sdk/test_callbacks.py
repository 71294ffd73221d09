"""Moving average of the weights: definition, use, and exact resuming."""

from __future__ import annotations

import copy

import pytest
import torch
from pytorch_lightning import Callback, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from perceiver_cli.checkpoints import LastCheckpoint
from perceiver_plugins.text import LitLanguageModel
from perceiver_registry import UserError

DECAY = 0.8

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*not resumable.*",
    "ignore:.*many workers.*",
    "ignore:.*exists and is.*",
    "ignore:.*LeafSpec.*",
    "ignore:.*could not find the monitored key.*",
)


def weights_of(module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def assert_same(state, expected, **tolerance) -> None:
    torch.testing.assert_close(dict(state), dict(expected), **({"rtol": 0, "atol": 0} | tolerance))


class KilledError(Exception):
    """Raised to end a run."""


class Kill(Callback):
    """End a run at a step, or in the validation of a step."""

    def __init__(self, step: int = -1, in_validation: int = -1):
        self.step, self.in_validation = step, in_validation

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KilledError

    def on_validation_batch_start(self, trainer, *_):
        if trainer.global_step == self.in_validation:
            raise KeyboardInterrupt


class Record(Callback):
    """Record the weights before and after each step, those of each validation, and the validation losses."""

    def __init__(self):
        self.after_step, self.before_step, self.in_validation, self.losses = [], [], {}, {}

    def on_train_batch_start(self, trainer, module, *_):
        self.before_step.append(weights_of(module))

    def on_train_batch_end(self, trainer, module, *_):
        self.after_step.append(weights_of(module))

    def on_validation_batch_start(self, trainer, module, *_):
        if not trainer.sanity_checking:
            self.in_validation[trainer.global_step] = weights_of(module)

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.losses[trainer.global_step] = float(trainer.callback_metrics["val_loss"])

    @property
    def averages(self) -> list[dict[str, torch.Tensor]]:
        """Average after each step by its definition."""
        averages = [{name: value.double() for name, value in self.after_step[0].items()}]
        for weights in self.after_step[1:]:
            last = averages[-1]
            averages.append({name: DECAY * last[name] + (1 - DECAY) * weights[name].double() for name in weights})
        return [{name: value.float() for name, value in average.items()} for average in averages]


@pytest.fixture
def module(tiny_config):
    """Function that creates a small model with a high learning rate."""

    def module(decay: float | None = DECAY, **config) -> LitLanguageModel:
        optimizer = {"name": "AdamW", "lr": 0.02}
        return LitLanguageModel.create(tiny_config(**config), optimizer=optimizer, num_samples=0, ema_decay=decay)

    return module


@pytest.fixture
def train(module, tiny_data, quiet_trainer, tmp_path):
    """Function that trains to the end or until killed, optionally from a checkpoint; returns the trainer."""

    def train(name: str, steps: int = 12, kill: Kill | None = None, resume: bool = False, callbacks=(), **options):
        folder = tmp_path / name
        seed_everything(99 if resume else 3, verbose=False)
        lit_module = module(dropout=0.2)
        best = ModelCheckpoint(folder, "best", monitor="val_loss", enable_version_counter=False)
        saving = [best, LastCheckpoint(options.pop("every_n_steps", 2)), kill or Kill()]
        intervals = {"val_check_interval": 3, "check_val_every_n_epoch": None}  # steps, across epochs
        trainer = quiet_trainer(
            max_steps=steps, callbacks=[*saving, *callbacks], enable_checkpointing=True, **(intervals | options)
        )
        try:
            trainer.fit(
                lit_module,
                datamodule=tiny_data(seed=3),
                ckpt_path=folder / "last.ckpt" if resume else None,
                weights_only=True,
            )
        except KilledError:
            assert trainer.global_step == kill.step
        except SystemExit:  # from Lightning's KeyboardInterrupt handler
            assert trainer.global_step == kill.in_validation
        return trainer

    return train


@pytest.fixture
def saved(tmp_path):
    """Function that reads the latest checkpoint of a run."""

    def saved(name: str, file: str = "last") -> dict:
        return torch.load(tmp_path / name / f"{file}.ckpt", weights_only=True)

    return saved


PARTS = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "global_step")


def assert_same_run(one: dict, other: dict) -> None:
    for part in PARTS:
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)


def test_average_equals_the_recursion_over_the_weights(train, saved):
    trainer = train("run", steps=9, callbacks=[record := Record()])
    assert len(record.after_step) == 9
    average, checkpoint = record.averages[-1], saved("run")
    assert_same(weights_of(trainer.lightning_module), average, rtol=1e-5, atol=1e-6)
    assert_same({name: checkpoint["state_dict"][name] for name in average}, average, rtol=1e-5, atol=1e-6)
    current = checkpoint["current_model_state"]
    assert_same({name: current[name] for name in average}, record.after_step[-1])
    difference = max((average[name] - current[name]).abs().max() for name in average)
    assert difference > 0.01


def test_average_counts_an_accumulated_step_once(train, saved):
    intervals = {"val_check_interval": 1.0, "check_val_every_n_epoch": 1}
    train("run", steps=4, accumulate_grad_batches=2, callbacks=[record := Record()], **intervals)
    assert len(record.after_step) > 4
    assert saved("run")["averaging_state"]["n_averaged"] == 4


def test_only_validation_uses_the_average(train):
    train("run", steps=9, callbacks=[record := Record()])
    assert sorted(record.in_validation) == [3, 6, 9]
    for step, weights in record.in_validation.items():
        assert_same(weights, record.averages[step - 1], rtol=1e-5, atol=1e-6)
    for after, before in zip(record.after_step, record.before_step[1:], strict=False):
        assert_same(before, after)


@pytest.mark.slow
def test_best_checkpoint_has_the_validated_average(train, module, tiny_data, quiet_trainer, tmp_path):
    trainer = train("run", steps=9, callbacks=[record := Record()])
    best = trainer.checkpoint_callback
    step = min(record.losses, key=record.losses.get)
    loaded = LitLanguageModel.load_from_checkpoint(tmp_path / "run" / "best.ckpt", weights_only=True)
    assert_same(weights_of(loaded), record.in_validation[step])
    (metrics,) = quiet_trainer().validate(loaded, datamodule=tiny_data(seed=3), verbose=False)
    assert metrics["val_loss"] == pytest.approx(float(best.best_model_score), abs=1e-6)
    other = module(None, params=str(tmp_path / "run" / "best.ckpt"))
    assert_same(weights_of(other), record.in_validation[step])


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 5])  # after a validation, and at the end of an epoch
def test_killed_run_is_resumed_exactly(train, saved, step):
    train("alone")
    train("killed", kill=Kill(step))
    assert saved("killed")["global_step"] < 12
    train("killed", resume=True)
    assert_same_run(saved("killed"), saved("alone"))


@pytest.mark.slow
def test_finished_run_is_extended_exactly(train, saved):
    train("longer", steps=10)
    train("short", steps=5)
    train("short", steps=10, resume=True)
    assert_same_run(saved("short"), saved("longer"))


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 6])
def test_run_interrupted_in_validation_is_resumed_exactly(train, saved, step):
    train("alone", steps=8, every_n_steps=0, callbacks=[record := Record()])
    train("interrupted", steps=8, every_n_steps=0, kill=Kill(in_validation=step))
    checkpoint = saved("interrupted")
    assert checkpoint["global_step"] == step
    names = record.averages[step - 1]
    for part, expected in (
        ("current_model_state", record.after_step[step - 1]),
        ("state_dict", record.in_validation[step]),
    ):
        assert_same({name: checkpoint[part][name] for name in names}, expected)
    trainer = train("interrupted", steps=8, every_n_steps=0, resume=True, callbacks=[resumed := Record()])
    assert_same_run(saved("interrupted"), saved("alone"))
    assert resumed.losses == {key: loss for key, loss in record.losses.items() if key >= step}
    assert trainer.global_step == 8


@pytest.mark.slow
def test_checkpoint_saved_after_the_end_is_resumed_exactly(train, saved, tmp_path):
    train("longer", steps=8)
    trainer = train("run", steps=4)
    trainer.save_checkpoint(tmp_path / "run" / "last.ckpt")
    assert_same(
        weights_of(trainer.lightning_module),
        {name: saved("run")["state_dict"][name] for name, _ in trainer.lightning_module.named_parameters()},
    )
    train("run", steps=8, resume=True)
    assert_same_run(saved("run"), saved("longer"))


def test_module_has_the_average_if_no_step_is_left(train, saved):
    train("run", steps=4)
    trainer = train("run", steps=4, resume=True)
    state = saved("run")["state_dict"]
    assert_same(
        weights_of(trainer.lightning_module), {name: state[name] for name in weights_of(trainer.lightning_module)}
    )


def test_average_of_frozen_weights_equals_them(tiny_config, tiny_data, quiet_trainer):
    config = tiny_config()
    config.encoder.freeze = True
    lit_module = LitLanguageModel.create(config, num_samples=0, ema_decay=0.999)
    before = copy.deepcopy(lit_module.model.encoder.state_dict())
    quiet_trainer(max_steps=6).fit(lit_module, datamodule=tiny_data())
    assert_same(lit_module.model.encoder.state_dict(), before)


@pytest.mark.slow
def test_average_can_be_added_on_resume(train, module, tiny_data, quiet_trainer, saved, tmp_path):
    without = module(None)
    trainer = quiet_trainer(max_steps=4)
    trainer.fit(without, datamodule=tiny_data(seed=3))
    (tmp_path / "run").mkdir()
    trainer.save_checkpoint(tmp_path / "run" / "last.ckpt")
    with pytest.warns(UserWarning, match="not created with WeightAveraging"):
        train("run", steps=5, resume=True, callbacks=[record := Record()])
    assert_same(record.before_step[0], weights_of(without))
    assert_same({name: saved("run")["state_dict"][name] for name in record.after_step[0]}, record.after_step[0])


@pytest.mark.parametrize("evaluate", ["validate", "test"])
def test_evaluation_uses_the_average_without_warnings(
    train, module, tiny_data, quiet_trainer, tmp_path, evaluate, recwarn
):
    train("run", steps=3, callbacks=[record := Record()])
    recwarn.clear()
    test_files = str(tmp_path / "val.txt")
    data = tiny_data(seed=3, test_files=test_files)
    (metrics,) = getattr(quiet_trainer(), evaluate)(
        module(), datamodule=data, ckpt_path=tmp_path / "run" / "last.ckpt", weights_only=True, verbose=False
    )
    assert not [str(warning.message) for warning in recwarn if "Averaging" in str(warning.message)]
    name = "val_loss" if evaluate == "validate" else "test_loss"
    assert metrics[name] == pytest.approx(record.losses[3], abs=1e-6)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, 2.0])
def test_ema_decay_out_of_range_is_reported(module, decay):
    with pytest.raises(UserError, match=f"ema_decay={decay} must be more than 0 and less than 1"):
        module(decay)
