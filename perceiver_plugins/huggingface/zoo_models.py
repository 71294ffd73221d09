"""Models of the zoo as models of ``transformers``, with its forward signatures and outputs.

Each wraps the model of its configuration, a :class:`~perceiver_core.PerceiverIO` or
:class:`~perceiver_core.PerceiverAR`, in the attribute ``perceiver``.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import HfApi
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from perceiver_core import DecoderConfig, Model, ModelConfig, PerceiverIO
from perceiver_plugins.classification.config import (
    ClassificationDecoderConfig,
    RegressionDecoderConfig,
    TokenClassificationDecoderConfig,
)
from perceiver_plugins.huggingface.hidden_states import collect_hidden_states, collect_latents
from perceiver_plugins.huggingface.losses import label_loss, next_token_loss, problem_loss
from perceiver_plugins.huggingface.model_card import Run, model_card
from perceiver_plugins.huggingface.stored_weights import read_stored_weights
from perceiver_plugins.huggingface.zoo_cache import CACHE, ZooCache
from perceiver_plugins.huggingface.zoo_config import ZooConfig, is_causal, require_supported
from perceiver_plugins.huggingface.zoo_outputs import (
    ZooImageClassifierOutput,
    ZooMaskedLMOutput,
    ZooOutput,
    ZooSequenceClassifierOutput,
    ZooTokenClassifierOutput,
)
from perceiver_plugins.text.config import TextDecoderConfig
from perceiver_registry import UserError, assemble, registry


class ZooModel(PreTrainedModel):
    """Model of any task, with the inputs of its input adapter and the output of its output adapter.

    Args:
        config: describes the model.

    Attributes:
        perceiver: the wrapped model.
        processor: tokenizer or image processor, if known. It is saved with the model.
        run: training run, if known. Its model card is saved with the model.

    Raises:
        UserError: if the configuration must be loaded with another class.
        PluginError: if it needs an adapter or task that is not installed; the message names what to install.
    """

    config_class = ZooConfig
    base_model_prefix = "perceiver"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    pipeline_tag: ClassVar[str | None] = None
    """Task of the model on the hub."""

    perceiver: Any

    def __init__(self, config: ZooConfig):
        super().__init__(config)
        source = config.name_or_path or "config.json"
        model_config = require_supported(config.migrate().build_config(source), source)
        if not self.fits(model_config):
            raise UserError(
                f"{source}: a model for {config.task} must be loaded as "
                f"{model_class(model_config).__name__}, not {type(self).__name__}"
            )
        self.processor: Any = None
        self.run: Run | None = None
        self.main_input_name = next(iter(_input_keys(model_config)), self.main_input_name)
        dtype = torch.get_default_dtype()
        with _default_device_and_dtype():
            self.perceiver = assemble(model_config).to(dtype)
            # Specs do not list optional entries, or those of composites; example batches have them.
            self._batch_keys = tuple(dict.fromkeys((*_input_keys(model_config), *_example_keys(self.perceiver))))
        self._constants = _non_persistent_buffers(self.perceiver)
        self._tied_weights_keys = _tied_weights(self)
        self.post_init()

    @classmethod
    def fits(cls, config: ModelConfig[Any, Any]) -> bool:
        """Return whether this class supports models with a configuration."""
        return True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model as ``transformers`` does, but raise an error for weights that are missing or have other shapes.

        With ``ignore_mismatched_sizes``, weights with other shapes are reinitialised, such as those of the output layer
        for another ``num_labels``.

        Raises:
            UserError: if weights are missing or have other shapes.
            PluginError: if the model needs an adapter that is not installed; the message names what to install.
        """
        with_info = kwargs.pop("output_loading_info", False)
        migrated = _migrated(pretrained_model_name_or_path, kwargs)
        source = pretrained_model_name_or_path if migrated is None else None
        loaded: Any = super().from_pretrained(source, *args, output_loading_info=True, **(migrated or kwargs))
        model, info = loaded
        if migrated is not None:
            model.name_or_path = model.config.name_or_path = str(pretrained_model_name_or_path)
        mismatched = {key for key, *_ in info["mismatched_keys"]}
        reinitialised = mismatched if kwargs.get("ignore_mismatched_sizes") else set()
        if unusable := sorted({*info["missing_keys"], *mismatched} - reinitialised):
            hint = "; ignore_mismatched_sizes=True makes new ones" if mismatched.issuperset(unusable) else ""
            raise UserError(
                f"{pretrained_model_name_or_path}: the weights do not fit config.json: {unusable[0]!r} is missing or "
                f"has another shape (affected weights: {len(unusable)}){hint}"
            )
        if reinitialised:
            model._reinitialise(reinitialised)
        return (model, info) if with_info else model

    @torch.no_grad()
    def _reinitialise(self, names: Iterable[str]) -> None:
        """Reinitialise weights as in a new model, which versions of transformers do differently."""
        config: Any = self.config
        initial, state = type(self)(config).state_dict(), self.state_dict()
        for name in names:
            state[name].copy_(initial[name])

    def _init_weights(self, module: nn.Module) -> None:
        # Weights are initialised by assemble(). transformers 5 resets buffers that are not saved.
        for name, value in self._constants.get(module, {}).items():
            module.get_buffer(name).copy_(value)

    def forward(
        self,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **batch: Any,
    ) -> Any:
        """Run the model.

        Args:
            output_attentions: also return the attention weights.
            output_hidden_states: also return the latents between the encoder's layers.
            return_dict: return a :class:`~perceiver_plugins.huggingface.zoo_outputs.ZooOutput` (true) or a tuple.
            batch: entries of the batch that the input adapter reads.

        Raises:
            TypeError: if ``batch`` has entries that the input adapter does not read.
        """
        self._check_keys(batch)
        with collect_latents(self.perceiver) as latents:
            output, details = self._run(batch, output_attentions, output_hidden_states)
        return self._returned(ZooOutput(last_hidden_state=latents[-1], output=output, **details), return_dict)

    def serve(self, **batch: Any) -> Mapping[str, Tensor]:
        """Compute the named output tensors, as exported models do: "logits", "flow", ...

        Args:
            batch: entries of the batch that the input adapter reads.

        Raises:
            TypeError: if ``batch`` has entries that the input adapter does not read.
        """
        self._check_keys(batch)
        return self.perceiver.output_adapter.serve(self.perceiver, batch)

    def _check_keys(self, batch: Mapping[str, Any]) -> None:
        # Nested batches are checked by the composite adapter, which raises an error for missing entries.
        names = {name for name, value in batch.items() if not isinstance(value, Mapping)}
        if self._batch_keys and (unknown := sorted(names - {*self._batch_keys})):
            raise TypeError(
                f"{type(self).__name__}.forward() got an unexpected keyword argument {unknown[0]!r} "
                f"(the model reads {', '.join(self._batch_keys)})"
            )

    def _run(
        self,
        batch: Mapping[str, Any],
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        positions: Tensor | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        if not (self.config.output_hidden_states if output_hidden_states is None else output_hidden_states):
            return self._run_with_attentions(batch, output_attentions, positions)
        with collect_hidden_states(self.perceiver.encoder) as states:
            output, attentions = self._run_with_attentions(batch, output_attentions, positions)
        return output, {"hidden_states": tuple(states), **attentions}

    def _run_with_attentions(
        self, batch: Mapping[str, Any], output_attentions: bool | None, positions: Tensor | None
    ) -> tuple[Any, dict[str, Any]]:
        model = self.perceiver
        if not (self.config.output_attentions if output_attentions is None else output_attentions):
            return model(batch) if positions is None else model(batch, positions), {}
        if not isinstance(model, PerceiverIO):
            raise ValueError("output_attentions: not available for causal models (leave it out)")
        output, weights = model(batch, positions, return_attention=True)
        return output, {
            "attentions": tuple(weights.encoder_self),
            "cross_attentions": (*weights.encoder_cross, weights.decoder),
        }

    def _returned(self, output: Any, return_dict: bool | None) -> Any:
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding.

        Raises:
            NotImplementedError: if the model has no token embedding.
        """
        embedding = getattr(self.perceiver.input_adapter, "token_embedding", None)
        if embedding is None:
            raise NotImplementedError(f"{type(self.perceiver.input_adapter).__name__} has no token embedding")
        return embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        raise NotImplementedError("the token embedding cannot be replaced: its size is fixed in config.json")

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the token embedding if it has the given number of tokens.

        Raises:
            NotImplementedError: if it has another number; the vocabulary cannot be resized.
        """
        embedding: Any = self.get_input_embeddings()
        number = new_num_tokens or embedding.num_embeddings
        if pad_to_multiple_of:
            number = -(-number // pad_to_multiple_of) * pad_to_multiple_of
        if number != embedding.num_embeddings:
            raise NotImplementedError(
                f"resize_token_embeddings({number}): the vocabulary of {embedding.num_embeddings} tokens is fixed "
                "(train a model with the other tokenizer)"
            )
        return embedding

    @property
    def is_activation_checkpointing(self) -> bool:
        """Activations are recomputed in the backward pass."""
        return self.perceiver.encoder.activations.checkpointing

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Name of :attr:`is_activation_checkpointing` in older versions of transformers."""
        return self.is_activation_checkpointing

    def gradient_checkpointing_enable(  # type: ignore[override]
        self, gradient_checkpointing_kwargs: Any = None, every_n_layers: int = 1, offload: bool = False
    ) -> None:
        """Recompute activations in the backward pass.

        Newer versions of transformers call this from ``activation_checkpointing_enable``.

        Args:
            gradient_checkpointing_kwargs: arguments of ``torch.utils.checkpoint``, which are ignored.
            every_n_layers: must be 1, for all layers.
            offload: keep the layers' inputs in CPU memory.

        Raises:
            ValueError: if ``every_n_layers`` is not 1.
        """
        if every_n_layers != 1:
            raise ValueError(f"every_n_layers={every_n_layers}: must be 1 (all layers are recomputed)")
        self._recompute(True, offload)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations for the backward pass, in CPU memory if ``activation_offloading`` is set."""
        self._recompute(False, False)

    def _recompute(self, checkpointing: bool, offload: bool) -> None:
        offloading = offload or self.perceiver.config.activation_offloading
        for part in (each for each in self.perceiver.children() if hasattr(each, "activations")):
            part.activations = replace(part.activations, checkpointing=checkpointing, offloading=offloading)

    def save_pretrained(
        self, save_directory: Any, *args: Any, push_to_hub: bool = False, repo_id: str | None = None, **kwargs: Any
    ) -> None:
        """Save the model with its processor and model card.

        Args:
            save_directory: the folder.
            args: as for ``transformers.PreTrainedModel``.
            push_to_hub: also upload the folder.
            repo_id: id of the model on the hub. None: the folder's name.
            kwargs: as for ``transformers.PreTrainedModel``, and with ``push_to_hub`` for ``huggingface_hub``.
        """
        options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
        super().save_pretrained(save_directory, *args, **kwargs)
        repo_id = repo_id or Path(save_directory).resolve().name
        if self.processor is not None:
            self.processor.save_pretrained(save_directory)
        if self.run is not None:
            model_card(self, self.run, repo_id).save(Path(save_directory) / "README.md")
        if push_to_hub:
            _upload(save_directory, repo_id, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:  # type: ignore[override]
        """Upload the model with its processor and model card.

        Args:
            repo_id: ``name`` or ``owner/name``; the repository is created if it does not exist.
            options: ``token``, ``private``, ``revision``, ``commit_message``, ``commit_description`` and
                ``create_pr``, as for ``huggingface_hub``; any others as for :meth:`save_pretrained`.

        Returns:
            The commit's information from ``huggingface_hub``.
        """
        hub_options = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id=repo_id, **options)
            return _upload(folder, repo_id, **hub_options)


class _LabelledModel(ZooModel):
    """Base class of models that are trained on labels.

    Attributes:
        reads: arguments of ``forward``, of which the first is required.
        decoder_type: type of the decoder's configuration, or several.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    decoder_type: ClassVar[type[DecoderConfig] | tuple[type[DecoderConfig], ...]]
    output_type: ClassVar[type[Any]]

    @classmethod
    def fits(cls, config: ModelConfig[Any, Any]) -> bool:
        reads = _input_keys(config)
        return isinstance(config.decoder, cls.decoder_type) and cls.reads[0] in reads and {*reads} <= {*cls.reads}

    def _forward(
        self,
        batch: Mapping[str, Any],
        labels: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        return_dict: bool | None,
        positions: Tensor | None = None,
    ) -> Any:
        logits, details = self._run(batch, output_attentions, output_hidden_states, positions)
        if logits.dtype == torch.float64:  # of regressors
            logits = logits.to(self.dtype)
        loss = None if labels is None else self._loss(logits, labels)
        return self._returned(self.output_type(loss=loss, logits=logits, **details), return_dict)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return label_loss(logits, labels)


class _TextModel(_LabelledModel):
    """Base class of models that read tokens."""

    main_input_name = "input_ids"
    reads = ("input_ids", "attention_mask")

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Run the model on tokens.

        Args:
            input_ids: (b, n).
            attention_mask: (b, n), 1 at tokens and 0 at padding. None: no padding.
            labels: class indices; -100 is ignored. Those of a sequence classifier depend on ``config.problem_type``
                (:func:`perceiver_plugins.huggingface.losses.problem_loss`).
            output_attentions: also return the attention weights.
            output_hidden_states: also return the latents between the encoder's layers.
            return_dict: return an output (true) or a tuple.

        Returns:
            ``loss``, and ``logits``: (b, n, vocabulary) of a masked language model, (b, classes) of a sequence
            classifier, (b, n, classes) of a token classifier. The loss is the mean cross-entropy of the labels, except
            for a sequence classifier with another ``config.problem_type``.
        """
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        positions = self._positions(input_ids)
        return self._forward(batch, labels, output_attentions, output_hidden_states, return_dict, positions)

    def _positions(self, input_ids: Tensor) -> Tensor | None:
        return None


class ZooForMaskedLM(_TextModel):
    """Masked language model."""

    pipeline_tag = "fill-mask"
    decoder_type = TextDecoderConfig
    output_type = ZooMaskedLMOutput

    def _positions(self, input_ids: Tensor) -> Tensor:
        return torch.arange(input_ids.shape[1], device=input_ids.device)[None]


class ZooForSequenceClassification(_TextModel):
    """Text classifier, or regressor with ``config.problem_type`` "regression"."""

    pipeline_tag = "text-classification"
    decoder_type = (ClassificationDecoderConfig, RegressionDecoderConfig)
    output_type = ZooSequenceClassifierOutput

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return problem_loss(logits, labels, self.config.problem_type)


class ZooForTokenClassification(_TextModel):
    """Token classifier."""

    pipeline_tag = "token-classification"
    decoder_type = TokenClassificationDecoderConfig
    output_type = ZooTokenClassifierOutput


class ZooForImageClassification(_LabelledModel):
    """Image classifier, or regressor with ``config.problem_type`` "regression"."""

    pipeline_tag = "image-classification"
    main_input_name = "pixel_values"
    reads = ("pixel_values",)
    decoder_type = (ClassificationDecoderConfig, RegressionDecoderConfig)
    output_type = ZooImageClassifierOutput

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Run the model on images.

        Args:
            pixel_values: (b, channels, height, width).
            labels: (b), class indices, or those of ``config.problem_type``
                (:func:`perceiver_plugins.huggingface.losses.problem_loss`).
            output_attentions: also return the attention weights.
            output_hidden_states: also return the latents between the encoder's layers.
            return_dict: return an output (true) or a tuple.

        Returns:
            ``loss``, the mean cross-entropy of the labels or the loss of ``config.problem_type``, and ``logits``
            (b, classes).
        """
        batch = {"pixel_values": pixel_values}
        return self._forward(batch, labels, output_attentions, output_hidden_states, return_dict)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return problem_loss(logits, labels, self.config.problem_type)


class ZooForCausalLM(ZooModel, GenerationMixin):
    """Causal language model."""

    pipeline_tag = "text-generation"
    main_input_name = "input_ids"
    _supports_cache_class = True  # of transformers 4

    @classmethod
    def fits(cls, config: Any) -> bool:
        return is_causal(config)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        cache: ZooCache | None = None,
        past_key_values: ZooCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **unused: Any,
    ) -> Any:
        """Predict the token after each token.

        In evaluation mode, each prediction is that of generation, which depends on the tokens so far alone: sequences
        may be longer than the model's window, and there is no gradient. In training mode, without a cache, sequences
        have at most ``max_seq_len`` tokens, and the logits are those for the last ``num_latents``.

        Args:
            input_ids: (b, m); with a cache, the tokens after those that it has.
            attention_mask: 1 at tokens and 0 at padding, which is on the left: (b, m), or longer, with the mask of the
                cache's tokens before it. None: no padding.
            labels: (b, m), the tokens themselves, as for other causal models of transformers; -100 is ignored.
            cache: cache of an earlier output.
            past_key_values: the same, in older versions of transformers.
            use_cache: return a cache with these tokens.
            logits_to_keep: number of logits to compute, those for the last tokens. 0, or with labels: all.
            output_attentions: must be false.
            output_hidden_states: must be false.
            return_dict: return an output (true) or a tuple.
            unused: other arguments of ``transformers``: those without an effect (:data:`UNUSED_ARGUMENTS`), or None.

        Returns:
            ``loss``, the mean cross-entropy of the labels that are predicted, or None, ``logits`` (b, tokens,
            vocabulary), and the cache, or None.

        Raises:
            ValueError: if attention weights or hidden states are requested, or padding is not on the left.
            TypeError: if an argument is unknown.
        """
        self._check_arguments(unused, output_attentions, output_hidden_states)
        cache = past_key_values if cache is None else cache
        if cache is None and use_cache and not self.training:
            cache = ZooCache(self.perceiver.create_cache())
        batch = _token_batch(input_ids, attention_mask)
        num_outputs = input_ids.shape[1] if labels is not None else logits_to_keep or input_ids.shape[1]
        if cache is not None:
            logits = self.perceiver.extend(batch, cache.sequence, num_outputs)
        elif self.training:
            logits = self.perceiver(batch)
        else:
            logits = self.perceiver.score(batch, num_outputs)
        loss = None if labels is None else next_token_loss(logits, labels)
        values: dict[str, Any] = {"loss": loss, "logits": logits, CACHE: cache}
        return self._returned(CausalLMOutputWithPast(**values), return_dict)

    def _check_arguments(self, others: dict[str, Any], attentions: bool | None, hidden_states: bool | None) -> None:
        unknown = sorted(name for name, value in others.items() if value is not None and name not in UNUSED_ARGUMENTS)
        if unknown:
            raise TypeError(f"{type(self).__name__}.forward() got an unexpected keyword argument {unknown[0]!r}")
        for name, value in (("output_attentions", attentions), ("output_hidden_states", hidden_states)):
            if getattr(self.config, name) if value is None else value:
                raise ValueError(f"{name}: not available for causal models (leave it out)")

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Create the cache of the model.

        Raises:
            ValueError: if a cache of another kind is requested or given.
        """
        # "dynamic_full" is that of assistant models in versions 4.53 to 5.0 of transformers
        if generation_config.cache_implementation not in (None, "dynamic", "dynamic_full"):
            raise ValueError(
                f"cache_implementation={generation_config.cache_implementation!r}: must be None, as the model has a "
                "cache of its own"
            )
        given = model_kwargs.get(CACHE)
        if given is not None:
            if not isinstance(given, ZooCache):
                raise ValueError(f"{CACHE}: must be a ZooCache, got {type(given).__name__}")
            given._is_user_defined = True  # type: ignore[attr-defined]
        elif generation_config.use_cache:
            model_kwargs[CACHE] = ZooCache(self.perceiver.create_cache())


def _token_batch(input_ids: Tensor, attention_mask: Tensor | None) -> dict[str, Tensor]:
    """Return a batch of tokens, with a mask that ends with that of the tokens."""
    if attention_mask is None:
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    return {"input_ids": input_ids, "attention_mask": attention_mask[:, -input_ids.shape[1] :].long()}


def _migrated(source: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return arguments of ``from_pretrained`` with migrated configuration and weights, None if they are current.

    Args:
        source: folder or hub id of the model.
        options: arguments of ``from_pretrained``.
    """
    if source is None or options.get("state_dict") is not None:
        return None
    config, unused = options.get("config"), {name: value for name, value in options.items() if name != "config"}
    if not isinstance(config, ZooConfig):
        config, unused = ZooConfig.from_pretrained(config or source, return_unused_kwargs=True, **unused)
    description = config.description.prepare(source)
    if not description.migrations:
        return None
    prefix = f"{ZooModel.base_model_prefix}."
    stored = {name.removeprefix(prefix): each for name, each in read_stored_weights(str(source), **options).items()}
    weights = {f"{prefix}{name}": each for name, each in description.migrate_weights(stored, source).items()}
    config = copy.deepcopy(config)
    config.migrate()
    return {**unused, "config": config, "state_dict": weights}


MODELS: tuple[type[ZooModel], ...] = (
    ZooForMaskedLM,
    ZooForCausalLM,
    ZooForSequenceClassification,
    ZooForImageClassification,
    ZooForTokenClassification,
)

UNUSED_ARGUMENTS = ("cache_position", "position_ids", "tokenizer", "assistant_tokenizer")
"""Arguments that transformers passes to causal models, and that these do not need: positions, since their cache counts
tokens, and tokenizers, which stopping criteria use."""

HUB_OPTIONS = ("token", "private", "revision", "commit_message", "commit_description", "create_pr")
"""Arguments of :meth:`ZooModel.push_to_hub` that are passed to ``huggingface_hub``."""


def model_class(config: ModelConfig[Any, Any]) -> type[ZooModel]:
    """Return the class for models with a configuration; :class:`ZooModel` if no other fits."""
    return next((each for each in MODELS if each.fits(config)), ZooModel)


def _input_keys(config: ModelConfig[Any, Any]) -> tuple[str, ...]:
    """Return the batch keys in the spec of the input adapter; an empty tuple if the spec has no keys."""
    return registry().adapter_of("input", config.encoder).spec.reads


def _example_keys(model: Model) -> tuple[str, ...]:
    """Return the keys of the input adapter's example batch; an empty tuple if it is not implemented."""
    try:
        return tuple(model.input_adapter.example_batch(1, torch.Generator()))
    except NotImplementedError:
        return ()


@contextlib.contextmanager
def _default_device_and_dtype() -> Iterator[None]:
    """Context manager that builds models in float32 and on a real device.

    transformers builds models in the requested precision and, since version 5, on the meta device, which third-party
    adapters need not support.
    """
    dtype, on_meta = torch.get_default_dtype(), torch.get_default_device().type == "meta"
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu") if on_meta else contextlib.nullcontext():
            yield
    finally:
        torch.set_default_dtype(dtype)


def _non_persistent_buffers(model: nn.Module) -> dict[nn.Module, dict[str, Tensor]]:
    """Return the buffers of each module that are not in its state dict."""
    return {
        module: {name: value for name, value in module.named_buffers(recurse=False) if name not in module.state_dict()}
        for module in model.modules()
    }


def _tied_weights(model: nn.Module) -> dict[str, str]:
    """Return the names of tied parameters, each with the first name of the same parameter."""
    first: dict[Tensor, str] = {}
    return {
        name: first[parameter]
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if first.setdefault(parameter, name) != name
    }


def _upload(
    folder: str | Path,
    repo_id: str,
    token: str | bool | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    **options: Any,
) -> Any:
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    message = commit_message or "Upload a model of perceiver-zoo"
    return api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, **options)
