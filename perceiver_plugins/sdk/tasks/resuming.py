"""Exact resuming of runs.

Lightning saves the counters of its loops, and infers the position of a run from them. In checkpoints of some hooks,
this position is wrong: an epoch that ``max_steps`` ended counts as finished, an epoch counts twice, or a due validation
or step of ``ReduceLROnPlateau`` is left out. Checkpoints therefore have an explicit record of the position, from which
a resumed run sets Lightning's counters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging
from pytorch_lightning.loops.evaluation_loop import RestartStage as EvaluationStage
from pytorch_lightning.loops.fit_loop import RestartStage as FitStage
from pytorch_lightning.loops.training_epoch_loop import RestartStage as EpochStage
from pytorch_lightning.utilities import rank_zero_warn

from perceiver_plugins.sdk.data.loading import batches_trained
from perceiver_registry.errors import UserError

if TYPE_CHECKING:
    from pytorch_lightning.loops.progress import _ProcessedTracker, _Progress

KEY = "resume"
"""Checkpoint key of the record of :func:`resume_record`."""


class ExactResume(Callback):
    """Save the position of a run in each checkpoint, and resume from it."""

    def __init__(self) -> None:
        self._validated = 0
        """Number of batches trained on before the end of the latest validation."""
        self._record: Mapping[str, Any] | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = batches_trained(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = resume_record(trainer, pl_module, self._validated) | {"loading": loading_state(trainer)}
        set_counters(checkpoint)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._record = checkpoint.get(KEY)
        if self._record is not None:
            check_record(self._record, pl_module)
            check_stream(self._record.get("loading", {}), loading_state(trainer))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning does not reset this flag if the epoch had no batch left.
        trainer.fit_loop.epoch_loop.restarting = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._record is not None:
            resume(trainer, pl_module, self._record)
            self._record = None


DAMAGED = "the checkpoint's position in the run is damaged (resume from another checkpoint)"


@dataclass(frozen=True)
class Position:
    """Point of a run between two batches.

    Attributes:
        epoch: finished epochs.
        batch: batches of the next epoch that were trained on.
        last: the epoch has no further batches, but has not been finished.
        validate: the validation that follows the last batch has not been finished.
        step_plateau: the finished epoch has not been followed by a step of the plateau schedules.
    """

    epoch: int
    batch: int
    last: bool
    validate: bool
    step_plateau: bool


def current_position(trainer: Trainer, validated: int) -> Position:
    """Return the position of a run, in any hook.

    Args:
        trainer: the trainer.
        validated: number of training batches before the end of the latest validation.
    """
    fit_loop, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    epochs, batches = _current(fit_loop.epoch_progress), _current(loop.batch_progress)
    done = batches.processed
    between_batches = batches.ready == done
    last = done > 0 and (
        done >= trainer.num_training_batches or (between_batches and loop.batch_progress.is_last_batch)
    )
    if epochs.started > epochs.processed:
        unfinished = _is_interrupted(loop.val_loop.batch_progress) or validated != _total(loop.batch_progress).processed
        validate = done > 0 and between_batches and unfinished and _is_validation_due(trainer)
        return Position(epochs.processed, done, last, validate, False)
    if done > 0 and not last:  # Lightning counts an unfinished epoch
        return Position(epochs.processed - 1, done, False, False, False)
    return Position(epochs.processed, 0, False, False, epochs.completed < epochs.processed)


def resume_record(trainer: Trainer, module: LightningModule, validated: int) -> dict[str, Any]:
    """Return the record for a checkpoint, from which :func:`resume` continues the run.

    Args:
        trainer: the trainer.
        module: the module that it trains.
        validated: number of training batches before the end of the latest validation.
    """
    position = current_position(trainer, validated)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return asdict(position) | {"metrics": metrics} | _accumulated_gradients(trainer, module, position)


def set_counters(checkpoint: dict[str, Any]) -> None:
    """Set a checkpoint's counters from its position.

    Args:
        checkpoint: the checkpoint, changed in place.
    """
    position = read_position(checkpoint[KEY])
    loops = checkpoint["loops"]["fit_loop"]
    checkpoint["epoch"] = position.epoch
    in_epoch = position.batch > 0
    started = {"ready": position.epoch + in_epoch, "started": position.epoch + in_epoch}
    epochs = started | {"processed": position.epoch, "completed": position.epoch}
    loops["epoch_progress"] = {"total": dict(epochs), "current": dict(epochs)}
    batches = loops["epoch_loop.batch_progress"]
    total = batches["total"]["processed"]
    loops["epoch_loop.batch_progress"] = {
        "total": dict.fromkeys(batches["total"], total),
        "current": dict.fromkeys(batches["current"], position.batch),
        "is_last_batch": position.last,
    }
    validation = loops["epoch_loop.val_loop.batch_progress"]
    for part in ("total", "current"):
        validation[part] = dict.fromkeys(validation[part], 0)


def read_position(record: Any) -> Position:
    """Read the position in a checkpoint's record.

    Raises:
        UserError: if the record is damaged.
    """
    try:
        position = Position(**{name: record[name] for name in Position.__dataclass_fields__})
    except (TypeError, LookupError) as error:
        raise UserError(DAMAGED) from error
    numbers, flags = (position.epoch, position.batch), (position.last, position.validate, position.step_plateau)
    if not all(type(number) is int and number >= 0 for number in numbers) or not all(type(f) is bool for f in flags):
        raise UserError(DAMAGED)
    return position


def check_record(record: Any, module: LightningModule) -> None:
    """Check the types and shapes in a checkpoint's record.

    Raises:
        UserError: if the record is damaged.
    """
    read_position(record)
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    metrics, gradients, loading = (record.get(part, {}) for part in ("metrics", "gradients", "loading"))
    if not (
        _all_values(metrics, lambda _, value: isinstance(value, float))
        and _all_values(loading, lambda _, value: isinstance(value, int) and value >= 0)
        and _all_values(
            gradients, lambda name, value: isinstance(value, torch.Tensor) and shapes.get(name) == value.shape
        )
    ):
        raise UserError(DAMAGED)


def _all_values(part: Any, is_intact: Callable[[str, Any], bool]) -> bool:
    """Return whether a part of a record is a dict of intact values."""
    return isinstance(part, dict) and all(is_intact(name, value) for name, value in part.items())


def loading_state(trainer: Trainer) -> dict[str, int]:
    """Return the values that determine the order of the training data; empty if the data module has none."""
    state: dict[str, int] = getattr(trainer.datamodule, "loading_state", dict)()  # type: ignore[attr-defined]
    return state


def check_stream(saved: Mapping[str, int], current: Mapping[str, int]) -> None:
    """Check that streamed data can be continued.

    Args:
        saved: :func:`loading_state` of the run that saved the checkpoint.
        current: :func:`loading_state` of the resumed run.

    Raises:
        UserError: if documents would be distributed among processes in another way.
    """
    if not saved or not (saved.get("streaming") or current.get("streaming")):
        return
    for name in sorted(saved.keys() | current.keys()):
        if saved.get(name) != current.get(name):
            was = bool(saved.get(name)) if name == "streaming" else saved.get(name)
            now = bool(current.get(name)) if name == "streaming" else current.get(name)
            flag = {"num_replicas": "--trainer.devices", "num_targets": "--model.num_latents"}.get(
                name, f"--data.{name}"
            )
            raise UserError(
                f"{flag}: {now}, but the checkpoint was saved with {was}, and a stream that is read in another way "
                f"cannot be continued (resume with {flag}={str(was).lower()})"
            )


def _convert_position(position: Position, trainer: Trainer, saved: Mapping[str, int]) -> Position:
    """Convert the position to changed data, batch size or number of processes, with a warning.

    Another number of examples has another order, in which a position within an epoch has no meaning: the epoch ends,
    and training continues with the next one. The same examples continue within the epoch, by their number.
    """
    current, batches_per_epoch = loading_state(trainer), trainer.num_training_batches
    if saved.keys() != current.keys() or saved == current or not isinstance(batches_per_epoch, int):
        return position
    has_other_examples = saved.get("examples") != current.get("examples")
    if position.batch == 0:
        batch = 0
    elif position.last or has_other_examples:
        batch = batches_per_epoch
    else:
        examples = position.batch * saved["batch_size"] * saved["num_replicas"]
        batch = min(examples // (current["batch_size"] * current["num_replicas"]), batches_per_epoch)
    ends_early = has_other_examples and batch > 0 and not position.last
    last, validate = 0 < batch == batches_per_epoch, position.validate or ends_early
    converted = replace(position, batch=batch, last=last, validate=validate)
    changed = ", ".join(
        f"{'training ' * (name == 'examples')}{name} {saved.get(name)} -> {now}"
        for name, now in current.items()
        if saved.get(name) != now
    )
    rank_zero_warn(f"{changed}: {_describe_start(position, converted, batches_per_epoch)}")
    loop = trainer.fit_loop.epoch_loop
    total = position.epoch * batches_per_epoch + batch
    vars(loop.batch_progress.total).update(dict.fromkeys(vars(loop.batch_progress.total), total))
    vars(loop.batch_progress.current).update(dict.fromkeys(vars(loop.batch_progress.current), batch))
    return converted


def _describe_start(saved: Position, converted: Position, batches_per_epoch: int) -> str:
    """Describe where a run continues whose position was converted."""
    if converted.batch and not converted.last:
        return f"epoch {converted.epoch} continues at its batch {converted.batch} of {batches_per_epoch}"
    skipped = f", without the rest of epoch {saved.epoch}" if converted.last and not saved.last else ""
    return f"training continues with epoch {saved.epoch + converted.last}, of {batches_per_epoch} batches{skipped}"


def resume(trainer: Trainer, module: LightningModule, record: Mapping[str, Any]) -> None:
    """Continue a run at the position of its checkpoint, when training starts.

    Args:
        trainer: the trainer, with the state that Lightning restored.
        module: the module that it trains.
        record: the checkpoint's :func:`resume_record`.
    """
    position = _convert_position(read_position(record), trainer, record.get("loading", {}))
    fit_loop, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in record["metrics"].items()})
    if position.step_plateau:
        _set(fit_loop.epoch_progress, processed=position.epoch, completed=position.epoch - 1)
        loop._update_learning_rates("epoch", update_plateau_schedulers=True)
        _set(fit_loop.epoch_progress, completed=position.epoch)
    if position.batch:
        _restart_within_epoch(trainer, position)
        if not position.last:
            _restore_gradients(trainer, module, record)
    else:
        _restart_between_epochs(trainer)
    # Lightning may have created the iterator before it restored the loader's counters.
    iter(cast("Any", fit_loop._data_fetcher))


def _restart_between_epochs(trainer: Trainer) -> None:
    fit_loop, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    fit_loop._restart_stage, loop._restart_stage = FitStage.NONE, EpochStage.NONE
    # Its setter would ignore this for runs with `max_steps`.
    fit_loop._restarting = False
    loop.restarting = False
    _set_steps(trainer, after_step=True)


def _restart_within_epoch(trainer: Trainer, position: Position) -> None:
    fit_loop, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    loop.batch_progress.is_last_batch = position.last or position.batch >= trainer.num_training_batches
    loop.restarting = True
    # With this flag, plateau schedules would skip their step at the end of the epoch.
    fit_loop._restarting = False
    fit_loop._restart_stage = FitStage.RESTARTED_MID_EPOCH
    if position.validate and _is_validation_due(trainer):
        loop._restart_stage = EpochStage.RESTARTED_ON_LAST
        loop.val_loop._restart_stage = EvaluationStage.RESTARTED_MID_EVALUATION
        _set_steps(trainer, after_step=False)
    elif loop.batch_progress.is_last_batch:
        loop._restart_stage = EpochStage.RESTARTED_ON_LAST
        loop.val_loop._has_run = True  # end the epoch without another batch
        _set_steps(trainer, after_step=True)
    else:
        loop._restart_stage = EpochStage.NONE
        _set_steps(trainer, after_step=False)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        # These act at the start of an epoch, which is skipped when resuming within it.
        if isinstance(callback, GradientAccumulationScheduler | StochasticWeightAveraging):
            callback.on_train_epoch_start(trainer, trainer.lightning_module)


def _set_steps(trainer: Trainer, after_step: bool) -> None:
    """Set the step number of loggers. If not ``after_step``, Lightning counts the latest step afterwards."""
    loop = trainer.fit_loop.epoch_loop
    if trainer.lightning_module.automatic_optimization:
        pending = not after_step and not loop._should_accumulate()
        loop._batches_that_stepped = trainer.global_step - pending


def _is_validation_due(trainer: Trainer) -> bool:
    """Check whether a validation is due after the latest batch, except for the validation when training stops."""
    fit_loop = trainer.fit_loop
    stopping, trainer.should_stop = trainer.should_stop, False
    try:
        return fit_loop.epoch_loop._should_check_val_fx(cast("Any", fit_loop._data_fetcher))
    finally:
        trainer.should_stop = stopping


def _is_interrupted(progress: _Progress) -> bool:
    return _total(progress).started != _total(progress).processed


def _total(progress: _Progress) -> _ProcessedTracker:
    return cast("_ProcessedTracker", progress.total)


def _current(progress: _Progress) -> _ProcessedTracker:
    return cast("_ProcessedTracker", progress.current)


def _set(progress: _Progress, **values: int) -> None:
    for tracker in (progress.total, progress.current):
        vars(tracker).update(values)


# Accumulated gradients


def _accumulated_gradients(trainer: Trainer, module: LightningModule, position: Position) -> dict[str, Any]:
    accumulate = trainer.accumulate_grad_batches
    if position.last or position.batch % accumulate == 0 or trainer.strategy.handles_gradient_accumulation:
        return {}
    if trainer.world_size > 1:
        rank_zero_warn(
            f"the checkpoint is saved between the {accumulate} batches of a step: with several processes, "
            "a run that is resumed from it takes that step without the batches before"
        )
        return {}
    gradients = {name: each.grad.detach() for name, each in module.named_parameters() if each.grad is not None}
    return {"accumulate_grad_batches": accumulate, "gradients": gradients}


def _restore_gradients(trainer: Trainer, module: LightningModule, record: Mapping[str, Any]) -> None:
    accumulate, saved = trainer.accumulate_grad_batches, record.get("accumulate_grad_batches")
    gradients = record.get("gradients", {})
    if gradients and saved != accumulate:
        rank_zero_warn(
            f"--trainer.accumulate_grad_batches: {accumulate}, was {saved}: gradients of the interrupted step are "
            "discarded"
        )
        return
    parameters = dict(module.named_parameters())
    for name, gradient in gradients.items():
        parameters[name].grad = gradient.to(parameters[name].device, copy=True)
