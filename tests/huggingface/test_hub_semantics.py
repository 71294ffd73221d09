"""Arguments of ``transformers`` have the same effect as for its own models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    pipeline,
)
from transformers.loss.loss_utils import ForSequenceClassificationLoss

import perceiver_plugins.huggingface.auto  # noqa: F401
from perceiver_core import PerceiverConfig
from perceiver_plugins.classification.config import (
    ClassificationDecoderConfig,
    RegressionDecoderConfig,
    TokenClassificationDecoderConfig,
)
from perceiver_plugins.huggingface import ZooConfig, from_checkpoint, load, model_class
from perceiver_plugins.huggingface.losses import problem_loss
from perceiver_plugins.image.config import ImageLearnedEncoderConfig
from perceiver_plugins.text.config import TextEncoderConfig
from perceiver_registry import ModelDescription, UserError, assemble, from_hugging_face, to_hugging_face

pytestmark = pytest.mark.usefixtures("quiet_transformers")

SIZES: dict[str, Any] = {
    "num_cross_attention_heads": 1,
    "num_self_attention_heads": 3,
    "num_self_attention_layers_per_block": 2,
}
TEXT = TextEncoderConfig(vocab_size=31, max_seq_len=13, num_input_channels=10, num_self_attention_blocks=2, **SIZES)
TEXT_OF_ONE_BLOCK = replace(TEXT, num_self_attention_blocks=1)
IMAGE = ImageLearnedEncoderConfig(image_size=(5, 7), num_conv_channels=6, num_position_channels=4, **SIZES)
CLASSES = ClassificationDecoderConfig(
    num_classes=3, num_output_query_channels=6, num_cross_attention_heads=2, label_names=["low", "high", "none"]
)
TOKENS = TokenClassificationDecoderConfig(num_classes=3, label_names=["low", "high", "none"])
NUM_LATENTS, NUM_LATENT_CHANNELS = 5, 12


def save(folder: Path, encoder: Any, decoder: Any, task: str) -> Path:
    config = PerceiverConfig(encoder, decoder, num_latents=NUM_LATENTS, num_latent_channels=NUM_LATENT_CHANNELS)
    zoo_config = ZooConfig.from_description(ModelDescription.create(task, config))
    model = model_class(config)(zoo_config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Folder of a text classifier."""
    return save(tmp_path / "texts", TEXT, CLASSES, "text-classification")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Folder of an image classifier."""
    return save(tmp_path / "images", IMAGE, CLASSES, "image-classification")


@pytest.fixture
def batch() -> dict[str, Tensor]:
    lengths = torch.tensor([[9], [4], [1]])
    return {"input_ids": torch.randint(31, (3, 9)), "attention_mask": (torch.arange(9) < lengths).long()}


LABELS = {
    "regression": torch.linspace(-2, 3, 12).view(4, 3),
    "single_label_classification": torch.tensor([2, 0, 1, 1]),
    "multi_label_classification": torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]),
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels"),
    [(name, 3, labels) for name, labels in LABELS.items()]
    + [("regression", 1, torch.arange(4.0)), ("regression", 1, torch.arange(4.0)[:, None])],
    ids=["numbers", "class", "classes", "a number", "a column"],
)
def test_losses_equal_those_of_transformers(problem_type: str, num_labels: int, labels: Tensor, named: bool) -> None:
    if not named and (problem_type, num_labels) == ("regression", 3):
        problem_type = "multi_label_classification"  # the default for floating-point labels
    logits = torch.randn(4, num_labels)
    given = problem_type if named else None
    config = SimpleNamespace(num_labels=num_labels, problem_type=given)
    expected = ForSequenceClassificationLoss(labels, logits, config)
    assert config.problem_type == problem_type
    torch.testing.assert_close(problem_loss(logits, labels, given), expected)


def test_invalid_labels_are_refused() -> None:
    logits = torch.randn(4, 3)
    for problem_type, labels, message in (
        ("regression", torch.randn(4), r"labels of shape \(4,\): must be \(4, 3\) for problem_type='regression'"),
        ("multi_label_classification", torch.rand(4, 1), r"must be \(4, 3\)"),
        ("single_label_classification", LABELS["multi_label_classification"], "must sum to 1"),
        ("multi_label", torch.rand(4, 3), "problem_type='multi_label': must be one of regression, single_label"),
    ):
        with pytest.raises(ValueError, match=message):
            problem_loss(logits, labels, problem_type)


@pytest.mark.parametrize("problem_type", LABELS)
def test_problem_type_of_from_pretrained_selects_the_loss(texts: Path, images: Path, problem_type: str) -> None:
    labels = LABELS[problem_type]
    inputs = {"input_ids": torch.randint(31, (4, 9))}
    pixels = {"pixel_values": torch.randn(4, 3, 5, 7)}
    for auto_class, folder, values in (
        (AutoModelForSequenceClassification, texts, inputs),
        (AutoModelForImageClassification, images, pixels),
    ):
        model = auto_class.from_pretrained(folder, problem_type=problem_type)
        output = model(**values, labels=labels)
        config = SimpleNamespace(num_labels=3, problem_type=problem_type)
        torch.testing.assert_close(output.loss, ForSequenceClassificationLoss(labels, output.logits, config))
        model.save_pretrained(folder)
        assert AutoConfig.from_pretrained(folder).problem_type == problem_type


def train_step(model: Any, inputs: dict[str, Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and the gradient of the output layer's bias."""
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    bias = next(value for name, value in model.named_parameters() if name.endswith(("linear.bias", "final_layer.bias")))
    return loss.detach(), bias.grad


@pytest.mark.parametrize("problem_type", LABELS)
def test_published_classifiers_keep_their_problem_type(
    problem_type: str, randomise: Any, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    sizes = {"num_latents": 5, "d_latents": 12, "d_model": 10, "num_blocks": 1, "num_self_attends_per_block": 2}
    config = transformers.PerceiverConfig(
        vocab_size=31,
        max_position_embeddings=13,
        num_self_attention_heads=3,
        num_cross_attention_heads=2,
        problem_type=problem_type,
        id2label=dict(enumerate(["low", "high", "none"])),
        **sizes,
    )
    theirs: Any = randomise(transformers.PerceiverForSequenceClassification(config)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    labels = LABELS[problem_type][:3]
    expected = train_step(theirs, {"inputs": batch["input_ids"], "attention_mask": batch["attention_mask"]}, labels)
    ours = from_checkpoint(tmp_path / "theirs").train(False)
    assert type(ours).__name__ == "ZooForSequenceClassification"
    assert ours.config.problem_type == problem_type
    assert [*ours.config.id2label.values()] == ["low", "high", "none"]
    torch.testing.assert_close(train_step(ours, batch, labels), expected, rtol=1e-4, atol=1e-5)
    decoder = ours.perceiver.config.decoder
    if problem_type == "regression":
        assert (ours.config.task.rpartition(":")[2], decoder.target_names) == ("regression", ["low", "high", "none"])
    else:
        assert decoder.multi_label is (problem_type == "multi_label_classification")
    ours.save_pretrained(tmp_path / "ours")
    again = to_hugging_face(load(tmp_path / "ours")[0])
    assert (again.config.problem_type, again.config.id2label) == (problem_type, config.id2label)
    for name, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_threshold_of_predictions_survives_conversion() -> None:
    decoder = ClassificationDecoderConfig(
        num_output_query_channels=12,
        num_cross_attention_heads=1,
        num_cross_attention_qk_channels=12,
        num_cross_attention_v_channels=12,
        multi_label=True,
        threshold=0.3,
    )
    config = PerceiverConfig(TEXT_OF_ONE_BLOCK, decoder, num_latents=NUM_LATENTS, num_latent_channels=12)
    theirs = to_hugging_face(assemble(config))
    assert from_hugging_face(theirs).config.decoder == decoder


def test_threshold_is_dropped_with_its_problem_type() -> None:
    decoder = replace(CLASSES, multi_label=True, threshold=0.3)
    config = PerceiverConfig(TEXT, decoder, num_latents=NUM_LATENTS, num_latent_channels=12)
    zoo = ZooConfig.from_description(ModelDescription.create("text-classification", config))
    assert zoo.model_config().decoder.threshold == 0.3
    zoo.problem_type = "single_label_classification"
    found = zoo.model_config().decoder
    assert (found.multi_label, found.threshold) == (False, None)


def test_unknown_problem_type_is_refused(texts: Path) -> None:
    with pytest.raises(UserError, match=r"problem_type='multi_label': must be one of regression, single_label_class"):
        AutoModelForSequenceClassification.from_pretrained(texts, problem_type="multi_label")


@pytest.mark.parametrize("problem_type", LABELS)
def test_pipeline_scores_by_problem_type(texts: Path, problem_type: str) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(texts, problem_type=problem_type)
    words = Tokenizer(WordLevel({"[PAD]": 0, "a": 1, "b": 2, "c": 3}, unk_token="[PAD]"))
    words.pre_tokenizer = Whitespace()
    names = ["input_ids", "attention_mask"]  # transformers 4 adds token_type_ids by default
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", model_input_names=names)
    classify: Any = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    with torch.no_grad():
        logits = model(**tokenizer("a c b", return_tensors="pt")).logits[0]
    by_type = {"regression": logits, "single_label_classification": logits.softmax(dim=-1)}
    sigmoid = logits.sigmoid()
    for options, scores in (({}, by_type.get(problem_type, sigmoid)), ({"function_to_apply": "sigmoid"}, sigmoid)):
        found = {each["label"]: each["score"] for each in classify("a c b", top_k=None, **options)}
        expected = dict(zip(["low", "high", "none"], scores.tolist(), strict=True))
        assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("problem_type", LABELS)
def test_problem_type_is_that_of_the_model_in_this_project(
    texts: Path, batch: dict[str, Tensor], problem_type: str, tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(texts, problem_type=problem_type)
    model.save_pretrained(tmp_path / "saved")
    plain, description = load(tmp_path / "saved")
    torch.testing.assert_close(plain(batch).float(), model(**batch).logits)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert again.config.problem_type == problem_type
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits)
    decoder = plain.config.decoder
    if problem_type == "regression":
        assert description.task.rpartition(":")[2] == "regression"
        assert decoder.target_names == ["low", "high", "none"]
        with pytest.raises(UserError, match="problem_type=multi_label_classification: the model is a regressor"):
            AutoModelForSequenceClassification.from_pretrained(
                tmp_path / "saved", problem_type="multi_label_classification"
            )
    else:
        assert decoder.multi_label is (problem_type == "multi_label_classification")


def test_regressors_have_named_targets(tmp_path: Path, batch: dict[str, Tensor]) -> None:
    statistics: dict[str, Any] = {"target_mean": [20.0, -3.0], "target_std": [5.0, 0.1]}
    decoder = RegressionDecoderConfig(
        num_targets=2, num_output_query_channels=6, num_cross_attention_heads=2, target_names=["t", "u"], **statistics
    )
    folder = save(tmp_path / "numbers", TEXT, decoder, "regression")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert (model.config.problem_type, model.config.id2label) == ("regression", {0: "t", 1: "u"})
    labels = torch.randn(3, 2)
    output = model(**batch, labels=labels)
    torch.testing.assert_close(output.loss, (output.logits - labels).square().mean())
    torch.testing.assert_close(output.logits, load(folder)[0](batch).float())
    other = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, ignore_mismatched_sizes=True)
    assert other(**batch).logits.shape == (3, 3)
    assert other.perceiver.config.decoder.target_mean is None, "the statistics are those of other targets"


def test_regression_with_several_output_queries_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "texts", TEXT, replace(CLASSES, num_output_queries=2), "text-classification")
    with pytest.raises(UserError, match=r"problem_type=regression: .*num_output_queries=2: must be 1 for regression"):
        AutoModelForSequenceClassification.from_pretrained(folder, problem_type="regression")


@pytest.mark.parametrize(
    "change",
    [{"num_labels": 5}, {"id2label": dict(enumerate("abcde")), "label2id": {c: i for i, c in enumerate("abcde")}}],
)
def test_another_number_of_labels_reinitialises_the_output_layer(
    texts: Path, tmp_path: Path, batch: dict[str, Tensor], change: dict[str, Any]
) -> None:
    old = AutoModelForSequenceClassification.from_pretrained(texts)
    with pytest.raises((UserError, RuntimeError), match=r"mismatch|another shape"):
        AutoModelForSequenceClassification.from_pretrained(texts, **change)

    model = AutoModelForSequenceClassification.from_pretrained(texts, ignore_mismatched_sizes=True, **change)
    assert model(**batch).logits.shape == (3, 5)
    assert model.config.num_labels == model.perceiver.config.decoder.num_classes == 5
    head = model.perceiver.output_adapter.linear
    assert 0.005 < head.weight.std() < 0.05  # initialised, not uninitialised memory
    assert head.bias.abs().max() == 0
    torch.testing.assert_close(model.perceiver.encoder.state_dict(), old.perceiver.encoder.state_dict())

    model.save_pretrained(tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits)
    labels = [model.config.id2label[i] for i in range(5)]
    assert [again.config.id2label[i] for i in range(5)] == labels
    plain, description = load(tmp_path / "again")
    assert plain.config.decoder.label_names == labels
    assert description.model["decoder"]["num_classes"] == 5


def test_token_labels(tmp_path: Path, batch: dict[str, Tensor]) -> None:
    folder = save(tmp_path / "tokens", TEXT, TOKENS, "token-classification")
    model = AutoModelForTokenClassification.from_pretrained(folder, num_labels=2, ignore_mismatched_sizes=True)
    assert model(**batch).logits.shape == (3, 9, 2)


def test_renamed_labels_are_saved(texts: Path, batch: dict[str, Tensor], tmp_path: Path) -> None:
    names = {0: "LABEL_0", 1: "good", 2: "so-so"}
    model = AutoModelForSequenceClassification.from_pretrained(texts, id2label=names)
    assert model.perceiver.config.decoder.label_names == [*names.values()]
    model.config.id2label = names | {1: "better"}
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert again.config.id2label == names | {1: "better"}
    assert load(tmp_path / "again")[1]["model"]["decoder"]["label_names"] == ["LABEL_0", "better", "so-so"]
    torch.testing.assert_close(again(**batch).logits, model(**batch).logits)


def test_two_unnamed_labels_are_saved(texts: Path, tmp_path: Path) -> None:
    """``transformers`` does not write its default names to ``config.json``."""
    model = AutoModelForSequenceClassification.from_pretrained(texts, num_labels=2, ignore_mismatched_sizes=True)
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    assert again.config.id2label == model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_labels_with_gaps_are_refused(texts: Path) -> None:
    with pytest.raises(UserError, match=r"id2label must name the classes 0, 1, 2, ..., got \[1, 2, 3\]"):
        AutoModelForSequenceClassification.from_pretrained(texts, id2label={1: "a", 2: "b", 3: "c"})


def test_hidden_states_and_attentions_equal_those_of_transformers(tmp_path: Path) -> None:
    config = transformers.PerceiverConfig(
        vocab_size=41,
        max_position_embeddings=19,
        num_latents=7,
        d_latents=20,
        d_model=16,
        num_blocks=2,
        num_self_attends_per_block=2,
        num_self_attention_heads=5,
        num_cross_attention_heads=4,
    )
    theirs = transformers.PerceiverForMaskedLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = from_checkpoint(tmp_path)
    ids, wanted = torch.randint(41, (2, 19)), {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        expected, output = theirs(inputs=ids, **wanted), ours(input_ids=ids, **wanted)
    for field in ("logits", "hidden_states", "attentions", "cross_attentions"):
        torch.testing.assert_close(output[field], expected[field], atol=1e-5, rtol=1e-4, msg=field)
    assert len(output.hidden_states) == 2 * (2 + 1)


def test_hidden_states(texts: Path, images: Path, batch: dict[str, Tensor]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(texts)
    assert model(**batch).hidden_states is None
    logits, states = model(**batch, output_hidden_states=True, return_dict=False)
    assert [tuple(state.shape) for state in states] == [(3, NUM_LATENTS, NUM_LATENT_CHANNELS)] * 6
    torch.testing.assert_close(logits, model(**batch).logits)
    model.train().gradient_checkpointing_enable()
    recomputed = model(**batch, output_hidden_states=True)
    torch.testing.assert_close(recomputed.hidden_states, states)
    recomputed.logits.sum().backward()
    assert len(recomputed.hidden_states) == 6
    for folder, auto_class in ((texts, AutoModelForSequenceClassification), (images, AutoModelForImageClassification)):
        configured = auto_class.from_pretrained(folder, output_hidden_states=True)
        inputs = batch if folder == texts else {"pixel_values": torch.randn(3, 3, 5, 7)}
        assert len(configured(**inputs).hidden_states) == (6 if folder == texts else 3)
        assert configured(**inputs, output_hidden_states=False).hidden_states is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_auto_model_returns_latents(texts: Path, images: Path, batch: dict[str, Tensor]) -> None:
    for folder, inputs in ((texts, batch), (images, {"pixel_values": torch.randn(3, 3, 5, 7)})):
        model = AutoModel.from_pretrained(folder)
        output = model(**inputs, output_hidden_states=True, output_attentions=True)
        latents = model.perceiver.encoder(model.perceiver.input_adapter(inputs))
        torch.testing.assert_close(output.last_hidden_state, latents)
        torch.testing.assert_close(output.hidden_states[-1], latents)
        torch.testing.assert_close(output.output, model.perceiver(inputs))
        torch.testing.assert_close(output[0], latents)
        first, *_ = model(**inputs, return_dict=False)
        torch.testing.assert_close(first, latents)


@pytest.mark.slow
def test_feature_extraction_pipeline_returns_latents(text_classifier: Any) -> None:
    extract: Any = pipeline("feature-extraction", model=str(text_classifier.folder), device="cpu")
    features = torch.tensor(extract("The cat sat"))
    with torch.no_grad():
        expected = extract.model(**extract.tokenizer("The cat sat", return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(features, expected)
    assert features.shape == (1, 4, 16)


def test_unknown_arguments_are_refused(texts: Path, batch: dict[str, Tensor]) -> None:
    with pytest.raises(
        TypeError, match=r"keyword argument 'attention_msk' \(the model reads input_ids, attention_mask"
    ):
        AutoModel.from_pretrained(texts)(**batch, attention_msk=batch["attention_mask"])
    with pytest.raises(TypeError, match="attention_msk"):
        AutoModelForSequenceClassification.from_pretrained(texts)(**batch, attention_msk=batch["attention_mask"])


def test_resizing_the_vocabulary_is_refused(texts: Path, batch: dict[str, Tensor]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(texts)
    before = model(**batch).logits
    for arguments in ((40,), (31, 64)):
        with pytest.raises(NotImplementedError, match=r"the vocabulary of 31 tokens is fixed"):
            model.resize_token_embeddings(*arguments)
    assert isinstance(model.resize_token_embeddings(31), nn.Embedding)
    assert model.resize_token_embeddings().num_embeddings == 31
    torch.testing.assert_close(model(**batch).logits, before, rtol=0, atol=0)
