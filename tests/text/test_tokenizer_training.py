"""Tokenizers trained on the user's texts."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from environments import run_code

from perceiver_plugins.sdk.data.files import Piece
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text import tokenizer_training
from perceiver_plugins.text.data import (
    HubTextDataModule,
    LabelledHubTextDataModule,
    LabelledTextFilesDataModule,
    LanguagesDataModule,
    MaskedLanguagesDataModule,
    TextFilesDataModule,
)
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.languages import language_texts
from perceiver_plugins.text.data.prepared import write_documents
from perceiver_plugins.text.tokenizer_training import (
    SPECIAL_TOKENS,
    TokenizerTraining,
    canonical_unigram,
    choose_kind,
    sample_pieces,
    unrepeated_share,
)
from perceiver_plugins.text.tokenizers import (
    PERCEIVER_TOKENIZER,
    check_words,
    deserialize_tokenizer,
    serialize_tokenizer,
)
from perceiver_registry.errors import UserError

KINDS = ("bpe", "unigram", "word")

TEXTS = (
    "The quick brown fox, isn't it? The fox!  Two  spaces\n\tand\r\nlines",
    "naïve café\u00a0№ 5, Straße, cafe\u0301",
    "日本語のテキスト 中文 😀👍🏽 ok",
    "हिन्दी में लिखा है और பின்னர் தமிழ், می‌خواهم",
    "ภาษาไทยไม่มีช่องว่าง",
    "Ωμέγα и язык İstanbul",
)
"""Texts of many scripts, of which a tokenizer trained on them loses nothing."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))


def train(kind: str, texts: Any = TEXTS, vocab_size: int = 500) -> Any:
    return TokenizerTraining(kind, vocab_size).train(Piece(text) for text in [*texts, *texts])


def words_of(text: str) -> list[str]:
    """Split a text into words by the categories and names of its characters, in lower case."""
    words: list[str] = []
    previous = ""
    for character in unicodedata.normalize("NFC", text).lower():
        category, script = unicodedata.category(character), unicodedata.name(character, "").split(" ")[0]
        kind = "word" if category[0] in "LM" or category in ("Nd", "Pc", "Cf") else "other"
        if script in ("CJK", "HIRAGANA", "KATAKANA", "THAI") and kind == "word":
            kind = "unspaced"
        if (kind == previous == "word") or (category[0] == "M" and previous):
            words[-1] += character
        elif not character.isspace():
            words.append(character)
            previous = kind
        if character.isspace():
            previous = ""
    return words


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("text", TEXTS)
def test_encoded_text_decodes_to_itself(kind: str, text: str) -> None:
    tokenizer = train(kind)
    assert tokenizer.decode(DocumentEncoder(tokenizer, False).encode([text])[0].tolist()) == text


def test_bytes_encode_texts_unlike_the_training_texts() -> None:
    tokenizer = train("bpe", ["a small text"])
    text = "Ünlike 日本 \x00 😀"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize("text", TEXTS)
def test_words_of_all_scripts(text: str) -> None:
    tokenizer = train("word")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == words_of(text)


def test_word_vocabulary_has_the_most_frequent_words() -> None:
    texts = [" ".join(random.Random(seed).choices("abcdefghijklmnop", range(1, 17), k=40)) for seed in range(5)]
    tokenizer = TokenizerTraining("word", 17).train(map(Piece, texts))
    counts = Counter(" ".join(texts).split())
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:10]
    assert tokenizer.convert_ids_to_tokens(range(7, 17)) == expected


def test_words_that_occur_once_are_unknown() -> None:
    tokenizer = TokenizerTraining("word").train([Piece("twice once"), Piece("twice")])
    assert set(tokenizer.get_vocab()) == {*SPECIAL_TOKENS.values(), "twice"}


def word_texts(num_repeated: int, num_single: int) -> list[str]:
    """Texts with two occurrences of each of some words and one of each of others."""
    return [f"Again{number} AGAIN{number}" for number in range(num_repeated)] + [f"once{n}" for n in range(num_single)]


@pytest.mark.parametrize(("num_single", "model"), [(0, "WordLevel"), (2, "WordLevel"), (3, "BPE")])
def test_words_or_byte_pairs_by_the_share_of_unrepeated_words(num_single: int, model: str) -> None:
    texts = word_texts(9, num_single)  # 0, 10 and 14 percent
    assert unrepeated_share(texts) == pytest.approx(num_single / (18 + num_single))
    tokenizer = TokenizerTraining("auto").train(map(Piece, texts))
    assert json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"] == model
    expected = TokenizerTraining("word" if model == "WordLevel" else "bpe").train(Piece(text.lower()) for text in texts)
    encoded = tokenizer("Again3 ONCE1", add_special_tokens=False)["input_ids"]
    assert encoded == expected("again3 once1", add_special_tokens=False)["input_ids"]


def test_choice_by_the_first_texts_keeps_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_training, "SAMPLE_CHARACTERS", 10)
    kind, texts = choose_kind(iter(["again again", "once", "twice"]))
    assert (kind, list(texts)) == ("word", ["again again", "once", "twice"])


@pytest.mark.parametrize("texts", [[], [" "]])
def test_texts_without_words_get_byte_pairs(texts: list[str]) -> None:
    assert choose_kind(iter(texts))[0] == "bpe"


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens(kind: str) -> None:
    tokenizer = train(kind)
    assert tokenizer.special_tokens_map == SPECIAL_TOKENS
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS.values())) == [*range(7)]
    assert tokenizer.pad_token_id == 0
    ids = tokenizer("fox")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    check_words(tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_serialized_tokenizer_is_restored_exactly(kind: str) -> None:
    tokenizer = train(kind)
    state = serialize_tokenizer(tokenizer)
    restored = deserialize_tokenizer(json.loads(json.dumps(state)))
    assert serialize_tokenizer(restored) == state
    masked = "The [MASK] fox"
    assert restored(masked)["input_ids"] == tokenizer(masked)["input_ids"]
    if kind != "word":  # the mask includes the space before it, as do words
        tokens = restored.convert_ids_to_tokens(restored(masked)["input_ids"])
        assert tokens[tokens.index("[MASK]") - 1].endswith("e")


TRAIN = """
import hashlib, random, sys
from perceiver_plugins.sdk.data.files import Piece
from perceiver_plugins.text.tokenizer_training import TokenizerTraining
from perceiver_plugins.text.tokenizers import serialize_tokenizer
rng = random.Random(0)
words = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 9))) for _ in range(400)]
texts = [" ".join(rng.choices(words, k=30)) for _ in range(300)] + ["".join(map(chr, range(0x4E00, 0x4E80)))]
for kind in ("bpe", "unigram", "word"):
    state = serialize_tokenizer(TokenizerTraining(kind, 420).train(map(Piece, texts)))
    print(hashlib.sha256(state["json"].encode()).hexdigest())
"""


@pytest.mark.slow
def test_training_is_the_same_in_all_processes_and_threads(capsys: pytest.CaptureFixture[str]) -> None:
    hashes = run_code(TRAIN, RAYON_NUM_THREADS="3", TOKENIZERS_PARALLELISM="true")
    exec(TRAIN, {})
    assert hashes == capsys.readouterr().out
    assert len(set(hashes.split())) == 3


def test_order_of_unigram_characters_is_canonical() -> None:
    special = [(token, 0.0) for token in SPECIAL_TOKENS.values()]
    one = [*special, ("ab", -1.5), ("a", -3.0), ("b", -2.9999), ("c", -2.9998)]
    two = [*special, ("ab", -1.5 + 1e-13), ("c", -3.0), ("a", -2.9999), ("b", -2.9998)]
    assert canonical_unigram(one) == canonical_unigram(two)
    assert canonical_unigram(one)[7:] == [("ab", -1.5), ("a", -3.0), ("b", -3.0), ("c", -3.0)]


# Errors


@pytest.mark.parametrize(
    ("kind", "vocab_size", "message"),
    [
        ("foo", 500, "tokenizer: must be train:auto, train:bpe, train:unigram or train:word, got 'train:foo'"),
        ("", 500, "tokenizer: must be train:auto, train:bpe, train:unigram or train:word, got 'train:'"),
        ("bpe", 262, "vocab_size=262: must be at least 263 with tokenizer=train:bpe"),
        ("unigram", 7, "vocab_size=7: must be at least 8"),
        ("word", -1, "vocab_size=-1: must be at least 8"),
        ("unigram", 30, "vocab_size=30: too small for the different characters"),
    ],
)
def test_invalid_options(kind: str, vocab_size: int, message: str) -> None:
    with pytest.raises(UserError) as raised:
        train(kind, vocab_size=vocab_size)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("texts", "message"), [([], "no text in"), (["one two three"], "no word that occurs 2 times in")]
)
def test_texts_that_are_too_few(kind: str, texts: list[str], message: str) -> None:
    if kind != "word" and texts:
        pytest.skip("single characters are tokens")
    if kind == "bpe":
        pytest.skip("single bytes are tokens")
    with pytest.raises(DataError, match=f"tokenizer: train:{kind} finds {message}"):
        TokenizerTraining(kind).train(map(Piece, texts))


@pytest.mark.parametrize("kind", KINDS)
def test_spans_leave_out_the_space_before_a_word(kind: str) -> None:
    text = "  fox fox,\n fox "
    _, spans = DocumentEncoder(train(kind, ["fox fox, fox"]), False).encode_with_spans(text)
    pieces = [text[start:stop] for start, stop in spans.tolist()]
    visible = [piece for piece in pieces if piece.strip()]
    assert "".join(visible) == "foxfox,fox"
    assert len(visible) == 4 or kind == "unigram"


# Data modules

SOURCES = ["masked files", "masked folder", "stream", "class files", "class folder", "numbers", "tokens"]

CASES = [
    (source, kind, bool((row + column) % 2)) for row, source in enumerate(SOURCES) for column, kind in enumerate(KINDS)
]
"""All pairs of data, kind of tokenizer, and validation data that is held out or given."""


def row_of(number: int) -> dict[str, Any]:
    """Return a row with labels of all kinds, whose text has a word of its own."""
    words = f"only{number} Two only{number}, {'good' if number % 2 else 'bad'} words".split()
    return {
        "text": " ".join(words),
        "label": number % 2,
        "score": number / 7,
        "tokens": words,
        "tags": [index % 2 for index in range(len(words))],
    }


def write(path: Path, numbers: range) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row_of(number)) + "\n" for number in numbers), encoding="utf-8")
    return str(path)


def create(source: str, folder: Path, kind: str, held_out: bool, **more: Any) -> Any:
    """Create a data module of 40 rows for training, and 7 for validation if they are not held out."""
    train = write(folder / "train.jsonl", range(40))
    val = None if held_out else write(folder / "validation.jsonl", range(40, 47))
    options: dict[str, Any] = {"tokenizer": f"train:{kind}", "vocab_size": 300, "val_fraction": 0.25, **more}
    files = {"train_files": train, "val_files": val}
    match source.split():
        case ["masked", "files"]:
            return TextFilesDataModule(**files, **options)
        case ["masked", "folder"]:
            return HubTextDataModule(str(folder), mask_words=False, **options)
        case ["stream"]:
            return HubTextDataModule(str(folder), streaming=True, stream_val_docs=10, **options)
        case ["class", "files"]:
            return LabelledTextFilesDataModule(**files, add_special_tokens=True, **options)
        case ["class", "folder"]:
            return LabelledHubTextDataModule(str(folder), **options)
        case ["numbers"]:
            return LabelledTextFilesDataModule(**files, target="number", label_column="score", **options)
    return LabelledTextFilesDataModule(**files, target="token", label_column="tags", **options)


def training_rows(module: Any) -> list[int]:
    """Return the numbers of the rows that are not validation data, in order."""
    split = module.split_datasets["validation"]
    ids = split.tokens.input_ids if hasattr(split, "tokens") else split.documents.input_ids
    decoded = module.tokenizer.decode(ids.tolist())
    validation = set(map(int, re.findall(r"only(\d+)", decoded)))
    return [number for number in range(40) if number not in validation]


@pytest.mark.parametrize(("source", "kind", "held_out"), CASES)
def test_tokenizer_is_trained_on_training_texts_only(source: str, kind: str, held_out: bool, tmp_path: Path) -> None:
    module = create(source, tmp_path / "data", kind, held_out)
    assert module.vocab_size == len(module.tokenizer)
    module.setup()
    rows = [*range(40)]
    if held_out:
        # Words of validation texts are unknown to a tokenizer of words: bytes show which texts are held out.
        plain = create(source, tmp_path / "data", kind, held_out, tokenizer=PERCEIVER_TOKENIZER, vocab_size=None)
        plain.setup()
        rows = training_rows(plain)
        assert len(rows) == 30
    expected = TokenizerTraining(kind, 300).train(Piece(row_of(number)["text"]) for number in rows)
    assert serialize_tokenizer(module.tokenizer) == serialize_tokenizer(expected)


@pytest.mark.parametrize(("source", "kind", "held_out"), CASES)
def test_trained_tokenizer_of_a_model_is_used(
    source: str, kind: str, held_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = create(source, tmp_path / "data", kind, held_out)
    description = json.loads(json.dumps(first.description()))
    monkeypatch.setattr(TokenizerTraining, "train", None)
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "empty"))
    again = create(source, tmp_path / "data", kind, held_out)
    with open(tmp_path / "data" / "train.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({**row_of(99), "text": "other texts"}) + "\n")
    again.inherited = description
    again.setup()
    assert again.description() == description
    batch = next(iter(again.val_dataloader()))
    assert batch["input_ids"].max() < again.vocab_size


@pytest.mark.slow
def test_generated_texts() -> None:
    module = MaskedLanguagesDataModule(tokenizer="train:word", vocab_size=50)
    texts = [text for split, text, _ in language_texts() if split == "train"]
    expected = TokenizerTraining("word", 50).train(map(Piece, texts))
    assert serialize_tokenizer(module.tokenizer) == serialize_tokenizer(expected)


@pytest.mark.parametrize("kind", ["auto", *KINDS])
def test_kind_of_a_tokenizer_is_reported(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("one two three one two three " * 9)
    lines = []
    with caplog.at_level("INFO"):
        for _ in range(2):
            tokenizer = TextFilesDataModule(str(tmp_path / "a.txt"), tokenizer=f"train:{kind}").tokenizer
            lines += [each.message for each in caplog.records if each.message.startswith("tokenizer: ")]
            caplog.clear()
    named = f"{'word' if kind == 'auto' else kind} with {len(tokenizer):,} tokens"
    assert lines == [
        f"tokenizer: trained {named} on 1 texts",
        f"tokenizer: {named}, trained on the same texts before (cached)",
    ]


def test_cached_tokenizer_depends_on_its_options_and_texts(tmp_path: Path) -> None:
    def tokens(kind: str, size: int) -> list[str]:
        module = TextFilesDataModule(write(tmp_path / "a.jsonl", rows), tokenizer=f"train:{kind}", vocab_size=size)
        return sorted(module.tokenizer.get_vocab())

    rows = range(40)
    first = tokens("bpe", 300)
    assert first == tokens("bpe", 300)
    others = [tokens("bpe", 280), tokens("word", 300)]
    rows = range(60, 100)
    others.append(tokens("bpe", 300))
    assert first not in others
    assert len(list((tmp_path / "cache" / "text").glob("tokenizer-*"))) == 4


def test_end_of_a_single_text_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("start start " * 1000 + "end " * 200)
    module = TextFilesDataModule(str(path), tokenizer="train:word", val_fraction=0.05)
    assert set(module.tokenizer.get_vocab()) - {*SPECIAL_TOKENS.values()} == {"start", "end"}
    module = TextFilesDataModule(str(path), tokenizer="train:word", val_fraction=0.1)
    assert set(module.tokenizer.get_vocab()) - {*SPECIAL_TOKENS.values()} == {"start"}


def test_evenly_spaced_texts_of_large_data_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_training, "MAX_CHARACTERS", 2000)
    documents = write_documents(tmp_path / "a.arrow", [Piece("x" * 99 + str(number % 10)) for number in range(100)])
    sampled = [piece.text[99:] for piece in sample_pieces(documents)]
    assert 10 <= len(sampled) <= 20
    assert sampled == [str(number % 10) for number in range(0, 100, -(-documents.data.nbytes // 2000))]


def test_size_of_a_tokenizer_that_is_not_trained_is_an_error() -> None:
    with pytest.raises(UserError, match="vocab_size=300: only a tokenizer that is trained takes a size"):
        LanguagesDataModule(vocab_size=300)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "train:word"}, "tokenizer: train:word cannot be trained, as the model has the tokenizer"),
        ({"tokenizer": "train:bpe", "vocab_size": 263}, "vocab_size=263: smaller than the model's vocabulary"),
    ],
)
def test_options_other_than_the_models_are_errors(options: dict[str, Any], message: str) -> None:
    module = LanguagesDataModule(**options)
    module.inherited = {"tokenizer": serialize_tokenizer(train("bpe"))}
    with pytest.raises(UserError, match=message):
        _ = module.tokenizer
