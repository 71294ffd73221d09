"""Training state restored from a checkpoint: validated, and confined to the run's own folder.

A checkpoint may come from an untrusted source. Callbacks restore paths from it, and delete or overwrite these files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from packaging.version import InvalidVersion, Version
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.optim import Optimizer

from perceiver_cli.foreign_paths import OwnFolders
from perceiver_registry import UserError
from perceiver_registry.checkpoint import Checkpoint
from perceiver_registry.errors import RunError, in_one_line

MAX_COUNT = 2**53
"""Largest number of steps, batches or epochs in a checkpoint (arbitrary; converts to a float exactly)."""

OLDEST_LIGHTNING = Version("2.0")
"""Oldest version that can be restored; no checkpoint of this project is older."""


def check_training_state(checkpoint: Mapping[str, Any], trainer: Trainer, source: Path) -> None:
    """Check the structure of the training state in a checkpoint.

    Args:
        checkpoint: content of the checkpoint.
        trainer: the trainer that will resume.
        source: the file, for messages.

    Raises:
        UserError: if an entry is missing or damaged; the message names the first one.
    """
    damaged = next(_damaged_entries(checkpoint, trainer), None)
    if damaged is not None:
        raise UserError(f"{source}: {damaged} is missing or damaged (resume from another checkpoint)")


def _damaged_entries(checkpoint: Mapping[str, Any], trainer: Trainer) -> Iterator[str]:
    """Yield the names of entries with a wrong type."""
    yield from (name for name in ("epoch", "global_step") if not _is_count(checkpoint.get(name)))
    if not _is_current_version(checkpoint.get("pytorch-lightning_version")):
        yield "pytorch-lightning_version"
    options = _mapping_or_empty(checkpoint.get("hyper_parameters"))
    for name in ("optimizer", "lr_scheduler"):
        if not isinstance(options.get(name), Mapping):
            yield f"hyper_parameters.{name}"
    yield from (name for name in ("optimizer_states", "lr_schedulers") if not _is_list_of_states(checkpoint.get(name)))
    callbacks = checkpoint.get("callbacks")
    if not isinstance(callbacks, Mapping) or not _is_list_of_states(list(callbacks.values())):
        yield "callbacks"
    yield from _damaged_counters(checkpoint.get("loops", {}), trainer)


def _damaged_counters(loops: Any, trainer: Trainer) -> Iterator[str]:
    fit_loop = loops.get("fit_loop", {}) if isinstance(loops, Mapping) else None
    yield from _unlike(fit_loop, trainer.fit_loop.state_dict(), "loops.fit_loop")


def _mapping_or_empty(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_list_of_states(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(state, Mapping) for state in value)


def _unlike(state: Any, template: Any, name: str) -> Any:
    """Yield the names of entries in nested counters that differ in type or name from the trainer's counters."""
    if isinstance(template, bool):
        if not isinstance(state, bool):
            yield name
    elif isinstance(template, int):
        if not _is_count(state):
            yield name
    elif isinstance(template, Mapping) and isinstance(state, Mapping):
        for key, value in state.items():
            if key in template:
                yield from _unlike(value, template[key], f"{name}.{key}")
            elif key != "combined_loader":  # state of data loaders, where they have any
                yield f"{name}.{key}"
    elif type(state) is not type(template):
        yield name


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _is_current_version(value: Any) -> bool:
    try:
        return isinstance(value, str) and Version(value) >= OLDEST_LIGHTNING
    except InvalidVersion:
        return False


def check_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any], source: Path) -> None:
    """Check the types of saved options and, for fused kernels, the shapes of saved tensors.

    A fused kernel does not check shapes: it would read and write out of bounds.

    Raises:
        UserError: if the state does not fit the optimizer.
    """
    groups: Any = state.get("param_groups")
    fits = _is_list_of_states(groups) and _has_numbers_of(groups, optimizer)
    is_fused = all("fused" in group for group in optimizer.param_groups)
    if not fits or (is_fused and not _has_tensors_of(state, optimizer)):
        raise UserError(
            f"{source}: optimizer_states is damaged or belongs to another model (resume from another checkpoint)"
        )


def _has_numbers_of(groups: Iterable[Mapping[str, Any]], optimizer: Optimizer) -> bool:
    """Return whether the saved rate, and each other saved option, is a number if the optimizer's is."""
    return all(
        _is_number(saved.get(name))
        for group, saved in zip(optimizer.param_groups, groups, strict=False)
        for name, value in group.items()
        if _is_number(value) and (name in saved or name == "lr")
    )


def _has_tensors_of(state: Mapping[str, Any], optimizer: Optimizer) -> bool:
    """Return whether saved tensors have the shapes of an optimizer's weights."""
    try:
        saved = [number for group in state["param_groups"] for number in group["params"]]
        weights = dict(zip(saved, (p for group in optimizer.param_groups for p in group["params"]), strict=True))
        entries = [(name, value, weights[n]) for n, each in state["state"].items() for name, value in each.items()]
    except (LookupError, TypeError, ValueError, AttributeError):
        return False
    return all(_fits(name, value, weight) for name, value, weight in entries)


def _fits(name: str, value: Any, weight: Tensor) -> bool:
    if name == "step":
        return isinstance(value, Tensor | float | int) and torch.as_tensor(value).numel() == 1 and float(value) >= 0
    return value is None or (isinstance(value, Tensor) and value.shape == weight.shape)


def _is_number(value: Any) -> bool:
    is_scalar = isinstance(value, Tensor) and value.numel() == 1
    return is_scalar or (isinstance(value, int | float) and not isinstance(value, bool))


class RestoredState(Callback):
    """Confine the restored state of all callbacks to the run's own folder, and explain a resume that fails.

    It must be the first callback.

    Args:
        source: the checkpoint that the run resumes from.
        loaded: its content, released after Lightning has restored it.
    """

    def __init__(self, source: Path, loaded: Checkpoint | None = None):
        self.source = source
        self._loaded = loaded
        self._restoring = False
        self._first_step: int | None = None
        self._optimizer_states: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restoring = True

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._loaded is not None:
            self._loaded.take()  # release it, even if a strategy or plugin read the file itself
        self._optimizer_states = checkpoint["optimizer_states"]
        states = checkpoint["callbacks"]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = states.get(callback.state_key)
            if state is None:
                continue
            kept = self._kept(callback, state, trainer)
            if kept is None:
                del states[callback.state_key]
            else:
                states[callback.state_key] = kept

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer, state in zip(trainer.optimizers, self._optimizer_states, strict=False):
            check_optimizer_state(optimizer, state, self.source)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restoring = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restoring = False

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        # Until the end of the first batch, an error may come from the restored optimizer and schedule.
        self._first_step = trainer.global_step if self._first_step is None else self._first_step
        self._restoring = trainer.global_step == self._first_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._restoring = False

    def explained(self, error: Exception) -> Exception:
        """Return the error to raise for an error of the run: about the checkpoint if its state may be the cause."""
        known = isinstance(error, UserError | RunError | OSError | MemoryError | torch.OutOfMemoryError)
        if known or not self._restoring:
            return error
        message = f"{self.source}: cannot be resumed from: {in_one_line(error)}"
        return UserError(self._loaded.description.explain(message, self.source) if self._loaded else message)

    def _kept(self, callback: Callback, state: Mapping[str, Any], trainer: Trainer) -> dict[str, Any] | None:
        """Return the state that a callback restores, or None if it keeps its current state."""
        if isinstance(callback, ModelCheckpoint):
            return self._kept_files(callback, state)
        own = OwnFolders([Path(trainer.log_dir or "."), Path.cwd()])
        foreign = next((text for text in _strings(state) if text not in own), None)
        if foreign is None:
            return dict(state)
        self._report(f"the state of {callback.state_key} is not restored: {foreign} is outside the run's folder")
        return None

    def _kept_files(self, callback: ModelCheckpoint, state: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the state of a checkpoint callback, restricted to files in its folder."""
        folder = str(callback.dirpath)
        recorded = state.get("best_k_models")
        if not isinstance(recorded, Mapping):
            raise UserError(f"{self.source}: callbacks.best_k_models is damaged (resume from another checkpoint)")
        is_own = self._is_folder_of(folder, state.get("dirpath"))
        files = {path: _file_in(folder, path, state.get("dirpath")) if is_own else "" for path in recorded}
        models = {file: _score(recorded[path], self.source) for path, file in files.items() if file}
        if len(models) < len(recorded):
            self._report(f"not all of its best checkpoints are in {folder}: the best one is determined again")
        if not is_own:
            return None
        single = {
            name: _file_in(folder, state.get(name), state.get("dirpath"))
            for name in ("best_model_path", "last_model_path")
        }
        kept = {**callback.state_dict(), **single, "best_k_models": models, "kth_best_model_path": ""}
        if callback.monitor is not None:
            kept["best_model_path"] = ""
        if models:
            best, worst = (min, max) if callback.mode == "min" else (max, min)
            kept["best_model_path"] = best(models, key=models.__getitem__)
            kept["kth_best_model_path"] = worst(models, key=models.__getitem__)
            kept["best_model_score"] = models[kept["best_model_path"]]
            kept["kth_value"] = models[kept["kth_best_model_path"]]
        return kept

    def _is_folder_of(self, folder: str, recorded: Any) -> bool:
        """Return whether a folder has the checkpoints of the resumed run, which may have been moved there."""
        own = Path(folder).resolve()
        if self.source.resolve().parent == own:
            return True
        return isinstance(recorded, str) and "://" not in recorded and Path(recorded).resolve() == own

    def _report(self, line: str) -> None:
        print(f"perceiver: {self.source}: {line}", file=sys.stderr)


def _file_in(folder: str, path: Any, recorded: Any) -> str:
    """Map a path in the recorded folder to one in ``folder``; "" if the file is missing or outside of it."""
    if not isinstance(path, str) or not path or "://" in path:
        return ""
    name = Path(path)
    if isinstance(recorded, str) and name.is_relative_to(recorded):
        name = name.relative_to(recorded)
    elif name.is_absolute() or len(name.parts) > 1:
        name = Path(name.name)
    file = Path(folder, name)
    is_inside = file.resolve().is_relative_to(Path(folder).resolve())
    if not (is_inside and file.is_file() and file.suffix == ModelCheckpoint.FILE_EXTENSION):
        return ""
    return os.path.join(folder, name)  # joined as Lightning does, which compares paths as strings


def _score(value: Any, source: Path) -> Tensor:
    if not (isinstance(value, Tensor) and value.numel() == 1 and value.is_floating_point()):
        raise UserError(f"{source}: callbacks.best_k_models is damaged (resume from another checkpoint)")
    return value.reshape(())


def _strings(value: Any) -> Any:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _strings(key)
            yield from _strings(child)
    elif isinstance(value, list | tuple | set):
        for child in value:
            yield from _strings(child)
