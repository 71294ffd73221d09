"""Prediction of masked tokens."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PerceiverTokenizer, PreTrainedTokenizerFast

from perceiver_plugins.text.fill_mask import MaskFiller, MaskPredictor
from perceiver_plugins.text.model import LanguageModel
from perceiver_plugins.text.reading import TextReader
from perceiver_plugins.text.samples import FillMaskSamples
from perceiver_plugins.text.tokenizers import serialize_tokenizer
from perceiver_registry import LoadedModel, ModelDescription, UserError, load_model, write_model

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
WORDS = ["the", "cat", "sat", "on", "mat", "##s", "a", "dog"]


@pytest.fixture
def wordpiece() -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


@pytest.fixture
def model(text_config, randomise) -> LanguageModel:
    """Byte model with dropout, which reveals training mode."""
    sizes = {"vocab_size": 262, "max_seq_len": 23}
    return randomise(LanguageModel(text_config({**sizes, "dropout": 0.5}, {**sizes, "dropout": 0.5})))


@pytest.fixture
def word_model(text_config, randomise, wordpiece) -> LanguageModel:
    sizes = {"vocab_size": len(wordpiece), "max_seq_len": 9}
    return randomise(LanguageModel(text_config(sizes, sizes)))


@pytest.fixture
def filler(model) -> MaskFiller:
    return MaskFiller(model, PerceiverTokenizer())


def test_model_that_is_loaded_by_its_source_fills_the_same(model, tmp_path):
    model.eval()
    write_model(LoadedModel(model, ModelDescription.create("mlm", model.config)), str(tmp_path / "m.safetensors"))
    loaded = load_model(str(tmp_path / "m.safetensors"))
    assert not isinstance(loaded, LanguageModel)
    texts = ["a[MASK]c", "[MASK][MASK] of the list[MASK]"]
    assert MaskFiller(loaded, PerceiverTokenizer()).fill(texts) == MaskFiller(model, PerceiverTokenizer()).fill(texts)


@torch.no_grad()
def expected_probabilities(model, tokenizer, text: str, special: bool = False) -> torch.Tensor:
    """Probabilities (masks, vocabulary) of a single text, decoded at all positions."""
    model.eval()
    ids = tokenizer(text, add_special_tokens=special, return_tensors="pt")["input_ids"]
    logits = model(ids)[ids == tokenizer.mask_token_id]
    logits[:, tokenizer.all_special_ids] = -torch.inf
    return logits.softmax(dim=-1)


def test_guesses_are_most_probable_tokens(filler, model):
    (filling,) = filler.fill(["näh <mask>b[MASK]"], top_k=4)
    expected = expected_probabilities(model, filler.tokenizer, "näh [MASK]b[MASK]")
    assert len(filling.masks) == 2
    for guesses, probabilities in zip(filling.masks, expected, strict=True):
        values, ids = probabilities.topk(4)
        assert [guess.probability for guess in guesses] == pytest.approx(values.tolist(), rel=1e-4)
        assert [guess.token for guess in guesses] == [filler.tokenizer.decode([i]) for i in ids.tolist()]
    best = expected.argmax(dim=-1).tolist()
    ids = filler.tokenizer("näh [MASK]b[MASK]", add_special_tokens=False)["input_ids"]
    mask = filler.tokenizer.mask_token_id
    filled = [best.pop(0) if i == mask else i for i in ids]
    assert filling.filled == filler.tokenizer.decode(filled)
    assert filling.text == "näh <mask>b[MASK]"


def test_batches_equal_single_texts(filler):
    texts = [f"{'x' * (number % 15)}<mask>{number}" + "<mask>" * (number % 3) for number in range(70)]
    together = filler.fill(texts, top_k=2)
    assert [filling.text for filling in together] == texts
    for text, filling in list(zip(texts, together, strict=True))[::13]:
        (expected,) = filler.fill([text], top_k=2)
        assert [len(guesses) for guesses in filling.masks] == [2] * text.count("<mask>")
        for guesses, others in zip(filling.masks, expected.masks, strict=True):
            assert [guess.token for guess in guesses] == [guess.token for guess in others]
            probabilities = [guess.probability for guess in others]
            assert [guess.probability for guess in guesses] == pytest.approx(probabilities, rel=1e-4)


def test_special_tokens_are_never_guessed(filler):
    ((guesses,),) = (filling.masks for filling in filler.fill(["a<mask>"], top_k=1000))
    likely = [guess for guess in guesses if guess.probability > 0]
    assert len(likely) == 256
    assert sum(guess.probability for guess in likely) == pytest.approx(1)
    assert not {guess.token for guess in likely} & set(filler.tokenizer.all_special_tokens)


@pytest.mark.parametrize(
    ("text", "message"), [("abc", "'abc': no <mask> or"), ("<mask>" + "x" * 23, "24 tokens, more")]
)
def test_invalid_texts_are_refused(filler, text, message):
    with pytest.raises(UserError, match=message):
        filler.fill(["good <mask>", text])


def test_text_of_full_length_is_filled(filler):
    (filling,) = filler.fill(["<mask>" + "x" * 22])
    assert filling.filled.endswith("x" * 22)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("texts", [["a<mask>"], ["no mask"]])
def test_training_mode_is_restored(filler, model, training, texts):
    model.train(training)
    try:
        filler.fill(texts)
    except UserError:
        assert texts == ["no mask"]
    assert model.training is training


def test_empty_list_of_texts(filler):
    assert filler.fill([]) == []


@pytest.mark.parametrize("special", [True, False])
def test_word_pieces_are_filled(word_model, wordpiece, special):
    filler = MaskFiller(word_model, wordpiece, add_special_tokens=special)
    (filling,) = filler.fill(["the <mask> sat on [MASK] mats"], top_k=3)
    expected = expected_probabilities(word_model, wordpiece, "the [MASK] sat on [MASK] mats", special)
    for guesses, probabilities in zip(filling.masks, expected, strict=True):
        assert [guess.token for guess in guesses] == [wordpiece.decode([i]) for i in probabilities.topk(3).indices]
    assert "[" not in filling.filled
    assert filling.filled.startswith("the ")
    assert filling.filled.endswith(" mats")


def test_predictor_uses_tokenizer_of_checkpoint(word_model, wordpiece):
    class Module:
        model = word_model

    data = {"tokenizer": serialize_tokenizer(wordpiece), "add_special_tokens": True}
    predictor = MaskPredictor(Module(), TextReader(data, word_model.input_adapter), top_k=2)
    predictions = predictor.predict(["the <mask>", "a [MASK] <mask>"])
    (filling,) = MaskFiller(word_model, wordpiece, True).fill(["the <mask>"], top_k=2)
    assert predictions[0]["filled"] == filling.filled
    assert predictions[0]["masks"] == [
        [{"token": guess.token, "probability": pytest.approx(guess.probability)} for guess in filling.masks[0]]
    ]
    rows = list(predictor.rows(predictions))
    assert [(row["filled"], row["mask"]) for row in rows] == [
        (predictions[0]["filled"], "1"),
        (predictions[1]["filled"], "1"),
        ("", "2"),
    ]
    with pytest.raises(UserError, match="its data has no tokenizer"):
        TextReader({}, word_model.input_adapter)


def test_samples_show_masked_and_filled_text(word_model, wordpiece):
    class Trainer:
        sanity_checking = False

        class datamodule:  # noqa: N801
            tokenizer = wordpiece

    class Module:
        model = word_model.eval()

    ids = wordpiece(["the cat sat", "a dog"], padding=True, add_special_tokens=False, return_tensors="pt")
    labels = torch.full_like(ids["input_ids"], -100)
    labels[0, 1] = ids["input_ids"][0, 1]
    labels[1, 0] = ids["input_ids"][1, 0]
    masked = ids["input_ids"].clone()
    masked[0, 1] = wordpiece.mask_token_id  # the other token is kept, not masked
    batch = {"input_ids": masked, "attention_mask": ids["attention_mask"], "labels": labels}
    samples = FillMaskSamples(num_samples=5)
    samples.on_validation_batch_end(Trainer, Module, None, batch, 0)
    (before, after), (before_2, _) = samples.samples
    guess = word_model(masked, ids["attention_mask"])[0, 1].argmax()
    assert before == "the ▒ sat"
    assert after == wordpiece.decode([wordpiece.vocab["the"], guess, wordpiece.vocab["sat"]])
    assert before_2 == "▒ dog"
    FillMaskSamples(num_samples=0).on_validation_batch_end(Trainer, Module, None, batch, 0)
