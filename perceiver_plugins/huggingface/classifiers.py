"""Conversion of the decoder of Hugging Face's classifiers, for all problem types."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from perceiver_plugins.classification.config import RegressionDecoderConfig
from perceiver_plugins.huggingface.conversion import Conversion, layer_pairs
from perceiver_plugins.huggingface.problem_types import (
    MULTI_LABEL,
    SINGLE_LABEL,
    label_names,
    problem_type_of,
    regression_decoder,
)
from perceiver_plugins.sdk.state_dicts import Pairs, module_pairs

if TYPE_CHECKING:
    import transformers

    from perceiver_core import PerceiverConfig


def classification_settings(decoder: Any) -> dict[str, Any]:
    """Return Hugging Face's settings of a classifier or regressor from its decoder's configuration; none for others.

    transformers ignores the setting ``threshold``; :func:`classification_decoder_values` reads it.
    """
    settings: dict[str, Any] = {}
    if (problem_type := problem_type_of(asdict(decoder))) is not None:
        settings["problem_type"] = problem_type
    if getattr(decoder, "threshold", None) is not None:
        settings["threshold"] = decoder.threshold
    names, number = label_names(asdict(decoder))
    if number is None:
        return settings
    if names is None:
        return settings | {"num_labels": number}
    numbered = dict(enumerate(names))
    return settings | {"id2label": numbered, "label2id": {name: number for number, name in numbered.items()}}


def classification_decoder_values(config: transformers.PerceiverConfig) -> dict[str, Any]:
    """Return the fields of the ``ClassificationDecoderConfig`` that is equivalent to Hugging Face's classifiers.

    ``label_names`` is None if ``config`` has the default names of transformers.
    """
    names = [name for _, name in sorted((config.id2label or {}).items())]
    return {
        "num_classes": len(names),
        "num_output_queries": 1,
        "num_output_query_channels": config.d_latents,
        "label_names": None if names == [f"LABEL_{i}" for i in range(len(names))] else names,
        "multi_label": {SINGLE_LABEL: False, MULTI_LABEL: True}.get(config.problem_type or ""),
        "threshold": getattr(config, "threshold", None),
        "num_cross_attention_heads": 1,
        "num_cross_attention_qk_channels": config.d_latents,
        "num_cross_attention_v_channels": config.d_latents,
        "cross_attention_widening_factor": 1,
        "cross_attention_residual": True,
        "dropout": config.attention_probs_dropout_prob,
        "init_scale": config.initializer_range,
    }


def classification_decoder_pairs() -> Pairs:
    """Return the pairs of a classifier's decoder."""
    prefix = "perceiver.decoder.decoder"
    yield "output_adapter.query_provider.queries", f"{prefix}.output_position_encodings.position_embeddings"
    yield from layer_pairs("decoder.cross_attention_layer", f"{prefix}.decoding_cross_attention", cross=True)
    yield from module_pairs("output_adapter.linear", f"{prefix}.final_layer")


def as_regression(conversion: Conversion) -> Conversion:
    """Return the conversion of regressors that have a class of classifiers (``problem_type="regression"``)."""

    def convert_config(config: transformers.PerceiverConfig) -> PerceiverConfig[Any, Any]:
        converted = conversion.convert_config(config)
        return replace(converted, decoder=regression_decoder(converted.decoder))

    return replace(
        conversion,
        kind=f"{conversion.kind} (regression)",
        decoder=RegressionDecoderConfig,
        convert_config=convert_config,
        task="regression",
        outputs=lambda model, batch: model(batch).float(),
    )
