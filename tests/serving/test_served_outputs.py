"""Named output tensors of exported models, against the modules of the tasks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from perceiver_core import Batch, PerceiverConfig
from perceiver_plugins.classification.adapters import ClassificationOutputAdapter
from perceiver_plugins.flow import LitOpticalFlow
from perceiver_plugins.serving import ServedModel, compute_outputs
from perceiver_plugins.serving.batches import example_batch
from perceiver_plugins.serving.tracing import trace
from perceiver_plugins.table.config import TableEncoderConfig
from perceiver_plugins.text import LanguageModel
from perceiver_plugins.text.adapters import TiedTextOutputAdapter
from perceiver_plugins.text.config import TextDecoderConfig
from perceiver_registry import assemble


@pytest.mark.slow
@torch.no_grad()
def test_language_model_returns_logits_of_the_given_tokens(text_config: Any, randomise: Any) -> None:
    model = randomise(LanguageModel(text_config())).eval()
    batch = {"input_ids": torch.randint(37, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long)}

    (logits,) = compute_outputs(model, batch).values()

    torch.testing.assert_close(logits, model(**batch))
    assert logits.shape == (2, 9, 37)
    (exported,) = trace(model).program.module()(batch).values()
    torch.testing.assert_close(exported, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_flow_is_an_image_in_pixels(small_model: Callable[..., Any]) -> None:
    model = small_model("flow-patches", "optical-flow")
    model.config.decoder.flow_scale_factor = 20.0
    module = LitOpticalFlow.create(model.config)
    module.model.load_state_dict(model.state_dict())
    traced = trace(model)

    frames = torch.rand(1, 2, 3, 7, 5)

    (flow,) = traced.program.module()({"frames": frames}).values()
    torch.testing.assert_close(flow, module.eval().flow(frames), rtol=1e-4, atol=1e-4)
    assert traced.outputs[0].name == "flow"
    assert traced.outputs[0].shape == ("batch", 2, "height", "width")


@pytest.mark.parametrize(
    ("encoder", "decoder", "name"),
    [
        ("table", "regression", "predictions"),
        ("text", "classification", "logits"),
        ("text", "token-classification", "logits"),
    ],
)
def test_output_names(encoder: str, decoder: str, name: str, small_model: Callable[..., Any]) -> None:
    model = small_model(encoder, decoder)
    assert list(compute_outputs(model, example_batch(model, 1))) == [name]


class Probabilities(ClassificationOutputAdapter):
    def serve(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        return {"probabilities": model(batch).softmax(-1), "inputs": batch["inputs"]}


def test_serve_method_names_outputs(small_model: Callable[..., Any]) -> None:
    model = small_model("table", "classification")
    model.output_adapter.__class__ = Probabilities

    outputs = ServedModel(model)(example_batch(model, 2))

    assert list(outputs) == ["probabilities", "output_inputs"]
    torch.testing.assert_close(outputs["probabilities"].sum(-1), torch.ones(2))


def test_deprecated_name_of_serve_warns(small_model: Callable[..., Any]) -> None:
    with pytest.warns(DeprecationWarning, match="OldName.served is deprecated: rename it to serve"):

        class OldName(TiedTextOutputAdapter):  # its base class has a serve method of its own
            def served(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
                return {"tokens": model(batch).argmax(-1)}

    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class NewName(OldName):
            def serve(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
                return {"ids": model(batch).argmax(-1)}

    model = small_model("text", "text")
    for adapter_type, name in ((OldName, "tokens"), (NewName, "ids")):
        model.output_adapter.__class__ = adapter_type
        assert list(compute_outputs(model, example_batch(model, 1))) == [name]


@torch.no_grad()
def test_text_output_of_a_table_has_all_positions(randomise: Callable[[Any], Any]) -> None:
    encoder = TableEncoderConfig(num_features=3, num_input_channels=8, num_cross_attention_heads=1)
    decoder = TextDecoderConfig(vocab_size=31, max_seq_len=13, num_output_query_channels=8)
    model = randomise(assemble(PerceiverConfig(encoder, decoder, num_latents=4, num_latent_channels=16))).eval()
    batch = example_batch(model, 2)

    (logits,) = compute_outputs(model, batch).values()

    assert logits.shape == (2, 13, 31)
    torch.testing.assert_close(logits, model(batch))


@pytest.mark.slow
def test_batch_is_dynamic_if_latents_are_keys(text_config: Any, randomise: Any) -> None:
    encoder = {"attend_to_latents": True, "num_input_channels": 15}
    decoder = {"num_cross_attention_heads": 3}
    model = randomise(LanguageModel(text_config(encoder, decoder))).eval()
    assert {"batch", "length"} == trace(model).sizes.keys()


def test_nested_outputs_have_names_distinct_from_inputs(small_model: Callable[..., Any]) -> None:
    model = small_model("table", "classification")
    model.output_adapter.forward = lambda decoded: {"inputs": decoded, "parts": [decoded[:, 0], (decoded[:, 0],)]}

    assert list(compute_outputs(model, example_batch(model, 1))) == ["output_inputs", "parts_0", "parts_1_0"]
