"""Configurations of the output adapters that know no modality."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import DecoderConfig, require, require_positive


@dataclass
class ClassificationDecoderConfig(DecoderConfig):
    """A decoder that tells which class the whole input belongs to.

    Args:
        num_classes: number of classes.
        num_output_queries: number of learned output queries, each of which answers for itself.
        num_output_query_channels: channels of an output query.
        label_names: what the classes are called, in the order of their numbers.
    """

    num_classes: int = 2
    num_output_queries: int = 1
    num_output_query_channels: int = 256
    label_names: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_output_queries", "num_output_query_channels")
        require_classes(self, self.num_classes, self.label_names)


@dataclass
class TokenClassificationDecoderConfig(DecoderConfig):
    """A decoder that tells the class of each place of the input.

    The adapted input itself asks the decoder, so that there is one output for each of its places, however many. Its
    channels are those of the output queries.

    Args:
        num_cross_attention_heads: heads of the cross-attention; they must divide the input's channels, or
            ``num_cross_attention_qk_channels`` and ``num_cross_attention_v_channels`` be given.
        num_classes: number of classes.
        label_names: what the classes are called, in the order of their numbers.
    """

    num_cross_attention_heads: int = 1
    num_classes: int = 2
    label_names: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_classes(self, self.num_classes, self.label_names)


@dataclass
class RegressionDecoderConfig(DecoderConfig):
    """A decoder that predicts a vector of numbers.

    Args:
        num_targets: length of the vector.
        num_output_query_channels: channels of the output query.
        target_names: what the numbers are called.
        target_mean: mean of each target in the training data, and
        target_std: its standard deviation: the model predicts how many of these a target lies from the mean. None:
            the model predicts the target itself.
    """

    num_targets: int = 1
    num_output_query_channels: int = 256
    target_names: list[str] | None = None
    target_mean: list[float] | None = None
    target_std: list[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_targets", "num_output_query_channels")
        require_names(self, self.target_names, self.num_targets, "target_names", "num_targets")
        for field in ("target_mean", "target_std"):
            values = getattr(self, field)
            require(values is None or len(values) == self.num_targets, self, field, "must have num_targets numbers")
        require(self.target_std is None or min(self.target_std) > 0, self, "target_std", "must be greater than 0")


def require_classes(config: DecoderConfig, num_classes: int, label_names: list[str] | None) -> None:
    """Raises ValueError unless there are classes, and no names for them or as many as there are."""
    require(num_classes >= 1, config, "num_classes", "must be at least 1")
    require_names(config, label_names, num_classes)


def require_names(
    config: DecoderConfig,
    names: list[str] | None,
    number: int,
    field: str = "label_names",
    number_field: str = "num_classes",
) -> None:
    """Raises ValueError unless there are no names, or as many as ``number_field`` says."""
    if names is not None and len(names) != number:
        few = ", ".join([*names[:3], *["..."] * (len(names) > 3)])
        raise ValueError(
            f"{type(config).__name__}.{field}: {len(names)} names ({few}) do not go with {number_field}={number}"
        )
