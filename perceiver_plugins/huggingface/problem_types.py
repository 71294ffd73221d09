"""Problem types of ``transformers``, and the equivalent decoder configurations of this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from perceiver_core.config import require
from perceiver_plugins.classification.config import ClassificationDecoderConfig, RegressionDecoderConfig

REGRESSION, SINGLE_LABEL, MULTI_LABEL = PROBLEM_TYPES = (
    "regression",
    "single_label_classification",
    "multi_label_classification",
)


def problem_type_of(decoder: Mapping[str, Any]) -> str | None:
    """Return the problem type of a decoder's configuration (plain data); None if it does not have one."""
    if "num_targets" in decoder:
        return REGRESSION
    multi_label = decoder.get("multi_label")
    return None if multi_label is None else MULTI_LABEL if multi_label else SINGLE_LABEL


def label_names(decoder: Mapping[str, Any]) -> tuple[list[str] | None, int | None]:
    """Return the names and the number of a decoder's classes or targets; None for those it does not have."""
    names, number = ("target_names", "num_targets") if "num_targets" in decoder else ("label_names", "num_classes")
    return decoder.get(names), decoder.get(number)


def with_labels(decoder: Mapping[str, Any], names: Sequence[str], problem_type: str | None) -> dict[str, Any]:
    """Replace the names, and with them the number, of classes or targets in a decoder's configuration.

    Args:
        decoder: configuration as plain data.
        names: names of the classes or targets.
        problem_type: new problem type of a classifier; other decoders ignore it. None: unchanged.
    """
    if "num_targets" in decoder:
        is_same = len(names) == decoder["num_targets"]
        without_statistics = {} if is_same else {"target_mean": None, "target_std": None}
        return {**decoder, "num_targets": len(names), "target_names": [*names], **without_statistics}
    changed = {**decoder, "num_classes": len(names), "label_names": [*names]}
    if classifies_inputs(decoder) and problem_type is not None:
        changed["multi_label"] = problem_type == MULTI_LABEL
        if problem_type != MULTI_LABEL and "threshold" in changed:
            changed["threshold"] = None
    return changed


def classifies_inputs(decoder: Mapping[str, Any]) -> bool:
    """Return whether a decoder's configuration, as plain data, is that of a classifier of whole inputs."""
    return {"num_classes", "num_output_queries"} <= decoder.keys()


def regression_decoder(decoder: ClassificationDecoderConfig) -> RegressionDecoderConfig:
    """Convert the configuration of a classifier to that of a regressor, whose predictions are the logits.

    Raises:
        ValueError: if the classifier has several output queries.
    """
    require(decoder.num_output_queries == 1, decoder, "num_output_queries", "must be 1 for regression")
    names = {field.name for field in fields(RegressionDecoderConfig)}
    shared = {field.name: getattr(decoder, field.name) for field in fields(decoder) if field.name in names}
    return RegressionDecoderConfig(**shared, num_targets=decoder.num_classes, target_names=decoder.label_names)
