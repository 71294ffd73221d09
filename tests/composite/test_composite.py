"""Composite input adapter: against Hugging Face's multimodal preprocessor, its parts, and in models."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import yaml
from pytorch_lightning import Trainer
from torch import Tensor
from transformers import PerceiverConfig as PublishedConfig
from transformers.models.perceiver.modeling_perceiver import (
    PerceiverImagePreprocessor,
    PerceiverMultimodalPreprocessor,
    PerceiverTextPreprocessor,
)

from perceiver_core import PerceiverConfig
from perceiver_plugins.checkpoints.random_data import RandomDataModule
from perceiver_plugins.classification.config import RegressionDecoderConfig
from perceiver_plugins.classification.regression import LitRegressor
from perceiver_plugins.composite import CompositeEncoderConfig, CompositeInputAdapter
from perceiver_plugins.composite.plugin import perceiver_adapters
from perceiver_plugins.table import TableEncoderConfig, TableInputAdapter
from perceiver_plugins.text import TextEncoderConfig
from perceiver_registry import UnknownNameError, UserError, assemble, config_from_dict, config_to_dict

TEXT = {"adapter": "text", "vocab_size": 31, "max_seq_len": 9, "num_input_channels": 13}
TABLE = {"adapter": "table", "num_features": 5, "num_input_channels": 7}
IMAGE = {"adapter": "image-pixels", "num_channels": 2, "num_frequency_bands": 3, "max_resolution": [6, 4]}


def composite(**parts) -> CompositeInputAdapter:
    return CompositeInputAdapter.from_config(CompositeEncoderConfig(inputs=parts))


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Batch of three examples with padded text, a table row and an image."""
    lengths = torch.tensor([[9], [4], [1]])
    return {
        "input_ids": torch.randint(31, (3, 9)),
        "attention_mask": (torch.arange(9) < lengths).long(),
        "inputs": torch.randn(3, 5),
        "pixel_values": torch.randn(3, 2, 6, 4),
    }


# Input array


def test_arrays_are_padded_and_concatenated_as_in_hugging_face(randomise, batch):
    published = PublishedConfig(vocab_size=31, max_position_embeddings=9, d_model=13)
    short = PublishedConfig(vocab_size=17, max_position_embeddings=6, d_model=8)
    fourier = {"num_bands": 3, "max_resolution": [6, 4], "concat_pos": True, "sine_only": False}
    parts = {
        "words": PerceiverTextPreprocessor(published),
        "image": PerceiverImagePreprocessor(
            published,
            prep_type="pixels",
            spatial_downsample=1,
            temporal_downsample=1,
            in_channels=2,
            position_encoding_type="fourier",
            fourier_position_encoding_kwargs=fourier,
        ),
        "label": PerceiverTextPreprocessor(short),
    }
    theirs = randomise(PerceiverMultimodalPreprocessor(parts, min_padding_size=4))
    ours = composite(
        words=TEXT, image=IMAGE, label=TEXT | {"vocab_size": 17, "max_seq_len": 6, "num_input_channels": 8}
    )
    with torch.no_grad():
        for modality in ("words", "label"):
            part, reference = ours.parts[modality], theirs.modalities[modality]
            part.token_embedding.weight.copy_(reference.embeddings.weight)
            part.position_embedding.weight.copy_(reference.position_embeddings.weight)
        for modality, embedding in ours.embeddings.items():
            embedding.copy_(theirs.padding[modality][0])
    label_ids = torch.randint(17, (3, 6))
    expected, sizes, _ = theirs(
        {"words": batch["input_ids"], "image": batch["pixel_values"], "label": label_ids}, network_input_is_1d=True
    )
    found = ours({"words": batch, "image": batch, "label": {"input_ids": label_ids}})
    assert sizes == {"words": 9, "image": 24, "label": 6}
    assert ours.num_input_channels == theirs.num_channels == 16 + 4
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-6)


def test_arrays_have_outputs_of_the_parts_and_modality_embeddings(batch):
    adapter = composite(text=TEXT, table=TABLE)
    x = adapter(batch).x
    assert x.shape == (3, 5 + 9, 13 + 4)
    table, text = x.split([5, 9], dim=1)  # ordered by name
    for array, modality in ((table, "table"), (text, "text")):
        part = adapter.parts[modality](batch).x
        assert torch.equal(array[..., : part.shape[-1]], part)
        padding = array[..., part.shape[-1] :]
        assert torch.equal(padding, adapter.embeddings[modality].expand_as(padding))
    assert {modality: len(embedding) for modality, embedding in adapter.embeddings.items()} == {"table": 10, "text": 4}


def test_order_in_the_configuration_does_not_matter(batch):
    one, other = composite(text=TEXT, table=TABLE), composite(table=TABLE, text=TEXT)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(batch).x, other(batch).x)


@pytest.mark.parametrize(("min_padding", "channels"), [(1, 14), (11, 24)])
def test_widest_input_gets_min_padding(min_padding, channels, batch):
    config = CompositeEncoderConfig(inputs={"text": TEXT, "table": TABLE}, min_padding=min_padding)
    adapter = CompositeInputAdapter.from_config(config)
    assert adapter.num_input_channels == adapter(batch).x.shape[-1] == channels
    assert len(adapter.embeddings["text"]) == min_padding


def test_single_input_is_padded(batch):
    assert composite(table=TABLE)(batch).x.shape == (3, 5, 11)


def test_padding_masks_are_concatenated(batch):
    x, pad_mask, _ = composite(text=TEXT, table=TABLE)(batch)
    expected = torch.cat([torch.zeros(3, 5, dtype=torch.bool), batch["attention_mask"] == 0], dim=1)
    assert torch.equal(pad_mask, expected)
    assert x.shape[:2] == pad_mask.shape
    del batch["attention_mask"]
    assert composite(text=TEXT, table=TABLE)(batch).pad_mask is None


class Scaled(TableInputAdapter):
    """Table adapter with context."""

    def forward(self, batch):
        context = dict.fromkeys(("scale", self.own_name), batch["inputs"][:, None])
        return super().forward(batch)._replace(context=context)


def test_contexts_are_merged(batch):
    adapter = composite(one=TABLE, text=TEXT, two=TABLE)
    for modality in ("one", "two"):
        adapter.parts[modality].__class__ = Scaled
        adapter.parts[modality].own_name = f"only_{modality}"
    two = {"inputs": torch.randn(3, 5)}
    context = adapter(batch | {"two": two}).context
    assert list(context) == ["one.scale", "only_one", "two.scale", "only_two"]
    for name, value in context.items():
        assert value.equal((two if "two" in name else batch)["inputs"][:, None])


def test_nested_batches(batch):
    adapter = composite(text=TEXT, table=TABLE)
    nested = {"text": {name: batch.pop(name) for name in ("input_ids", "attention_mask")}}
    for whole in (nested | batch, nested | {"table": {"inputs": batch["inputs"]}}):
        found = adapter(whole)
        expected = adapter(nested["text"] | batch)
        assert torch.equal(found.x, expected.x)
        assert torch.equal(found.pad_mask, expected.pad_mask)


def test_missing_entry_is_reported(batch):
    with pytest.raises(KeyError, match="pixel_values"):
        composite(image=IMAGE, text=TEXT)({"text": batch, "image": {}})


@pytest.mark.parametrize("chosen", ["image", "text"])
def test_embeddings_get_gradients_of_their_positions(chosen, batch):
    adapter = composite(text=TEXT, table=TABLE, image=IMAGE)
    arrays = dict(zip(("image", "table", "text"), adapter(batch).x.split([24, 5, 9], dim=1), strict=True))
    arrays[chosen].sum().backward()
    for modality, embedding in adapter.embeddings.items():
        length = arrays[modality].shape[1]
        if modality == chosen:
            torch.testing.assert_close(embedding.grad, torch.full_like(embedding, 3.0 * length))
        else:
            assert embedding.grad is None or not embedding.grad.any()


def test_init_scale_of_embeddings_and_parts():
    config = CompositeEncoderConfig(
        inputs={"a": TEXT | {"num_input_channels": 4000}, "b": TEXT, "c": TEXT | {"init_scale": 0.7}}, init_scale=0.2
    )
    adapter = CompositeInputAdapter.from_config(config)
    assert adapter.embeddings["b"].std().item() == pytest.approx(0.2, rel=0.1)
    assert adapter.parts["b"].token_embedding.weight.std().item() == pytest.approx(0.2, rel=0.2)
    assert adapter.parts["c"].token_embedding.weight.std().item() == pytest.approx(0.7, rel=0.2)


def test_nested_composites(batch):
    inner = {"adapter": "composite", "inputs": {"text": TEXT, "table": TABLE}, "min_padding": 2}
    x, pad_mask, _ = composite(both=inner, image=IMAGE)(batch)
    assert x.shape == (3, 14 + 24, 16 + 4)
    assert pad_mask.sum() == (batch["attention_mask"] == 0).sum()


# Data


def test_example_batches_are_nested_if_names_collide():
    generator = torch.Generator().manual_seed(0)
    adapter = composite(text=TEXT, table=TABLE)
    batch = adapter.example_batch(4, generator)
    assert set(batch) == {"input_ids", "attention_mask", "inputs"}
    assert adapter(batch).x.shape == (4, 14, 17)
    adapter = composite(first=TEXT, second=TEXT | {"max_seq_len": 4}, table=TABLE)
    batch = adapter.example_batch(4, generator)
    assert set(batch) == {"first", "second", "table"}
    assert adapter(batch).x.shape == (4, 9 + 4 + 5, 17)


def test_parts_check_data():
    class Data:
        vocab_size, max_seq_len, num_features = 31, 9, 5

    adapter = composite(text=TEXT, table=TABLE)
    adapter.check_data(Data)
    Data.num_features = 6
    with pytest.raises(ValueError, match="num_features=6"):
        adapter.check_data(Data)
    Data.num_features, Data.vocab_size = 5, 32
    with pytest.raises(ValueError, match="vocab_size=32"):
        adapter.check_data(Data)


# Models


def model_config(**parts) -> PerceiverConfig:
    encoder = CompositeEncoderConfig(
        inputs=parts, num_cross_attention_heads=1, num_self_attention_heads=2, num_self_attention_layers_per_block=1
    )
    decoder = RegressionDecoderConfig(num_targets=2, num_output_query_channels=12, num_cross_attention_heads=1)
    return PerceiverConfig(encoder, decoder, num_latents=3, num_latent_channels=10)


def test_configuration_round_trip_through_yaml():
    config = model_config(text=TEXT, image=IMAGE)
    plain = yaml.safe_load(yaml.safe_dump(config_to_dict(config)))
    assert plain["encoder"]["adapter"] == "composite"
    assert config_from_dict(plain) == config


def test_padding_is_ignored(batch, randomise):
    model = randomise(assemble(model_config(text=TEXT, table=TABLE))).eval()
    with torch.no_grad():
        expected = model(batch)
        padding = batch["attention_mask"] == 0
        changed = batch | {"input_ids": batch["input_ids"].masked_fill(padding, 30)}
        torch.testing.assert_close(model(changed), expected)
        changed = batch | {"input_ids": batch["input_ids"].masked_fill(~padding, 30)}
        assert not torch.allclose(model(changed), expected, atol=1e-4)


def test_frozen_encoder_freezes_all_parts():
    config = model_config(text=TEXT, table=TABLE)
    frozen = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, freeze=True))
    assert not any(parameter.requires_grad for parameter in assemble(frozen).input_adapter.parameters())


def test_example_of_the_spec_trains_and_is_restored(tmp_path):
    example = perceiver_adapters()[0].example
    assert set(example) == {"model.encoder.inputs"}
    module = LitRegressor.create(model_config(**example["model.encoder.inputs"]))
    before = {name: value.clone() for name, value in module.model.input_adapter.embeddings.items()}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=3, default_root_dir=tmp_path, enable_checkpointing=False, **quiet)
    trainer.fit(module, RandomDataModule(num_examples=12, batch_size=4, seed=0))
    assert set(before) == {"image", "text"}
    for modality, embedding in module.model.input_adapter.embeddings.items():
        assert not torch.equal(embedding, before[modality])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = LitRegressor.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu", weights_only=True)
    batch = module.model.input_adapter.example_batch(2, torch.Generator())
    assert torch.equal(loaded.model.eval()(batch), module.model.eval()(batch))


# Errors


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "CompositeEncoderConfig.inputs={}: must name at least one input adapter"),
        ({"a": {"vocab_size": 3}}, "encoder.inputs.a: adapter is missing (write {a: {adapter: NAME, ...}})"),
        ({"a": "text"}, "encoder.inputs.a: adapter is missing (write {a: {adapter: NAME, ...}})"),
        ({"a": {"adapter": None}}, "encoder.inputs.a: adapter is missing (write {a: {adapter: NAME, ...}})"),
        ({"a": {"adapter": "tabel"}}, "encoder.inputs.a: unknown input adapter 'tabel'; did you mean 'table'?"),
        ({"a": TEXT | {"vocab": 3}}, "encoder.inputs.a has no field 'vocab'; did you mean 'vocab_size'?"),
        ({"a": TEXT | {"vocab_size": 0}}, "encoder.inputs.a: TextEncoderConfig.vocab_size=0: must be at least 1"),
        ({"a": TEXT | {"vocab_size": "few"}}, "encoder.inputs.a: vocab_size: must be a whole number, got 'few'"),
        (
            {"a": TEXT | {"num_self_attention_heads": 2}},
            "encoder.inputs.a.num_self_attention_heads: not a field of an input, all of which share one encoder "
            "(set encoder.num_self_attention_heads)",
        ),
        ({"a.b": TEXT}, "encoder.inputs.a.b: invalid name of a modality"),
        ({"train": TEXT}, "encoder.inputs.train: invalid name of a modality"),
    ],
)
def test_invalid_inputs_are_reported(parts, message):
    with pytest.raises((UserError, ValueError)) as caught:
        CompositeEncoderConfig(inputs=parts)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_unknown_adapter_raises_unknown_name_error():
    with pytest.raises(UnknownNameError):
        CompositeEncoderConfig(inputs={"a": {"adapter": "tabel"}})


def test_min_padding_must_be_positive():
    with pytest.raises(ValueError, match=r"CompositeEncoderConfig\.min_padding=0: must be at least 1"):
        CompositeEncoderConfig(inputs={"text": TEXT}, min_padding=0)


def test_part_configs():
    config = CompositeEncoderConfig(inputs={"text": TEXT, "table": TABLE, "image": IMAGE}, init_scale=0.5)
    parts = config.part_configs()
    assert parts["text"] == TextEncoderConfig(vocab_size=31, max_seq_len=9, num_input_channels=13, init_scale=0.5)
    assert parts["table"] == TableEncoderConfig(num_features=5, num_input_channels=7, init_scale=0.5)
    assert parts["image"].max_resolution == (6, 4)
