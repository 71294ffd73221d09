"""Tokenizers: loading, segmentation into words, serialization."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PerceiverTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perceiver_plugins.text.data.encoding import NO_WORD, WORD_REST, WORD_START, DocumentEncoder, byte_word_parts
from perceiver_plugins.text.tokenizers import (
    PERCEIVER_TOKENIZER,
    TokenizerError,
    byte_offset,
    check_words,
    deserialize_tokenizer,
    load_tokenizer,
    mask_token_id,
    serialize_tokenizer,
)

TEXTS = [
    "The quick brown fox, isn't it?",
    "naïve café … Straße\u00a0№ 5",
    "日本語の\u3000テキスト 😀👍🏽 ok",
    "a [MASK] b <mask> [PAD]",
    "",
    " \n\t ",
    "Ωμέγα\u2003и\u2028язык\u1680x\u0085y\u205fz\u202fw",
]


def bert_like() -> PreTrainedTokenizerFast:
    """Small WordPiece tokenizer."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side="left",
        model_max_length=77,
    )


def unsplit() -> PreTrainedTokenizerFast:
    """Tokenizer that does not split text into words, as those of several large language models."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.train_from_iterator(["one two"], trainers.BpeTrainer(special_tokens=["<unk>", "<mask>"]))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", mask_token="<mask>")


def words_of(text: str) -> list[str]:
    """Split a text at characters of white space."""
    return "".join(" " if character.isspace() else character for character in text).split(" ")


def decoded_words(data: bytes, parts: np.ndarray) -> list[str]:
    words: list[bytearray] = []
    for byte, part in zip(data, parts, strict=True):
        if part == WORD_START:
            words.append(bytearray())
        if part != NO_WORD:
            words[-1].append(byte)
    return [word.decode() for word in words]


@pytest.mark.parametrize("text", TEXTS)
def test_byte_words_are_separated_by_white_space(text: str) -> None:
    data = text.encode()
    assert decoded_words(data, byte_word_parts(np.frombuffer(data, np.uint8))) == [w for w in words_of(text) if w]


def test_byte_words_recognise_all_unicode_white_space() -> None:
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        # all white space, and a sample of other characters
        if character.isspace() or code % 97 == 0:
            parts = byte_word_parts(np.frombuffer(f"a{character}b".encode(), np.uint8))
            assert (parts == WORD_START).sum() == (2 if character.isspace() else 1), hex(code)


def test_perceiver_tokenizer_loads_without_download(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(PERCEIVER_TOKENIZER)
    assert isinstance(tokenizer, PerceiverTokenizer)
    assert len(tokenizer) == 262
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = load_tokenizer(str(tmp_path / "saved"))
    # recognised by its tokens, not by its name
    assert byte_offset(tokenizer) == byte_offset(saved) == 6
    check_words(saved)


def test_byte_encoder_equals_tokenizer() -> None:
    tokenizer = PerceiverTokenizer()
    encoder = DocumentEncoder(tokenizer)
    for text in TEXTS:
        if "[" in text:
            continue
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert encoder({"text": [text]})["input_ids"][0].tolist() == expected


def test_spelling_of_special_token_is_encoded_as_bytes() -> None:
    encoded = DocumentEncoder(PerceiverTokenizer())({"text": ["a [MASK] b"]})
    assert bytes((encoded["input_ids"][0] - 6).tolist()).decode() == "a [MASK] b"


def test_each_document_starts_a_word() -> None:
    encoded = DocumentEncoder(PerceiverTokenizer())({"text": ["ab", "", None, "cd", " e"]})
    assert encoded["word_parts"][0].tolist() == [
        WORD_START, WORD_REST, WORD_START, WORD_REST, NO_WORD, WORD_START,
    ]  # fmt: skip
    assert DocumentEncoder(PerceiverTokenizer())({"text": []})["input_ids"] == []
    assert len(DocumentEncoder(PerceiverTokenizer())({"text": [""]})["input_ids"][0]) == 0


@pytest.mark.parametrize("make", [PerceiverTokenizer, bert_like])
def test_special_tokens_enclose_documents_not_pieces(make: type[PreTrainedTokenizerBase]) -> None:
    tokenizer = make()
    encoder = DocumentEncoder(tokenizer, special_tokens=True, end_token=True)
    batch = {"text": ["the ", "fox", "it"], "first": [True, False, True], "last": [False, True, True]}
    ids, parts = (encoder(batch)[name][0].tolist() for name in ("input_ids", "word_parts"))
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    plain = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the ", "fox", "it")]
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert ids == [cls, *plain[0], *plain[1], sep, end, cls, *plain[2], sep, end]
    assert [part for token, part in zip(ids, parts, strict=True) if token in (cls, sep, end)] == [NO_WORD] * 6


def test_words_of_fast_tokenizer() -> None:
    tokenizer = bert_like()
    encoded = DocumentEncoder(tokenizer)({"text": TEXTS[:2]})
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0].tolist())
    starts = [token for token, part in zip(tokens, encoded["word_parts"][0], strict=True) if part == WORD_START]
    assert not any(token.startswith("##") for token in starts)
    assert all(token.startswith("##") or token in starts for token in tokens)


def test_each_token_is_a_word_without_segmentation() -> None:
    parts = DocumentEncoder(unsplit(), words=False)({"text": ["one two"]})["word_parts"][0]
    assert set(parts.tolist()) == {WORD_START}


@pytest.mark.parametrize("make", [PerceiverTokenizer, bert_like])
def test_serialization_round_trip(make: type[PreTrainedTokenizerBase]) -> None:
    tokenizer = make()
    file = io.BytesIO()
    torch.save(serialize_tokenizer(tokenizer), file)
    file.seek(0)
    restored = deserialize_tokenizer(torch.load(file, weights_only=True))
    assert len(restored) == len(tokenizer)
    assert restored.padding_side == tokenizer.padding_side
    assert restored.model_max_length == tokenizer.model_max_length
    assert restored.special_tokens_map == tokenizer.special_tokens_map
    assert restored.all_special_ids == tokenizer.all_special_ids
    for text in TEXTS:
        assert restored(text)["input_ids"] == tokenizer(text)["input_ids"]
        ids = restored(text)["input_ids"]
        assert restored.decode(ids) == tokenizer.decode(ids)


def test_fast_tokenizer_is_loaded_from_folder(tmp_path: Path) -> None:
    bert_like().save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).mask_token == "[MASK]"


def test_bytes_have_a_short_name() -> None:
    assert serialize_tokenizer(load_tokenizer("bytes")) == serialize_tokenizer(load_tokenizer(PERCEIVER_TOKENIZER))


def assert_error(match: str, function: object, *arguments: object) -> None:
    with pytest.raises(TokenizerError, match=match) as caught:
        function(*arguments)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_errors(tmp_path: Path) -> None:
    assert_error(
        "^tokenizer: './nowhere' is not a folder .*or 'bytes', which needs no download", load_tokenizer, "./nowhere"
    )
    assert_error(f"^tokenizer: '{tmp_path}.* could not be loaded from folder", load_tokenizer, str(tmp_path))
    no_mask = PreTrainedTokenizerFast(tokenizer_object=unsplit().backend_tokenizer)
    assert_error("^tokenizer: .* has no mask token", mask_token_id, no_mask)
    assert_error(r"^tokenizer: .* does not split text into words \(pass mask_words=false", check_words, unsplit())
    assert_error(
        "unknown kind of tokenizer 'odd'",
        deserialize_tokenizer,
        serialize_tokenizer(PerceiverTokenizer()) | {"kind": "odd"},
    )
