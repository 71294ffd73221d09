"""Embeddings of inputs of every reader, compared with those of single inputs, and similarity search."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from perceiver_core import PerceiverARConfig
from perceiver_plugins.generation import NextTokenDecoderConfig, TokenEncoderConfig
from perceiver_plugins.sdk.prediction import EmbeddingPredictor
from perceiver_plugins.sdk.prediction.embedding import cosine
from perceiver_plugins.text.continuation import PromptReader
from perceiver_registry import UserError, assemble, registry
from perceiver_registry.testing.subjects import AdapterSubject, example_reader

READERS = [entry.name for entry in registry().entries("input") if entry.spec.reader]


def module_of(model) -> SimpleNamespace:
    """Stand-in for a Lightning module."""
    return SimpleNamespace(model=model.eval(), device=torch.device("cpu"))


@pytest.mark.parametrize("name", READERS)
def test_embeddings_are_those_of_each_input_alone(name, tmp_path):
    subject = AdapterSubject(registry().get("input", name).spec, {})
    model = subject.model()
    found = example_reader(subject.spec, model.input_adapter, tmp_path)
    if found is None:
        pytest.skip("the reader has no example")
    reader, inputs = found
    sources = reader.expand(inputs)
    with torch.no_grad():
        expected = [model.encode(reader.collate([reader.read(source)]))[0] for source in sources]
    for pool, batch_size in (("mean", 1), ("mean", 99), ("none", 2)):
        predictor = EmbeddingPredictor(module_of(model), reader, pool, batch_size=batch_size)
        predictions = predictor.predict(inputs)
        assert [prediction["input"] for prediction in predictions] == sources
        assert predictor.failures == []
        for prediction, latents in zip(predictions, expected, strict=True):
            pooled = latents.mean(dim=0) if pool == "mean" else latents
            assert prediction["embedding"].dtype == np.float32
            np.testing.assert_allclose(prediction["embedding"], pooled.numpy(), atol=1e-5)


# Causal models


@pytest.fixture
def causal(randomise):
    """Causal model of eight tokens with four latents, and its reader."""
    encoder = TokenEncoderConfig(vocab_size=7, num_input_channels=16, num_self_attention_layers_per_block=1)
    sizes = {"num_latents": 4, "num_latent_channels": 16, "max_seq_len": 8}
    config = PerceiverARConfig(encoder, NextTokenDecoderConfig(), **sizes)
    model = randomise(assemble(config)).eval()
    reader, _ = PromptReader.example(model.input_adapter, None)
    return model, reader


TEXTS = ["a", "small text", "a small text a small text", "text"]
"""Texts with fewer tokens than the model has latents, and with more."""


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_embeddings_of_causal_models_leave_out_padding(causal, batch_size):
    model, reader = causal
    means = EmbeddingPredictor(module_of(model), reader, batch_size=batch_size).predict(TEXTS)
    latents = EmbeddingPredictor(module_of(model), reader, "none", batch_size=batch_size).predict(TEXTS)
    assert [len(prediction["embedding"]) for prediction in latents] == [2, 3, 4, 2]
    for text, mean, each in zip(TEXTS, means, latents, strict=True):
        with torch.no_grad():
            alone = model.encode(reader.collate([reader.read(text)]))[0]
        np.testing.assert_allclose(each["embedding"], alone.numpy(), atol=1e-5)
        np.testing.assert_allclose(mean["embedding"], alone.mean(dim=0).numpy(), atol=1e-5)


def test_the_end_of_a_sequence_longer_than_the_window_is_embedded(causal):
    model, reader = causal
    long = "text text text a a small small text a a small"
    predictor = EmbeddingPredictor(module_of(model), reader)
    with pytest.warns(UserWarning, match="longer than the model's window: only its last 8 tokens") as warned:
        first, second, third = predictor.predict(["a small text", long, f"a {long}"])
    assert len(warned) == 1
    assert str(warned[0].message).startswith(long[:20])
    ids = torch.from_numpy(reader.read(long).input_ids[-8:])[None]
    with torch.no_grad():
        expected = model.embed({"input_ids": ids, "attention_mask": torch.ones_like(ids)})[0]
    np.testing.assert_allclose(second["embedding"], expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(third["embedding"], expected.numpy(), atol=1e-5)
    assert not np.allclose(first["embedding"], second["embedding"], atol=1e-3)


# Similar inputs


def test_most_similar_inputs_equal_a_sort_of_all(causal):
    model, reader = causal
    texts = [*TEXTS, "small", "a a a", "small a", "text text"]
    vectors = {each["input"]: each["embedding"] for each in EmbeddingPredictor(module_of(model), reader).predict(texts)}
    reference = vectors["small a"].astype(float)
    cosines = {text: v @ reference / np.sqrt((v @ v) * (reference @ reference)) for text, v in vectors.items()}
    expected = sorted(cosines, key=cosines.__getitem__, reverse=True)
    for top_k in (1, 3, None):
        predictor = EmbeddingPredictor(module_of(model), reader, similar_to="small a", top_k=top_k, batch_size=3)
        found = predictor.predict(texts)
        assert [each["input"] for each in found] == expected[: top_k or 10]
        similarities = [cosines[each["input"]] for each in found]
        assert [each["similarity"] for each in found] == pytest.approx(similarities, abs=1e-5)
    assert found[0] == {"input": "small a", "similarity": pytest.approx(1.0)}


def test_reference_is_embedded_in_evaluation_mode(causal):
    model, reader = causal
    for each in model.modules():
        each.dropout = 0.5  # of the attention layers
    model.train()
    predictor = EmbeddingPredictor(
        SimpleNamespace(model=model, device=torch.device("cpu")), reader, similar_to="a text"
    )
    assert [each["similarity"] for each in predictor.predict(["a text"])] == [pytest.approx(1.0)]
    assert model.training


def test_cosine_of_zero_is_zero():
    assert cosine(np.zeros(3, np.float32), np.ones(3, np.float32)) == 0.0
    assert cosine(np.array([3.0, 4.0], np.float32), np.array([-3.0, -4.0], np.float32)) == pytest.approx(-1.0)


# Faults


def test_inputs_whose_embedding_is_not_finite_are_reported(causal):
    model, reader = causal
    small = reader.tokenizer.convert_tokens_to_ids("small")
    with torch.no_grad():
        model.input_adapter.token_embedding.weight[small] = torch.nan
    predictor = EmbeddingPredictor(module_of(model), reader)
    assert [each["input"] for each in predictor.predict(["a text", "a small text", "text"])] == ["a text", "text"]
    assert predictor.failures == ["a small text: the model does not support this input (its embedding is not finite)"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 3}, "top_k: has no effect without similar_to"),
        ({"top_k": 0, "similar_to": "a"}, "top_k=0 must be at least 1"),
        ({"pool": "none", "similar_to": "a"}, "pool=none: similar_to compares means"),
        ({"similar_to": "none.txt"}, "similar_to=none.txt: input: file none.txt not found"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
    ],
)
def test_wrong_options(causal, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    model, reader = causal
    with pytest.raises(UserError, match=message):
        EmbeddingPredictor(module_of(model), reader, **options)


def test_the_reference_is_a_single_input(causal, tmp_path):
    model, reader = causal
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("text")
    with pytest.raises(UserError, match="must name one input, got 2"):
        EmbeddingPredictor(module_of(model), reader, similar_to=str(tmp_path))


def test_models_without_embeddings(causal):
    _, reader = causal
    with pytest.raises(UserError, match="Linear: this architecture has no embeddings"):
        EmbeddingPredictor(module_of(torch.nn.Linear(1, 1)), reader)
