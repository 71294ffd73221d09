"""Configurations of the output adapters for any input."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import DecoderConfig, require, require_positive


@dataclass
class ClassificationDecoderConfig(DecoderConfig):
    """Configuration of a decoder that classifies the whole input.

    Args:
        num_classes: number of classes.
        num_output_queries: number of learned output queries, each with logits of its own.
        num_output_query_channels: channels of an output query.
        label_names: names of the classes, by class index.
        pool_inputs: add a projection of the mean of the input array to the output queries.
        multi_label: inputs have any number of classes, whose probabilities are the sigmoids of their logits. None: as
            in the data, otherwise false.
        threshold: probability above which a class of a multi-label model is predicted. None: 0.5.
    """

    num_classes: int = 2
    num_output_queries: int = 1
    num_output_query_channels: int = 256
    label_names: list[str] | None = None
    pool_inputs: bool = False
    multi_label: bool | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_output_queries", "num_output_query_channels")
        require_classes(self, self.num_classes, self.label_names)
        require(self.threshold is None or 0 <= self.threshold < 1, self, "threshold", "must be at least 0 and below 1")


@dataclass
class TokenClassificationDecoderConfig(DecoderConfig):
    """Configuration of a decoder that classifies every input position.

    The output queries are the adapted input, so that there is one output per input position.

    Args:
        num_cross_attention_heads: heads of the cross-attention; must divide the input channels, unless
            ``num_cross_attention_qk_channels`` and ``num_cross_attention_v_channels`` are given.
        num_classes: number of classes.
        label_names: names of the classes, by class index.
    """

    num_cross_attention_heads: int = 1
    num_classes: int = 2
    label_names: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_classes(self, self.num_classes, self.label_names)


@dataclass
class RegressionDecoderConfig(DecoderConfig):
    """Configuration of a decoder that predicts numbers.

    Args:
        num_targets: number of targets.
        num_output_query_channels: channels of the output query.
        target_names: names of the targets.
        target_mean: mean of each target in the training data, added to the scaled output. None: 0.
        target_std: standard deviation of each target in the training data, which scales the output. None: 1.
        pool_inputs: add a projection of the mean of the input array to the output queries.
    """

    num_targets: int = 1
    num_output_query_channels: int = 256
    target_names: list[str] | None = None
    target_mean: list[float] | None = None
    target_std: list[float] | None = None
    pool_inputs: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_targets", "num_output_query_channels")
        require_names(self, self.target_names, self.num_targets, "target_names", "num_targets")
        for field in ("target_mean", "target_std"):
            values = getattr(self, field)
            require(values is None or len(values) == self.num_targets, self, field, "must have num_targets numbers")
        require(self.target_std is None or min(self.target_std) > 0, self, "target_std", "must be greater than 0")


def require_classes(config: DecoderConfig, num_classes: int, label_names: list[str] | None) -> None:
    """Raise ValueError unless there are classes and, if they have names, as many names as classes."""
    require(num_classes >= 1, config, "num_classes", "must be at least 1")
    require_names(config, label_names, num_classes)


def require_names(
    config: DecoderConfig,
    names: list[str] | None,
    number: int,
    field: str = "label_names",
    number_field: str = "num_classes",
) -> None:
    """Raise ValueError unless ``names`` is None or a list of as many texts as the field ``number_field``."""
    are_texts = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    require(names is None or are_texts, config, field, "must be a list of texts")
    if names is not None and len(names) != number:
        few = ", ".join([*names[:3], *["..."] * (len(names) > 3)])
        raise ValueError(
            f"{type(config).__name__}.{field}: {len(names)} names ({few}) do not match {number_field}={number}"
        )
