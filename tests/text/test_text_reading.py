"""Reader of texts for prediction, and pages of attention maps."""

from __future__ import annotations

import gzip
import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PerceiverTokenizer, PreTrainedTokenizerFast

from perceiver_plugins.text.adapters import TextInputAdapter
from perceiver_plugins.text.data import LabelledTextFilesDataModule
from perceiver_plugins.text.reading import TextReader
from perceiver_registry.errors import UserError

WORDS = "the film isn't worth seeing twice, naïve 日本 😀 unhappily"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))


def make_reader(
    tmp_path: Path, max_positions: int = 512, **options: Any
) -> tuple[TextReader, LabelledTextFilesDataModule]:
    """Reader, and the data module whose description it was created from."""
    for name in ("train", "val"):
        rows = [{"text": f"{WORDS} {number}", "label": number % 2} for number in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = [str(tmp_path / f"{name}.jsonl") for name in ("train", "val")]
    module = LabelledTextFilesDataModule(*files, **{"target": "class", "max_seq_len": 512, "batch_size": 4, **options})
    description = json.loads(json.dumps(module.description()))
    return TextReader(description, TextInputAdapter(300, max_positions, 8)), module


def wordpiece() -> PreTrainedTokenizerFast:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "film", "un", "##happy", "##ily", "happy"]
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")},
    )


def byte_pairs() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([WORDS] * 3, trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="!", mask_token="?")


TOKENIZERS = {"bytes": PerceiverTokenizer, "wordpiece": wordpiece, "byte pairs": byte_pairs}


@pytest.mark.parametrize(
    ("tokenizer", "max_seq_len", "side", "special"),
    [  # all pairs of options
        ("bytes", 20, "left", True),
        ("bytes", 512, "right", False),
        ("wordpiece", 20, "right", True),
        ("wordpiece", 512, "left", False),
        ("byte pairs", 20, "left", False),
        ("byte pairs", 512, "right", True),
    ],
)
@pytest.mark.filterwarnings("ignore:.*tokens. the model reads")
def test_texts_are_read_as_in_training(
    tokenizer: str, max_seq_len: int, side: str, special: bool, tmp_path: Path
) -> None:
    reader, module = make_reader(
        tmp_path,
        tokenizer=TOKENIZERS[tokenizer](),
        max_seq_len=max_seq_len,
        truncation_side=side,
        padding_side=side,
        add_special_tokens=special,
        add_eos_token=special and tokenizer != "byte pairs",
    )
    module.setup()
    expected = next(iter(module.val_dataloader()))
    batch = reader.collate([reader.read(f"{WORDS} {number}") for number in range(4)])
    assert set(batch) == {"input_ids", "attention_mask"}
    assert all(torch.equal(batch[name], expected[name]) for name in batch)
    assert batch["input_ids"].shape[1] <= max_seq_len


def test_long_texts_are_cut_with_one_warning(tmp_path: Path) -> None:
    reader, _ = make_reader(tmp_path, max_positions=10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(reader.read("0123456789").input_ids) == 10
        assert not caught
        for _ in range(3):
            assert reader.read("0123456789é").text == "0123456789é"
    assert [str(warning.message) for warning in caught] == [
        "'0123456789é' has 12 tokens: the model reads its beginning only, as its input is limited to 10 tokens (not "
        "repeated for other long texts)"
    ]


# inputs


def test_inputs_are_files_folders_patterns_or_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reader, _ = make_reader(tmp_path)
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / "b.txt").write_bytes("\ufeffZwei\r\nZeilen é".encode())
    (folder / "a.txt.gz").write_bytes(gzip.compress(b"compressed"))
    (folder / "more" / "c.txt").write_text("c")
    (folder / "notes.md").write_text("# Notes")
    (folder / "plain").write_text("no suffix")
    texts = [
        "b.txt",
        "what is in b.txt",
        "much more",
        "notes.md",
        "nothing.md",
        "Really?",
        "",
        "plain",
        "x" * 5000,
        "a\0b",
    ]
    assert reader.expand(texts) == texts
    read = {name: reader.read(name).text for name in texts if name and len(name) < 100}
    assert read == {
        **{name: name for name in read},
        "b.txt": "Zwei\nZeilen é",
        "notes.md": "# Notes",
        "plain": "no suffix",
    }
    assert reader.expand(["*.txt", "./more", "more", "*.txt.gz"]) == ["b.txt", "more/c.txt", "more/c.txt", "a.txt.gz"]
    with caplog.at_level("INFO"):
        everything = reader.expand([str(folder)])
    assert "2 files left out: 1 .md, 1 without ending; texts end in .txt" in caplog.text
    assert everything == [str(folder / name) for name in ("a.txt.gz", "b.txt", "more/c.txt")]
    assert [reader.read(name).text for name in everything] == ["compressed", "Zwei\nZeilen é", "c"]
    monkeypatch.setenv("HOME", str(folder))
    assert reader.expand(["~/b.txt"]) == [str(folder / "b.txt")]


def test_unreadable_inputs_are_refused(tmp_path: Path) -> None:
    reader, _ = make_reader(tmp_path)
    (tmp_path / "review.txt").write_text("good")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\0\1")
    (tmp_path / "latin.txt").write_bytes(b"\xe9t\xe9")
    (tmp_path / "folder").mkdir()
    for name, message in {
        f"{tmp_path}/*.txt.xz": "input: no file matches",
        f"{tmp_path}/folder": "folder: no .txt files in the folder",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            reader.expand(["a text", name])
        assert "\n" not in str(caught.value)
    for name, message in {
        f"{tmp_path}/reviw.txt": "input: file .*reviw.txt not found .*'review.txt'",
        f"{tmp_path}/empty.txt": "no text",
        f"{tmp_path}/binary.txt": "binary file",
        f"{tmp_path}/latin.txt": "not UTF-8 text",
        f"{tmp_path}/tran.jsonl": "input: file .*tran.jsonl not found .*'train.jsonl'",
        "": "no text to read",
        "caf\udce9": "not UTF-8 text",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            reader.read(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_rows_of_a_table_are_texts(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"label": ["x", "y"], "review": ["good", "not, good"]})
    name = str(tmp_path / f"reviews{suffix}")
    if suffix == ".parquet":
        frame.to_parquet(name)
    elif suffix in (".csv", ".tsv"):
        frame.to_csv(name, sep="," if suffix == ".csv" else "\t", index=False)
    else:
        frame.to_json(name, orient="records", lines=True)
    reader = TextReader({**make_reader(tmp_path)[0].data, "text_column": "review"}, TextInputAdapter(300, 512, 8))
    sources = reader.expand(["a text", name])
    assert sources == ["a text", f"{name}:1", f"{name}:2"]
    assert [reader.read(source).text for source in sources] == ["a text", "good", "not, good"]
    assert list(reader.sources(iter([name]))) == sources[1:]


def test_broken_rows_of_a_table_are_refused(tmp_path: Path) -> None:
    reader, module = make_reader(tmp_path)
    assert module.description()["text_column"] == "text"
    (tmp_path / "columns.csv").write_text("review,label\ngood,1\n")
    (tmp_path / "empty.csv").write_text("text,label\n")
    (tmp_path / "rows.csv").write_text("text,label\ngood,1\nbad\n")
    (tmp_path / "types.jsonl").write_text('{"text": 1}\n{"text": ""}\n')
    for name, message in {
        "columns.csv": "columns.csv: no column 'text'; text_column must be one of: review, label",
        "empty.csv": "empty.csv: no rows",
        "rows.csv": "rows.csv, line 3: 1 values, fewer than the 2 columns",
        "types.jsonl": "types.jsonl, line 1: 'text' must be text",
    }.items():
        sources = reader.expand([str(tmp_path / name)])
        assert sources[-1] == str(tmp_path / name) or len(sources) == 2
        with pytest.raises(UserError, match=re.escape(message)):
            reader.read(sources[0 if name == "types.jsonl" else -1])
    with pytest.raises(UserError, match=r"types\.jsonl:2: no text to read"):
        reader.read(sources[1])


def test_delimiter_of_the_training_data_is_used(tmp_path: Path) -> None:
    reader, _ = make_reader(tmp_path)
    for name in ("train.csv", "val.csv"):
        (tmp_path / name).write_text(f"text;label\na {name};0\nb {name};1\n")
    files = [str(tmp_path / name) for name in ("train.csv", "val.csv")]
    module = LabelledTextFilesDataModule(*files, delimiter=";", target="class")
    reader = TextReader(module.description(), reader.input_adapter)
    assert [reader.read(source).text for source in reader.expand(files)][1:3] == ["b train.csv", "a val.csv"]


def test_description_without_tokenizer_is_refused() -> None:
    with pytest.raises(UserError, match="its data has no tokenizer"):
        TextReader({"image_size": [3, 3]}, SimpleNamespace())  # type: ignore[arg-type]


# tokens and attention maps


def test_joined_tokens_are_the_text(tmp_path: Path) -> None:
    for name, make in TOKENIZERS.items():
        reader, _ = make_reader(tmp_path, tokenizer=make())
        for text in (WORDS, "日本", "e", " the  film\n", "happy unhappily film"):
            example = reader.read(text)
            tokens = reader.tokens(example)
            assert len(tokens) == len(example.input_ids)
            assert "".join(tokens) == (text.rstrip() if name == "wordpiece" else text).lstrip(
                " " if name == "wordpiece" else ""
            )


def test_tokens_of_texts(tmp_path: Path) -> None:
    reader, _ = make_reader(tmp_path, add_special_tokens=True)
    assert reader.tokens(reader.read("aé日")) == ["[CLS]", "a", "é", "", "日", "", "", "[SEP]"]
    reader, _ = make_reader(tmp_path, tokenizer=wordpiece(), add_special_tokens=True)
    assert reader.tokens(reader.read("The unhappy  film!")) == ["[CLS]", "The", " un", "happy", "  film", "!", "[SEP]"]
    reader, _ = make_reader(tmp_path, max_seq_len=3, truncation_side="left")
    with pytest.warns(UserWarning, match="reads its end only"):
        example = reader.read("日b")
    assert reader.tokens(example) == ["日", "", "b"]


class Page(HTMLParser):
    """Parsed page: (text, colour) of each span by section, texts by tag, all attributes and tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sections: list[list[tuple[str, float]]] = []
        self.texts: dict[str, str] = {}
        self.attributes: list[str] = []
        self.tags: set[str] = set()
        self._open: list[str] = []
        self._colour = 0.0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "section":
            self.sections.append([])
        if tag == "span":
            colour = re.search(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", dict(attrs)["style"] or "")
            assert colour
            self._colour = float(colour[1])
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        tag = self._open[-1] if self._open else ""
        if tag == "span":
            self.sections[-1].append((data, self._colour))
        self.texts[tag] = data


def test_attention_page(tmp_path: Path) -> None:
    reader, _ = make_reader(tmp_path, add_special_tokens=True)
    text = "<b>é & x"
    example = reader.read(text)
    weights = torch.arange(1.0, 14.0)  # 11 tokens, then padding
    layers = [weights / weights.sum(), torch.full((13,), 1 / 13)]
    path = reader.draw_attention(text, example, layers, tmp_path / "v1.5 text")
    assert path == tmp_path / "v1.5 text.html"
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert page.texts["title"] == "Attention: <b>é & x"
    assert page.texts["h1"] == text
    pieces = ["[CLS]", *text, "[SEP]"]
    assert [[piece for piece, _ in section] for section in page.sections] == [pieces] * 2
    # the two bytes of é are one span
    expected = [1, 2, 3, 4, 5 + 6, 7, 8, 9, 10, 11]
    assert [colour for _, colour in page.sections[0]] == pytest.approx([value / 11 for value in expected], abs=1e-3)
    assert [colour for _, colour in page.sections[1]] == pytest.approx([0.5] * 4 + [1.0] + [0.5] * 5, abs=1e-3)
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert not {"src", "href"} & set(page.attributes)
    assert "url(" not in source
    assert "://" not in source


def test_attention_page_with_padding_on_the_left(tmp_path: Path) -> None:
    reader, _ = make_reader(tmp_path, padding_side="left")
    weights = torch.tensor([0.0, 0.0, 0.25, 0.75])
    path = reader.draw_attention("ab", reader.read("ab"), [weights], tmp_path / "text")
    [section] = Page(path.read_text(encoding="utf-8")).sections
    assert section == [("a", pytest.approx(0.333)), ("b", 1.0)]


def test_long_source_is_shortened_in_title(tmp_path: Path) -> None:
    reader, _ = make_reader(tmp_path)
    example = reader.read("word " * 50)
    path = reader.draw_attention("word " * 50, example, [torch.zeros(250)], tmp_path / "text")
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.texts["h1"]) == 63
    assert "".join(piece for piece, _ in page.sections[0]) == "word " * 50


# long texts


@pytest.mark.parametrize(
    ("tokenizer", "side", "special"),
    [
        ("bytes", "left", False),
        ("bytes", "right", True),
        ("wordpiece", "left", True),
        ("wordpiece", "right", False),
        ("byte pairs", "left", False),
        ("byte pairs", "right", True),
    ],
)
@pytest.mark.filterwarnings("ignore:.*tokens. the model reads")
def test_part_of_a_long_text_is_tokenized(tokenizer: str, side: str, special: bool, tmp_path: Path) -> None:
    """The result equals that of tokenizing the whole text."""
    options = {"tokenizer": TOKENIZERS[tokenizer](), "max_seq_len": 20, "add_special_tokens": special}
    reader, _ = make_reader(tmp_path, truncation_side=side, **options)
    words = [WORDS, "happy", "the   film\n", "unhappily"]
    text = " ".join(words[number * number % 7 % 4] for number in range(3000))
    (tmp_path / "long.txt").write_text(text, encoding="utf-8")
    ids, _ = reader.encoder.encode_with_spans(text)
    room = 20 - len(reader.encoder.prefix) - len(reader.encoder.suffix)
    kept = ids[-room:] if side == "left" else ids[:room]
    expected = [*reader.encoder.prefix, *kept, *reader.encoder.suffix]
    for source in (text, str(tmp_path / "long.txt")):
        example = reader.read(source)
        assert example.input_ids.tolist() == expected
        assert len(example.text) < len(text) / 10
        assert "".join(reader.tokens(example)).strip("[CLS]").strip("[SEP]").strip() in text


def test_text_without_white_space_is_bounded(tmp_path: Path) -> None:
    reader, _ = make_reader(tmp_path, tokenizer=wordpiece(), max_seq_len=20)
    with pytest.warns(UserWarning, match="more than 20 tokens"):
        example = reader.read("x" * 500_000 + " the film")
    assert example.input_ids.tolist() == [1]  # [UNK]
    assert len(example.text) == 2**16
