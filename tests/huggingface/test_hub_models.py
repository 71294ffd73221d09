"""Forward of the zoo's transformers models: outputs, losses, attention, gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    ImageClassifierOutput,
    MaskedLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from perceiver_core import PerceiverConfig
from perceiver_plugins.classification.config import (
    ClassificationDecoderConfig,
    RegressionDecoderConfig,
    TokenClassificationDecoderConfig,
)
from perceiver_plugins.classification.lightning import LitClassifier, LitTokenClassifier
from perceiver_plugins.composite.config import CompositeEncoderConfig
from perceiver_plugins.huggingface import (
    ZooConfig,
    ZooForImageClassification,
    ZooForMaskedLM,
    ZooForSequenceClassification,
    ZooForTokenClassification,
    ZooModel,
    model_class,
)
from perceiver_plugins.image.config import ImageLearnedEncoderConfig, ImagePatchesEncoderConfig
from perceiver_plugins.table.config import TableEncoderConfig
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_plugins.text.lightning import LitLanguageModel
from perceiver_registry import ModelDescription

SIZES = {"num_cross_attention_heads": 1, "num_self_attention_heads": 3, "num_self_attention_layers_per_block": 2}
TEXT = TextEncoderConfig(
    vocab_size=31,
    max_seq_len=13,
    num_input_channels=10,
    num_self_attention_blocks=2,
    num_cross_attention_layers=2,
    **SIZES,
)
IMAGE = ImageLearnedEncoderConfig(image_size=(5, 7), num_conv_channels=6, num_position_channels=4, **SIZES)
CLASSES = ClassificationDecoderConfig(num_classes=4, num_output_query_channels=6, num_cross_attention_heads=2)
TOKENS = TokenClassificationDecoderConfig(num_classes=3)


def config_of(encoder: Any, decoder: Any, task: str, **values: Any) -> ZooConfig:
    """Return the configuration of a small model."""
    config = PerceiverConfig(encoder, decoder, **({"num_latents": 5, "num_latent_channels": 12} | values))
    return ZooConfig.from_description(ModelDescription.create(task, config))


@pytest.fixture
def make(randomise: Callable[[nn.Module], nn.Module]) -> Callable[..., Any]:
    """Factory of a small model with random weights, in evaluation mode."""

    def make(*args: Any, **values: Any) -> Any:
        config = config_of(*args, **values)
        model = model_class(config.model_config())(config)
        return randomise(model).eval()

    return make


def test_model_class_depends_on_adapters() -> None:
    table = TableEncoderConfig(num_features=3, num_input_channels=8, **SIZES)
    text_and_table = CompositeEncoderConfig(
        inputs={"text": {"adapter": "text", "num_input_channels": 8}, "row": {"adapter": "table", "num_features": 3}},
        **SIZES,
    )
    cases = [
        (TEXT, TextDecoderConfig(vocab_size=31, max_seq_len=13), ZooForMaskedLM),
        (TEXT, CLASSES, ZooForSequenceClassification),
        (TEXT, TOKENS, ZooForTokenClassification),
        (IMAGE, CLASSES, ZooForImageClassification),
        (IMAGE, TOKENS, ZooModel),
        (IMAGE, TextDecoderConfig(num_output_query_channels=8), ZooModel),
        (table, CLASSES, ZooModel),
        (text_and_table, CLASSES, ZooModel),
        (TEXT, RegressionDecoderConfig(), ZooForSequenceClassification),
        (IMAGE, RegressionDecoderConfig(), ZooForImageClassification),
        (table, RegressionDecoderConfig(), ZooModel),
    ]
    for encoder, decoder, expected in cases:
        assert model_class(PerceiverConfig(encoder, decoder, num_latent_channels=12)) is expected


def text_batch() -> dict[str, torch.Tensor]:
    """Return token ids (3, 9) with padding."""
    lengths = torch.tensor([[9], [4], [1]])
    return {"input_ids": torch.randint(31, (3, 9)), "attention_mask": (torch.arange(9) < lengths).long()}


@pytest.mark.parametrize("tied", [True, False])
def test_masked_lm(make: Callable[..., Any], tied: bool) -> None:
    channels = None if tied else 8
    decoder = TextDecoderConfig(
        vocab_size=31, max_seq_len=13, num_output_query_channels=channels, num_cross_attention_heads=2
    )
    model, batch = make(TEXT, decoder, "mlm"), text_batch()
    labels = batch["input_ids"].masked_fill(torch.rand(3, 9) < 0.5, -100)
    output = model(**batch, labels=labels)
    assert isinstance(output, MaskedLMOutput)
    expected = model.perceiver({**batch})[:, :9]
    torch.testing.assert_close(output.logits, expected)
    module = LitLanguageModel.create(model.config.model_config()).eval()
    module.model.load_state_dict(model.perceiver.state_dict())
    torch.testing.assert_close(output.loss, module.loss_sum(batch | {"labels": labels}).mean)
    assert model(**batch).loss is None
    assert bool(model._tied_weights_keys) is tied


def test_serve_returns_outputs_of_exported_models(make: Callable[..., Any]) -> None:
    model, batch = make(TEXT, RegressionDecoderConfig(num_cross_attention_heads=1), "regression"), text_batch()
    output = model(**batch).logits
    (served,) = model.serve(**batch).items()
    assert served[0] == "predictions"
    torch.testing.assert_close(served[1].float(), output)
    with pytest.raises(TypeError, match="unexpected keyword argument 'pixels'"):
        model.serve(**batch, pixels=torch.zeros(1))


def test_sequence_classification(make: Callable[..., Any]) -> None:
    model, batch = make(TEXT, CLASSES, "text-classification"), text_batch()
    labels = torch.tensor([3, 0, -100])
    output = model(**batch, labels=labels)
    assert isinstance(output, SequenceClassifierOutput)
    torch.testing.assert_close(output.logits, model.perceiver(batch))
    module = LitClassifier.create(model.config.model_config(), task="text-classification").eval()
    module.model.load_state_dict(model.perceiver.state_dict())
    torch.testing.assert_close(output.loss, module.loss_sum(batch | {"labels": labels}).mean)


def test_sequence_classification_with_several_queries(make: Callable[..., Any]) -> None:
    model, batch = make(TEXT, replace(CLASSES, num_output_queries=2), "text-classification"), text_batch()
    labels = torch.randint(4, (3, 2))
    output = model(**batch, labels=labels)
    assert output.logits.shape == (3, 2, 4)
    chosen = output.logits.log_softmax(dim=-1).gather(-1, labels[..., None])
    torch.testing.assert_close(output.loss, -chosen.mean())


def test_token_classification(make: Callable[..., Any]) -> None:
    model, batch = make(TEXT, TOKENS, "token-classification"), text_batch()
    labels = torch.randint(3, (3, 9)).masked_fill(~batch["attention_mask"].bool(), -100)
    output = model(**batch, labels=labels)
    assert isinstance(output, TokenClassifierOutput)
    assert output.logits.shape == (3, 9, 3)
    module = LitTokenClassifier.create(model.config.model_config()).eval()
    module.model.load_state_dict(model.perceiver.state_dict())
    torch.testing.assert_close(output.loss, module.loss_sum(batch | {"labels": labels}).mean)


@pytest.mark.parametrize("mixed", [False, True])
def test_image_classification(make: Callable[..., Any], mixed: bool) -> None:
    model, batch = make(IMAGE, CLASSES, "image-classification"), {"pixel_values": torch.randn(3, 3, 5, 7)}
    labels = torch.rand(3, 4).softmax(dim=-1) if mixed else torch.tensor([1, 3, 0])
    model.config.problem_type = "single_label_classification"  # floating-point labels default to multi-label
    output = model(**batch, labels=labels)
    assert isinstance(output, ImageClassifierOutput)
    torch.testing.assert_close(output.logits, model.perceiver(batch))
    module = LitClassifier.create(model.config.model_config(), task="image-classification").eval()
    module.model.load_state_dict(model.perceiver.state_dict())
    torch.testing.assert_close(output.loss, module.loss_sum(batch | {"labels": labels}).mean)
    assert model.main_input_name == "pixel_values"
    with pytest.raises(NotImplementedError, match="has no token embedding"):
        model.get_input_embeddings()


def test_other_tasks(make: Callable[..., Any]) -> None:
    table = TableEncoderConfig(num_features=3, num_input_channels=8, num_categories=[2, 5], **SIZES)
    model = make(
        table,
        RegressionDecoderConfig(num_targets=2, num_output_query_channels=6, num_cross_attention_heads=1),
        "regression",
    )
    batch = {"inputs": torch.randn(4, 3), "category_ids": torch.tensor([[0, 1], [2, 6], [3, 2], [1, 0]])}
    torch.testing.assert_close(model(**batch).output, model.perceiver(batch))
    assert model.main_input_name == "inputs"


def test_attentions(make: Callable[..., Any]) -> None:
    model, batch = make(TEXT, CLASSES, "text-classification"), text_batch()
    plain = model(**batch)
    assert plain.attentions is None
    output = model(**batch, output_attentions=True)
    torch.testing.assert_close(output.logits, plain.logits)
    assert [tuple(each.shape[1:]) for each in output.attentions] == [(3, 5, 5)] * 4
    assert [tuple(each.shape) for each in output.cross_attentions] == [(3, 1, 5, 9)] * 2 + [(3, 2, 1, 5)]
    for weights in (*output.attentions, *output.cross_attentions):
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    assert output.cross_attentions[0][1, :, :, 4:].abs().max() == 0  # padding
    model.config.output_attentions = True
    assert model(**batch).attentions is not None


def test_return_dict_false_returns_a_tuple(make: Callable[..., Any]) -> None:
    model, batch = make(TEXT, CLASSES, "text-classification"), text_batch()
    loss, logits = model(**batch, labels=torch.tensor([0, 1, 2]), return_dict=False)
    assert (loss.shape, logits.shape) == ((), (3, 4))


def test_gradient_checkpointing_keeps_gradients(make: Callable[..., Any]) -> None:
    model, batch = make(TEXT, CLASSES, "text-classification").train(), text_batch()
    gradients = []
    for change in (lambda: None, model.gradient_checkpointing_enable, model.gradient_checkpointing_disable):
        change()
        model.zero_grad()
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(partial(_keep, kept), lambda each: each):
            loss = model(**batch, labels=torch.tensor([0, 1, 2])).loss
        loss.backward()
        gradients.append(([parameter.grad.clone() for parameter in model.parameters()], len(kept)))
    (plain, many), (recomputed, few), (again, as_many) = gradients
    torch.testing.assert_close(recomputed, plain)
    torch.testing.assert_close(again, plain)
    assert few < many == as_many
    assert not model.is_gradient_checkpointing


def test_names_of_gradient_checkpointing(make: Callable[..., Any]) -> None:
    """Newer versions of transformers call it activation checkpointing."""
    model = make(TEXT, CLASSES, "text-classification")
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert model.is_gradient_checkpointing
    assert model.is_activation_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.is_activation_checkpointing
    if hasattr(PreTrainedModel, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(offload=True)
        assert model.is_activation_checkpointing
        assert model.perceiver.encoder.activations.offloading
        model.activation_checkpointing_disable()
        assert not model.is_activation_checkpointing
        assert not model.perceiver.encoder.activations.offloading
    with pytest.raises(ValueError, match=r"every_n_layers=2: must be 1"):
        model.gradient_checkpointing_enable(every_n_layers=2)


def _keep(kept: list[torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    kept.append(tensor)
    return tensor


def test_initial_weights_equal_those_of_assemble(text_config: Callable[..., PerceiverConfig]) -> None:
    """transformers does not overwrite the weights of "local" initialisation."""
    plain = text_config({"num_cross_attention_qk_channels": 18}, init="local")
    config = ZooConfig.from_description(ModelDescription.create("mlm", plain))
    torch.manual_seed(3)
    model = ZooForMaskedLM(config)
    torch.manual_seed(3)
    module = LitLanguageModel.create(plain)
    torch.testing.assert_close(model.perceiver.state_dict(), module.model.state_dict(), rtol=0, atol=0)


def test_models_are_not_built_on_the_meta_device(make: Callable[..., Any], tmp_path: Path) -> None:
    """transformers 5 does so, which would lose buffers and fail for shapes that depend on values."""
    patches = ImagePatchesEncoderConfig(patch_size=2, max_resolution=(3, 4), num_frequency_bands=2, **SIZES)
    inputs = {
        "image": {"adapter": "image-patches", "patch_size": 2, "max_resolution": [3, 4]},
        "row": {"adapter": "table", "num_features": 3},
    }
    composite = CompositeEncoderConfig(inputs=inputs, **SIZES)
    photo = {"adapter": "image-patches", "patch_size": 2, "max_resolution": [3, 4]}
    table = TableEncoderConfig(num_features=3, columns={"photo": photo}, **SIZES)
    missing = {"pixel_values": torch.randn(2, 3, 6, 8), "missing": torch.tensor([True, False])}
    for encoder, batch in (
        (table, {"inputs": torch.randn(2, 3), "photo": missing}),
        (patches, {"pixel_values": torch.randn(2, 3, 6, 8)}),
        (composite, {"image": {"pixel_values": torch.randn(2, 3, 6, 8)}, "row": {"inputs": torch.randn(2, 3)}}),
    ):
        model = make(encoder, CLASSES, "classification")
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path)
        torch.testing.assert_close(again(**batch).to_tuple(), model(**batch).to_tuple())
        torch.testing.assert_close(dict(again.named_buffers()), dict(model.named_buffers()))


@pytest.mark.usefixtures("quiet_transformers")
def test_models_load_in_half_precision(make: Callable[..., Any], tmp_path: Path) -> None:
    """Including models with "local" initialisation, which needs float32."""
    decoder = TextDecoderConfig(vocab_size=31, max_seq_len=13, num_cross_attention_heads=2)
    model, batch = make(TEXT, decoder, "mlm", init="local"), text_batch()
    model.save_pretrained(tmp_path)
    half = ZooForMaskedLM.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert {value.dtype for value in half.state_dict().values()} == {torch.bfloat16}
    assert torch.get_default_dtype() is torch.float32
    expected = model(**batch).logits.softmax(dim=-1)
    torch.testing.assert_close(half(**batch).logits.float().softmax(dim=-1), expected, rtol=0, atol=0.05)
