"""Exact conversion between Hugging Face's Perceivers and the models of this project, in both directions.

The modules of this package describe each of Hugging Face's classes with a :class:`Conversion`. This module has the part
that they share, the encoder; :mod:`~perceiver_plugins.huggingface.classifiers` has the decoder of the classifiers. A
"pair" has the names of a parameter in this project and in transformers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor

from perceiver_plugins.huggingface.stored_weights import read_stored_shapes
from perceiver_plugins.sdk.errors import one_line
from perceiver_plugins.sdk.hub import hub
from perceiver_plugins.sdk.state_dicts import Pairs, module_pairs
from perceiver_registry import ModelDescription, UserError, assemble
from perceiver_registry.errors import surface_own_fault

if TYPE_CHECKING:
    from perceiver_core import Batch, DecoderConfig, EncoderConfig, PerceiverConfig, PerceiverIO

TRAINING_FIELDS = (
    "params",
    "freeze",
    "init",
    "activation_checkpointing",
    "activation_offloading",
    "compile",
    "residual_dropout",
)
"""Fields of every configuration that concern training, not the computation."""

SHARING_FIELDS = {
    "first_cross_attention_layer_shared": "num_cross_attention_layers",
    "first_self_attention_block_shared": "num_self_attention_blocks",
    "share_repeated_layers": "num_self_attention_blocks",
}
"""Fields without effect if there is a single layer or block, with the field of its number."""


@dataclass(frozen=True)
class Conversion:
    """Exact conversion between one of Hugging Face's classes and a model of this project, in both directions.

    Args:
        architecture: name of Hugging Face's class, as in ``architectures`` of a configuration.
        kind: name of the kind of model in messages: "Perceiver language model".
        encoder: class of the converted encoder's configuration.
        decoder: class of the converted decoder's configuration.
        convert_config: converts a configuration of Hugging Face's.
        settings: returns Hugging Face's settings of a converted configuration, without those of
            :func:`encoder_settings`.
        pairs: returns the pairs of all parameters and statistics of a model with a converted configuration.
        task: name of the task.
        hugging_face_inputs: returns the arguments of Hugging Face's model, from its configuration and a batch of the
            converted model.
        hugging_face_outputs: converts the result of Hugging Face's model to the structure of ``outputs``.
        outputs: computes the output of the converted model.
        data: returns the description of the data (a data module's ``description()``), from Hugging Face's
            configuration and the source (folder or hub id).
        processor: returns Hugging Face's tokenizer or image processor, or None, from a converted configuration and
            the description of the data.
        training_fields: further fields of encoder and decoder that concern training, not the computation.
    """

    architecture: str
    kind: str
    encoder: type[EncoderConfig]
    decoder: type[DecoderConfig]
    convert_config: Callable[[transformers.PerceiverConfig], PerceiverConfig[Any, Any]]
    settings: Callable[[PerceiverConfig[Any, Any]], Mapping[str, Any]]
    pairs: Callable[[PerceiverConfig[Any, Any]], Pairs]
    task: str
    hugging_face_inputs: Callable[[transformers.PerceiverConfig, Batch], Mapping[str, Any]]
    hugging_face_outputs: Callable[[Any], Any] = lambda result: result.logits
    outputs: Callable[[PerceiverIO, Batch], Any] = lambda model, batch: model(batch)
    data: Callable[[transformers.PerceiverConfig, str], Mapping[str, Any]] = lambda config, source: {}
    processor: Callable[[PerceiverConfig[Any, Any], Mapping[str, Any]], Any] = lambda config, data: None
    training_fields: tuple[str, ...] = ()

    @property
    def model_type(self) -> Any:
        """Hugging Face's class."""
        return getattr(transformers, self.architecture)

    def build_config(self, config: transformers.PerceiverConfig) -> PerceiverConfig[Any, Any]:
        """Convert a configuration, without a source of weights.

        Raises:
            UserError: if it cannot be converted.
        """
        try:
            return self.convert_config(config).without_params()
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{config.name_or_path or self.architecture}: cannot convert the configuration: {one_line(error)}"
            ) from error

    def description(self, config: transformers.PerceiverConfig, source: str) -> ModelDescription:
        """Return the description of the model at ``source``.

        Raises:
            UserError: if the configuration cannot be converted, or if the task is not installed.
        """
        return ModelDescription.create(self.task, self.build_config(config), data=self.data(config, source))

    def from_state(self, config: PerceiverConfig[Any, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the state dict of Hugging Face's model to one of the model with the converted ``config``."""
        return {name: state[hf_name] for name, hf_name in self.pairs(config)}

    def from_hugging_face(self, model: Any) -> PerceiverIO:
        """Convert a model of Hugging Face's class. Weights are copied.

        Raises:
            ValueError: if its activation is not the exact GELU.
        """
        config = self.convert_config(model.config)
        converted = assemble(config)
        converted.load_state_dict(self.from_state(config, model.state_dict()))
        return converted.train(model.training)

    def to_hugging_face(self, model: PerceiverIO) -> Any:
        """Convert a model to Hugging Face's class. Weights are copied.

        Raises:
            ValueError: if Hugging Face's class cannot express the model; the message names the differences.
        """
        self.check(model)
        hf_model = self.model_type(self.hugging_face_config(model.config))
        state = model.state_dict()
        hf_model.load_state_dict({hf_name: state[name] for name, hf_name in self.pairs(model.config)})
        return hf_model.train(model.training)

    def compute(self, hf_model: Any, batch: Batch) -> Any:
        """Compute the output of Hugging Face's model for a batch of the converted model, as ``outputs`` does."""
        return self.hugging_face_outputs(hf_model(**self.hugging_face_inputs(hf_model.config, batch)))

    def check(self, model: PerceiverIO) -> None:
        """Check that Hugging Face's class can express a model.

        Raises:
            ValueError: if it cannot; the message names the differences.
        """
        with torch.device("meta"):
            hf_state = self.model_type(self.hugging_face_config(model.config)).state_dict()
        state = model.state_dict()
        for name, hf_name in self.pairs(model.config):
            # For example, value channels that Hugging Face's self-attention does not support.
            if state[name].shape != hf_state[hf_name].shape:
                raise ValueError(
                    f"{self.architecture} cannot express this model: {name} has shape {tuple(state[name].shape)}, "
                    f"must be {tuple(hf_state[hf_name].shape)}"
                )

    def hugging_face_config(self, config: PerceiverConfig[Any, Any]) -> transformers.PerceiverConfig:
        """Convert a configuration to Hugging Face's.

        Raises:
            ValueError: if Hugging Face's class cannot express the model; the message names the fields that differ.
        """
        for part, expected in (("encoder", self.encoder), ("decoder", self.decoder)):
            actual = type(getattr(config, part))
            if actual is not expected:
                raise ValueError(
                    f"{self.architecture} cannot express this model: its {part} has a {actual.__name__}, "
                    f"must be {expected.__name__}"
                )
        settings = encoder_settings(config) | dict(self.settings(config))
        hf_config = transformers.PerceiverConfig(**settings, architectures=[self.architecture])
        # Fields that Hugging Face's class has no setting for differ after a round trip.
        differences = [
            f"{name} is {actual!r}, must be {expected!r}"
            for name, actual, expected in _differences(config, self.convert_config(hf_config), self.training_fields)
        ]
        if differences:
            raise ValueError(f"{self.architecture} cannot express this model: {'; '.join(differences)}")
        return hf_config


def _differences(
    actual: Any, expected: Any, training_fields: Sequence[str], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Iterate over name and values of the fields that concern the computation and differ."""
    for field in fields(actual):
        value, other = getattr(actual, field.name), getattr(expected, field.name)
        # Default channels are compared by the shapes of the weights.
        is_default = field.name.endswith(("_qk_channels", "_v_channels")) and None in (value, other)
        number = SHARING_FIELDS.get(field.name)
        has_no_effect = number is not None and getattr(actual, number) == 1
        if is_dataclass(value):
            yield from _differences(value, other, training_fields, f"{prefix}{field.name}.")
        elif field.name in (*TRAINING_FIELDS, *training_fields) or is_default or has_no_effect:
            continue
        elif value != other:
            yield f"{prefix}{field.name}", value, other


def encoder_settings(config: PerceiverConfig[Any, Any]) -> dict[str, Any]:
    """Return Hugging Face's settings of the encoder of a converted configuration."""
    encoder: EncoderConfig = config.encoder
    cross_qk_channels = encoder.num_cross_attention_qk_channels or config.num_latent_channels
    cross_v_channels = encoder.num_cross_attention_v_channels or cross_qk_channels
    self_qk_channels = encoder.num_self_attention_qk_channels or config.num_latent_channels
    self_v_channels = encoder.num_self_attention_v_channels or self_qk_channels
    # One setting applies to both attentions; if they differ, None selects the defaults.
    return {
        "num_latents": config.num_latents,
        "d_latents": config.num_latent_channels,
        "qk_channels": cross_qk_channels if cross_qk_channels == self_qk_channels else None,
        "v_channels": cross_v_channels if cross_v_channels == self_v_channels else None,
        "cross_attention_shape_for_attention": "q" if cross_qk_channels == config.num_latent_channels else "kv",
        "num_blocks": encoder.num_self_attention_blocks,
        "num_self_attends_per_block": encoder.num_self_attention_layers_per_block,
        "num_self_attention_heads": encoder.num_self_attention_heads,
        "num_cross_attention_heads": encoder.num_cross_attention_heads,
        "self_attention_widening_factor": encoder.self_attention_widening_factor,
        "cross_attention_widening_factor": encoder.cross_attention_widening_factor,
        "use_query_residual": encoder.cross_attention_residual,
        "attention_probs_dropout_prob": encoder.dropout,
        "initializer_range": encoder.init_scale,
    }


def encoder_values(config: transformers.PerceiverConfig, num_input_channels: int) -> dict[str, Any]:
    """Return the values of the ``EncoderConfig`` from Hugging Face's configuration.

    Args:
        config: Hugging Face's configuration.
        num_input_channels: input channels of the encoder.

    Raises:
        ValueError: if the activation of ``config`` is not the exact GELU.
    """
    if config.hidden_act != "gelu":
        raise ValueError(f"hidden_act={config.hidden_act!r}: only 'gelu' is supported")
    # transformers replaces None by these defaults when it builds the model.
    default_qk_channels = {"kv": num_input_channels, "q": config.d_latents}[config.cross_attention_shape_for_attention]
    cross_qk_channels = config.qk_channels or default_qk_channels
    self_qk_channels = config.qk_channels or config.d_latents
    return {
        "num_cross_attention_heads": config.num_cross_attention_heads,
        "num_cross_attention_qk_channels": cross_qk_channels,
        "num_cross_attention_v_channels": config.v_channels or cross_qk_channels,
        "cross_attention_widening_factor": config.cross_attention_widening_factor,
        "cross_attention_residual": config.use_query_residual,
        "num_self_attention_heads": config.num_self_attention_heads,
        "num_self_attention_qk_channels": self_qk_channels,
        "num_self_attention_v_channels": config.v_channels or self_qk_channels,
        "num_self_attention_layers_per_block": config.num_self_attends_per_block,
        "num_self_attention_blocks": config.num_blocks,
        "self_attention_widening_factor": config.self_attention_widening_factor,
        "dropout": config.attention_probs_dropout_prob,
        "init_scale": config.initializer_range,
    }


def encoder_pairs(num_layers: int) -> Pairs:
    """Return the pairs of the encoder.

    Args:
        num_layers: number of self-attention layers in a block.
    """
    yield "encoder.latents", "perceiver.embeddings.latents"
    yield from layer_pairs("encoder.cross_attention_layers.0", "perceiver.encoder.cross_attention", cross=True)
    for i in range(num_layers):
        yield from layer_pairs(
            f"encoder.self_attention_blocks.0.{i}", f"perceiver.encoder.self_attends.{i}", cross=False
        )


def layer_pairs(name: str, hf_name: str, cross: bool) -> Pairs:
    """Return the pairs of an attention layer.

    Args:
        name: name of the layer in this project.
        hf_name: name of the layer in transformers.
        cross: the layer is a cross-attention.
    """
    norms = {"q_norm": "layernorm1", "kv_norm": "layernorm2"} if cross else {"norm": "layernorm1"}
    modules = {
        **{norm: f"attention.self.{hf_norm}" for norm, hf_norm in norms.items()},
        "attention.q_proj": "attention.self.query",
        "attention.k_proj": "attention.self.key",
        "attention.v_proj": "attention.self.value",
        "attention.o_proj": "attention.output.dense",
        "mlp_norm": "layernorm",
        "mlp.hidden": "mlp.dense1",
        "mlp.output": "mlp.dense2",
    }
    for module, hf_module in modules.items():
        yield from module_pairs(f"{name}.{module}", f"{hf_name}.{hf_module}")


def load_config(source: str) -> transformers.PerceiverConfig:
    """Load Hugging Face's configuration of a published model.

    Args:
        source: a hub id, or a folder in the hub's layout.

    Raises:
        UserError: if ``source`` is not a Perceiver, or if the hub cannot be reached.
    """
    try:
        with hub():
            config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _not_loadable(source, "Perceiver", error) from error
    if not isinstance(config, transformers.PerceiverConfig):
        raise UserError(f"{source}: not a Perceiver (model_type is {config.model_type!r})")
    return config


def load_state(model_type: Any, source: str, kind: str) -> dict[str, Tensor]:
    """Load the state dict of a published model, with Hugging Face's names.

    Args:
        model_type: Hugging Face's class of the model.
        source: a hub id, or a folder in the hub's layout.
        kind: kind of model, for messages: "Perceiver language model".

    Raises:
        UserError: if ``source`` is not such a model, or if the hub cannot be reached.
    """
    try:
        with hub(), quiet(source):
            model, report = model_type.from_pretrained(source, output_loading_info=True)
    except Exception as error:  # files of other kinds can raise any error
        surface_own_fault(error)
        raise _not_loadable(source, kind, error) from error
    if report["missing_keys"]:
        raise UserError(f"{source}: not a {kind}: its weights lack {min(report['missing_keys'])!r}")
    return model.state_dict()


def load_shapes(source: str) -> dict[str, tuple[int, ...]]:
    """Load the shapes of a published model's weights by Hugging Face's names.

    Raises:
        UserError: if its safetensors files are missing or damaged, or if the hub cannot be reached.
    """
    try:
        with hub(), quiet(source):
            return read_stored_shapes(source)
    except UserError:
        raise
    except Exception as error:  # damaged files and the hub can raise any error
        surface_own_fault(error)
        raise _not_loadable(source, "Perceiver", error) from error


@contextlib.contextmanager
def quiet(source: str) -> Iterator[None]:
    """Context manager that suppresses messages and progress bars of transformers, except those of downloads."""
    messages = transformers.utils.logging
    level, has_progress_bar = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    if Path(source).exists():
        messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if has_progress_bar:
            messages.enable_progress_bar()


def _not_loadable(source: str, kind: str, error: Exception) -> UserError:
    return UserError(
        f"{source}: cannot load a {kind} (expected a hub id, a folder in the hub's layout, a checkpoint or a "
        f"safetensors file): {one_line(error)}"
    )
