"""Model card for the hub, with the model's description and its training run."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from perceiver_plugins.huggingface.pipelines import OWN_PIPELINES
from perceiver_plugins.huggingface.zoo_config import is_causal
from perceiver_registry import ModelDescription, registry

TEMPLATE = Path(__file__).with_name("model_card.md")

SECTIONS = ("data", "task", "optimizer", "lr_scheduler")
"""Sections of a run's configuration in the model card."""

TRAINER_FIELDS = ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val")
"""Fields of the trainer in the model card."""

SPLITS = {"val": "validation", "test": "test"}

OURS = "perceiver-zoo"

PERCEIVER_IO = "[Perceiver IO](https://arxiv.org/abs/2107.14795)"
PERCEIVER_AR = "[Perceiver AR](https://arxiv.org/abs/2202.07765)"
"""Names of the architectures in model cards, with their papers."""


@dataclass(frozen=True)
class Run:
    """Training run of a model.

    Attributes:
        settings: configuration of the run, without the model's.
        metrics: results by logged name (``val_loss``).
        steps: number of training steps.
        versions: versions of the distributions of the run.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_description(cls, description: ModelDescription) -> Run:
        """Create a run from a description, and from the events in its log folder."""
        run, results = description.run, description.results
        settings = _run_settings(run)
        versions = {used.distribution: used.version for used in (description.origin or description).plugins}
        steps, metrics = (results.steps, dict(results.metrics)) if results else (0, {})
        if results:
            metrics |= dict(_read_logged_metrics(Path(results.logs), steps))
            versions["pytorch-lightning"] = str(results.lightning)
        return cls(settings, metrics, steps, versions)

    @property
    def data(self) -> str | None:
        """Name of the data set on the hub, or of the data module."""
        section = self.settings.get("data") or {}
        return section.get("dataset") or section.get("name")


def _run_settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of a run's configuration for the model card."""
    settings = {name: run[name] for name in SECTIONS if run.get(name)}
    trainer = run.get("trainer") or {}
    settings["trainer"] = {name: trainer[name] for name in TRAINER_FIELDS if trainer.get(name) not in (None, -1)}
    return {name: _remove_local_values(section) for name, section in settings.items() if section}


def model_card(model: Any, run: Run, name: str) -> ModelCard:
    """Create the card of a model.

    Args:
        model: the ``ZooModel``.
        run: the model's training run.
        name: id of the model on the hub, or another name.
    """
    task = registry().get("task", model.config.task)
    description = model.config.description
    results = _results(run, model.pipeline_tag or task.name)
    dataset = (run.settings.get("data") or {}).get("dataset")
    card_data = ModelCardData(
        library_name="transformers",
        pipeline_tag=model.pipeline_tag,
        tags=["perceiver", OURS],
        datasets=[dataset] if dataset else None,
        model_name=name,
        eval_results=results or None,
    )
    return ModelCard.from_template(
        card_data,
        template_path=str(TEMPLATE),
        name=name,
        task=task.name,
        summary=task.spec.summary,
        architecture=PERCEIVER_AR if is_causal(model.perceiver.config) else PERCEIVER_IO,
        pipeline=_pipeline(model, task.name),
        num_parameters=f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        adapters=description.adapters(),
        distributions=" ".join(dict.fromkeys([OURS, *(used.distribution for used in description.plugins)])),
        trained=bool(run.steps or run.settings),
        data=run.data,
        steps=f"{run.steps:,}",
        results=[(result.dataset_split, result.metric_type, f"{result.metric_value:.4g}") for result in results],
        settings=yaml.safe_dump({**run.settings}, sort_keys=False).strip(),
        model_settings=yaml.safe_dump(dict(description.model), sort_keys=False).strip(),
        versions={**run.versions, **{each: importlib.metadata.version(each) for each in ("torch", "transformers")}},
    )


def _pipeline(model: Any, task: str) -> str | None:
    """Return the name of the model's pipeline, of transformers or of the zoo, or None."""
    return model.pipeline_tag or next((each.tag for each, _ in OWN_PIPELINES if each.tag == task), None)


def _results(run: Run, kind: str) -> list[EvalResult]:
    """Return the results of a run in the hub's format, for a kind of task."""
    data = run.data or "unknown data"
    return [
        EvalResult(
            task_type=kind,
            dataset_type=data,
            dataset_name=data,
            dataset_split=SPLITS[metric.partition("_")[0]],
            metric_type=metric.partition("_")[2],
            metric_value=round(value, 6),
        )
        for metric, value in sorted(run.metrics.items())
    ]


def _read_logged_metrics(folder: Path, steps: int) -> Iterator[tuple[str, float]]:
    """Read validation and test metrics at a step from the TensorBoard events of a run."""
    if not any(folder.glob("events.out.tfevents.*")):
        return
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    with _without_warnings("tensorboard"):  # a resumed run replaces events, which TensorBoard reports
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    for name in events.Tags()["scalars"]:
        split = name.partition("_")[0]
        # Lightning logs a validation in training before it counts the preceding step.
        last = steps - 1 if split == "val" else steps
        values = [event.value for event in events.Scalars(name) if event.step <= last]
        if split in SPLITS and values:
            yield name, values[-1]


@contextmanager
def _without_warnings(name: str) -> Iterator[None]:
    """Suppress a logger's warnings within this context."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _remove_local_values(value: Any) -> Any:
    """Return a run's settings without null values, and with names instead of absolute paths."""
    if isinstance(value, Mapping):
        return {name: _remove_local_values(each) for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_remove_local_values(each) for each in value]
    if isinstance(value, str) and (value.startswith("~") or PurePath(value).is_absolute()):
        return PurePath(value).name
    return value
