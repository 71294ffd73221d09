"""Losses, as ``transformers`` computes them for its own models: those of classifiers by ``config.problem_type``."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from perceiver_plugins.huggingface.problem_types import MULTI_LABEL, PROBLEM_TYPES, REGRESSION, SINGLE_LABEL


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean cross-entropy of logits (..., classes) for class indices (...); -100 is ignored."""
    return cross_entropy(logits.float().flatten(0, -2), labels.flatten().long())


def problem_loss(logits: Tensor, labels: Tensor, problem_type: str | None) -> Tensor:
    """Compute the loss of a classifier.

    Args:
        logits: (b, classes), or (b, o, classes) with o output queries.
        labels: regression: targets in the shape of ``logits``, or without the last dimension for one class. Single
            label: class indices (b,) or (b, o), or class probabilities in the shape of ``logits``. Multi-label: 0 or 1
            for each class, in the shape of ``logits``.
        problem_type: one of :data:`PROBLEM_TYPES`. None: regression if there is one class, otherwise single label
            if ``labels`` are integers and multi-label if they are not.

    Raises:
        ValueError: if the type is unknown, or if ``labels`` have another shape.
    """
    if problem_type is None:
        problem_type = _guess_problem_type(logits, labels)
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"problem_type={problem_type!r}: must be one of {', '.join(PROBLEM_TYPES)}")
    logits, labels = logits.float(), labels.to(logits.device)
    if problem_type == SINGLE_LABEL and not labels.is_floating_point():
        return label_loss(logits, labels)
    if problem_type == REGRESSION and logits.shape[-1] == 1 and labels.shape == logits.shape[:-1]:
        labels = labels[..., None]
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)}: must be {tuple(logits.shape)} for problem_type={problem_type!r}"
        )
    labels = labels.to(logits.dtype)
    if problem_type == REGRESSION:
        return mse_loss(logits, labels)
    if problem_type == MULTI_LABEL:
        return binary_cross_entropy_with_logits(logits, labels)
    return probability_loss(logits, labels)


def _guess_problem_type(logits: Tensor, labels: Tensor) -> str:
    if logits.shape[-1] == 1:
        return REGRESSION
    return MULTI_LABEL if labels.is_floating_point() else SINGLE_LABEL


def probability_loss(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Compute the mean cross-entropy for class probabilities (..., classes), such as those of mixup.

    Raises:
        ValueError: if the probabilities of an example do not sum to 1.
    """
    if ((probabilities.sum(dim=-1) - 1).abs() > 1e-2).any():
        raise ValueError(
            "labels: probabilities of a single label must sum to 1 (set config.problem_type to "
            f"{MULTI_LABEL!r} if an example has several labels)"
        )
    return cross_entropy(logits.flatten(0, -2), probabilities.flatten(0, -2))


def next_token_loss(logits: Tensor, input_ids: Tensor) -> Tensor:
    """Compute the mean cross-entropy of the tokens that follow those with logits.

    Args:
        logits: (b, n, vocabulary), those for the last n tokens.
        input_ids: (b, m), the tokens; -100 is ignored.
    """
    targets = input_ids[:, -logits.shape[1] :][:, 1:].to(logits.device)
    return label_loss(logits[:, :-1], targets)
