"""Exact conversion between Hugging Face's Perceivers and the models here, both ways.

The modules of this package describe each of Hugging Face's classes as a :class:`Conversion`. What these share, the
generic encoder and the decoder of the classifiers, is here as well.
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

from perceiver_plugins.sdk.errors import one_line
from perceiver_plugins.sdk.hub import hub
from perceiver_plugins.sdk.state_dicts import Pairs, module_pairs
from perceiver_registry import ModelDescription, UserError, assemble
from perceiver_registry.errors import surface_own_fault

if TYPE_CHECKING:
    from perceiver_core import Batch, DecoderConfig, EncoderConfig, PerceiverConfig, PerceiverIO

FREE = ("params", "freeze", "init", "activation_checkpointing", "activation_offloading", "compile")
"""Fields of every configuration that say how a model is trained, not what it computes."""

OF_REPEATED = {
    "first_cross_attention_layer_shared": "num_cross_attention_layers",
    "first_self_attention_block_shared": "num_self_attention_blocks",
}
"""Fields that mean something only where another one is more than 1."""


@dataclass(frozen=True)
class Conversion:
    """Exact conversion between one of Hugging Face's classes and a model here, both ways.

    Args:
        architecture: name of Hugging Face's class, which its configurations give as ``architectures``.
        kind: what a person calls such a model: "Perceiver language model".
        encoder: the class of its encoder's configuration here.
        decoder: that of its decoder's.
        convert_config: the configuration here of the model that Hugging Face's class builds of one of its own.
        settings: Hugging Face's settings of a configuration here, besides those of :func:`encoder_settings`.
        pairs: pairs of the names of all parameters and statistics of a model with that configuration.
        task: name of the task here that such a model does.
        their_outputs: what Hugging Face's model computes for a batch of the model here, in the structure that
            ``our_outputs`` returns.
        our_outputs: what the model here computes for it.
        data: what prediction must know of the data (a data module's ``description()``), from Hugging Face's
            configuration and the place (folder or hub id) of the files beside it.
        processor: Hugging Face's tokenizer or image processor, from a configuration and such a description; None where
            there is none.
        free: fields of the two that say how a model is trained, not what it computes.
    """

    architecture: str
    kind: str
    encoder: type[EncoderConfig]
    decoder: type[DecoderConfig]
    convert_config: Callable[[transformers.PerceiverConfig], PerceiverConfig[Any, Any]]
    settings: Callable[[PerceiverConfig[Any, Any]], Mapping[str, Any]]
    pairs: Callable[[PerceiverConfig[Any, Any]], Pairs]
    task: str
    their_outputs: Callable[[Any, Batch], Any]
    our_outputs: Callable[[PerceiverIO, Batch], Any] = lambda model, batch: model(batch)
    data: Callable[[transformers.PerceiverConfig, str], Mapping[str, Any]] = lambda config, source: {}
    processor: Callable[[PerceiverConfig[Any, Any], Mapping[str, Any]], Any] = lambda config, data: None
    free: tuple[str, ...] = ()

    @property
    def model_type(self) -> Any:
        """Hugging Face's class."""
        return getattr(transformers, self.architecture)

    def ours(self, config: transformers.PerceiverConfig) -> PerceiverConfig[Any, Any]:
        """The configuration of the model here, which takes no weights from anywhere.

        Raises:
            UserError: if it cannot be converted.
        """
        try:
            return self.convert_config(config).without_params()
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{config.name_or_path or self.architecture}: its configuration cannot be converted: {one_line(error)}"
            ) from error

    def description(self, config: transformers.PerceiverConfig, source: str) -> ModelDescription:
        """The description, as of a checkpoint, of the model with Hugging Face's ``config`` at ``source``.

        Raises:
            UserError: if the configuration cannot be converted, or if the task is not installed.
        """
        return ModelDescription.create(self.task, self.ours(config), data=self.data(config, source))

    def from_state(self, config: PerceiverConfig[Any, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Turns the state dict of Hugging Face's model into one of the model here that has ``config``."""
        return {ours: state[theirs] for ours, theirs in self.pairs(config)}

    def from_hugging_face(self, model: Any) -> PerceiverIO:
        """The model here that computes what ``model`` does, with copies of its weights.

        Raises:
            ValueError: if ``model`` has an activation other than the exact GELU.
        """
        config = self.convert_config(model.config)
        ours = assemble(config)
        ours.load_state_dict(self.from_state(config, model.state_dict()))
        return ours.train(model.training)

    def to_hugging_face(self, model: PerceiverIO) -> Any:
        """The model of Hugging Face's class that computes what ``model`` does, with copies of its weights.

        Raises:
            ValueError: if Hugging Face's class cannot be what ``model`` is; the message says in what they differ.
        """
        self.check(model)
        theirs = self.model_type(self.hugging_face_config(model.config))
        state = model.state_dict()
        theirs.load_state_dict({hf_name: state[name] for name, hf_name in self.pairs(model.config)})
        return theirs.train(model.training)

    def check(self, model: PerceiverIO) -> None:
        """Checks that Hugging Face's class can be what ``model`` is.

        Raises:
            ValueError: if it cannot; the message says in what they differ.
        """
        with torch.device("meta"):
            theirs = self.model_type(self.hugging_face_config(model.config)).state_dict()
        state = model.state_dict()
        for name, hf_name in self.pairs(model.config):
            # Such as value channels that its self-attention does not have.
            if state[name].shape != theirs[hf_name].shape:
                raise ValueError(
                    f"{self.architecture} cannot be what this model is: {name} has shape {tuple(state[name].shape)}, "
                    f"there it has {tuple(theirs[hf_name].shape)}"
                )

    def hugging_face_config(self, config: PerceiverConfig[Any, Any]) -> transformers.PerceiverConfig:
        """Hugging Face's configuration of the model that has ``config`` here.

        Raises:
            ValueError: if Hugging Face's class cannot be what ``config`` says; the message says which fields differ.
        """
        for part, expected in (("encoder", self.encoder), ("decoder", self.decoder)):
            actual = type(getattr(config, part))
            if actual is not expected:
                raise ValueError(
                    f"{self.architecture} cannot be what this model is: its {part} is of {actual.__name__}, "
                    f"there it is of {expected.__name__}"
                )
        settings = encoder_settings(config) | dict(self.settings(config))
        theirs = transformers.PerceiverConfig(**settings, architectures=[self.architecture])
        # What does not come back is what Hugging Face's class has no setting for.
        back = self.convert_config(theirs)
        lost = [
            f"{name} is {ours!r}, there it is {other!r}" for name, ours, other in _differences(config, back, self.free)
        ]
        if lost:
            raise ValueError(f"{self.architecture} cannot be what this model is: {'; '.join(lost)}")
        return theirs


def _differences(ours: Any, theirs: Any, free: Sequence[str], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Name and both values of each field that says what a model computes and differs between two configurations."""
    for field in fields(ours):
        one, other = getattr(ours, field.name), getattr(theirs, field.name)
        # Where channels are left open, the shapes of the weights will tell.
        left_open = field.name.endswith(("_qk_channels", "_v_channels")) and None in (one, other)
        repeats = OF_REPEATED.get(field.name)
        means_nothing = field.name in (*FREE, *free) or (repeats is not None and getattr(ours, repeats) == 1)
        if is_dataclass(one):
            yield from _differences(one, other, free, f"{prefix}{field.name}.")
        elif one != other and not (left_open or means_nothing):
            yield f"{prefix}{field.name}", one, other


def encoder_settings(config: PerceiverConfig[Any, Any]) -> dict[str, Any]:
    """Hugging Face's settings of the generic encoder, from the configuration of a model here."""
    encoder: EncoderConfig = config.encoder
    cross_qk_channels = encoder.num_cross_attention_qk_channels or config.num_latent_channels
    cross_v_channels = encoder.num_cross_attention_v_channels or cross_qk_channels
    self_qk_channels = encoder.num_self_attention_qk_channels or config.num_latent_channels
    self_v_channels = encoder.num_self_attention_v_channels or self_qk_channels
    # One setting is that of both attentions; where they differ, None leaves each its own default.
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


def classification_settings(decoder: Any) -> dict[str, Any]:
    """Hugging Face's settings of a classifier, from its ``ClassificationDecoderConfig``."""
    if decoder.label_names is None:
        return {"num_labels": decoder.num_classes}
    names = dict(enumerate(decoder.label_names))
    return {"id2label": names, "label2id": {name: number for number, name in names.items()}}


def encoder_values(config: transformers.PerceiverConfig, num_input_channels: int) -> dict[str, Any]:
    """The values of the ``EncoderConfig`` that Hugging Face's encoder has.

    Args:
        config: Hugging Face's configuration.
        num_input_channels: channels of the array that the encoder looks at.

    Raises:
        ValueError: if ``config`` asks for an activation other than the exact GELU.
    """
    if config.hidden_act != "gelu":
        raise ValueError(f"hidden_act={config.hidden_act!r}: only 'gelu' is supported")
    # transformers fills in what is None only when it builds the model, so the same is done here.
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


def classification_decoder_values(config: transformers.PerceiverConfig) -> dict[str, Any]:
    """The values of the ``ClassificationDecoderConfig`` that Hugging Face's classifiers fix in their code.

    Its ``label_names`` are None where ``config`` has none but those that transformers makes up.
    """
    names = [name for _, name in sorted((config.id2label or {}).items())]
    return {
        "num_classes": len(names),
        "num_output_queries": 1,
        "num_output_query_channels": config.d_latents,
        "label_names": None if names == [f"LABEL_{i}" for i in range(len(names))] else names,
        "num_cross_attention_heads": 1,
        "num_cross_attention_qk_channels": config.d_latents,
        "num_cross_attention_v_channels": config.d_latents,
        "cross_attention_widening_factor": 1,
        "cross_attention_residual": True,
        "dropout": config.attention_probs_dropout_prob,
        "init_scale": config.initializer_range,
    }


def encoder_pairs(num_layers: int) -> Pairs:
    """Pairs of the encoder.

    Args:
        num_layers: number of self-attention layers in a block.
    """
    yield "encoder.latents", "perceiver.embeddings.latents"
    yield from layer_pairs("encoder.cross_attention_layers.0", "perceiver.encoder.cross_attention", cross=True)
    for i in range(num_layers):
        yield from layer_pairs(
            f"encoder.self_attention_blocks.0.{i}", f"perceiver.encoder.self_attends.{i}", cross=False
        )


def classification_decoder_pairs() -> Pairs:
    """Pairs of the decoder of a classifier."""
    theirs = "perceiver.decoder.decoder"
    yield "output_adapter.query_provider.queries", f"{theirs}.output_position_encodings.position_embeddings"
    yield from layer_pairs("decoder.cross_attention_layer", f"{theirs}.decoding_cross_attention", cross=True)
    yield from module_pairs("output_adapter.linear", f"{theirs}.final_layer")


def layer_pairs(ours: str, theirs: str, cross: bool) -> Pairs:
    """Pairs of an attention layer.

    Args:
        ours: name of the layer here.
        theirs: its name in Hugging Face's model.
        cross: whether it is a cross-attention.
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
        yield from module_pairs(f"{ours}.{module}", f"{theirs}.{hf_module}")


def load_config(source: str) -> transformers.PerceiverConfig:
    """Hugging Face's configuration of the published model at ``source`` (a hub id, or a folder in the hub's layout).

    Args:
        source: the hub id or folder.

    Raises:
        UserError: if there is no Perceiver at ``source``, or the hub cannot be reached.
    """
    try:
        with hub():
            config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _not_loadable(source, "Perceiver", error) from error
    if not isinstance(config, transformers.PerceiverConfig):
        raise UserError(f"{source}: a model of type {config.model_type!r}, not a Perceiver")
    return config


def load_state(model_type: Any, source: str, what: str) -> dict[str, Tensor]:
    """The weights of the published model at ``source``, under Hugging Face's names.

    Args:
        model_type: Hugging Face's class of the model.
        source: a hub id, or a folder in the hub's layout.
        what: what kind of model is expected there, for messages: "Perceiver language model".

    Raises:
        UserError: if there is no such model at ``source``, or the hub cannot be reached.
    """
    try:
        with hub(), quiet(source):
            model, report = model_type.from_pretrained(source, output_loading_info=True)
    except Exception as error:  # a file that is something else fails in any way
        surface_own_fault(error)
        raise _not_loadable(source, what, error) from error
    if report["missing_keys"]:
        raise UserError(f"{source}: not a {what}: its weights lack {min(report['missing_keys'])!r}")
    return model.state_dict()


@contextlib.contextmanager
def quiet(source: str) -> Iterator[None]:
    """Without what transformers says and shows while it loads or saves a folder; downloads are shown."""
    messages = transformers.utils.logging
    level, shown = messages.get_verbosity(), messages.is_progress_bar_enabled()
    messages.set_verbosity_error()
    if Path(source).exists():
        messages.disable_progress_bar()
    try:
        yield
    finally:
        messages.set_verbosity(level)
        if shown:
            messages.enable_progress_bar()


def _not_loadable(source: str, what: str, error: Exception) -> UserError:
    return UserError(
        f"{source}: no {what} can be loaded from there (a hub id, a folder in the hub's "
        f"layout, a checkpoint or a safetensors file is expected): {one_line(error)}"
    )
