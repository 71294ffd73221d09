"""``perceiver predict`` for models of images, texts, tokens and tables."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PerceiverTokenizer

from perceiver_plugins.classification.lightning import LitClassifier, LitTokenClassifier
from perceiver_plugins.classification.regression import LitRegressor
from perceiver_plugins.text.tokenizers import deserialize_tokenizer
from perceiver_registry import read_checkpoint


@pytest.fixture
def predict(perceiver):
    """Predicts with a run's latest model."""

    def predict(run, *argv: str):
        return perceiver("predict", f"--ckpt_path={run.last}", *argv)

    return predict


@pytest.fixture
def predictions(predict):
    """Return a function that predicts successfully and parses the JSON output."""

    def predictions(run, *argv: str) -> list[dict]:
        result = predict(run, *argv, "--format=json")
        assert result.code == 0, result.err
        # A slow machine prints progress.
        assert all(line.startswith("Predicting: ") for line in result.err.splitlines()), result.err
        return json.loads(result.out)

    return predictions


def table_rows(text: str) -> list[dict[str, str]]:
    """Parse the rows of a table without empty cells."""
    header, *rows = (re.split(r" {2,}", line.strip()) for line in text.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def answers(module_class, run, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute the module's output for a batch."""
    module = module_class.load_from_checkpoint(run.last, map_location="cpu", weights_only=True).eval()
    with torch.no_grad():
        return module.model(batch)


# Images


@pytest.fixture
def digits(pictures) -> list[str]:
    return [str(pictures / f"{number}.png") for number in range(5)]


@pytest.mark.slow
def test_image_classes_equal_those_of_the_module(image_classifier, load, predictions, digits):
    data = load(image_classifier.last)["perceiver"]["data"]
    pixels = np.stack([np.asarray(Image.open(digit)) for digit in digits])[:, None] / 255
    pixel_values = torch.from_numpy((pixels - data["mean"]) / data["std"]).float()
    expected = answers(LitClassifier, image_classifier, {"pixel_values": pixel_values}).softmax(dim=-1)
    predicted = predictions(image_classifier, *digits, "--top_k=10")
    assert [prediction["input"] for prediction in predicted] == digits
    for prediction, row in zip(predicted, expected, strict=True):
        best, numbers = row.sort(descending=True)
        assert [guess["label"] for guess in prediction["top"]] == [str(number) for number in numbers.tolist()]
        assert [guess["probability"] for guess in prediction["top"]] == pytest.approx(best.tolist(), abs=1e-5)
        assert prediction["top"][0] == {key: prediction[key] for key in ("label", "probability")}
    assert len({round(prediction["probability"], 4) for prediction in predicted}) == len(digits)


def test_files_folders_and_patterns(image_classifier, predictions, pictures):
    def inputs(*argv: str) -> list[str]:
        return [prediction["input"].removeprefix(f"{pictures}/") for prediction in predictions(image_classifier, *argv)]

    everything = ["0.png", "1.png", "2.png", "3.png", "4.png", "more/5.png", "more/6.png", "photo.jpg"]
    assert inputs(str(pictures)) == everything
    assert inputs(f"{pictures}/*.png") == everything[:5]
    assert inputs(f"{pictures}/**/*.png") == everything[:7]
    assert inputs(f"{pictures}/photo.jpg", f"{pictures}/more", f"{pictures}/[01].png") == [
        "photo.jpg", "more/5.png", "more/6.png", "0.png", "1.png",
    ]  # fmt: skip
    assert inputs(f"{pictures}/more", f"{pictures}/more/6.png") == ["more/5.png", "more/6.png"]


@pytest.fixture
def damaged(pictures, tmp_path):
    """Folder with a readable image among damaged files."""
    (tmp_path / "damaged").mkdir()
    good = (pictures / "0.png").read_bytes()
    for name, content in {
        "good.png": good,
        "half.png": good[: len(good) // 2],
        "empty.png": b"",
        "text.png": b"no image",
    }.items():
        (tmp_path / "damaged" / name).write_bytes(content)
    return "damaged"


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_unreadable_images_are_reported_at_the_end(image_classifier, predict, damaged, digits, form):
    inputs = ["missing.png", damaged, digits[1]]
    result = predict(image_classifier, *inputs, f"--format={form}", "--batch_size=2")
    assert result.code == 1
    lines = result.err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["perceiver", f"{name}.png"] for name in ("missing", "damaged/empty", "damaged/half", "damaged/text")
    ]
    assert "No such file" in lines[0]
    assert "not an image" in lines[3]
    rows = {"table": table_rows, "json": json.loads, "csv": csv_rows}[form](result.out)
    assert [row["input"] for row in rows] == ["damaged/good.png", digits[1]]


@pytest.mark.parametrize(("form", "output"), [("table", ""), ("json", "[]\n"), ("csv", "")])
def test_without_readable_inputs(image_classifier, predict, damaged, form, output):
    result = predict(image_classifier, f"{damaged}/half.png", f"--format={form}")
    assert (result.code, result.out) == (1, output)
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("top_k", [1, 3, 10, 99])
def test_output_formats_agree(image_classifier, predict, predictions, pictures, tmp_path, top_k):
    awkward = tmp_path / 'a,"b" <c>.png'
    awkward.write_bytes((pictures / "3.png").read_bytes())
    flags = [str(pictures), str(awkward), f"--top_k={top_k}"]
    predicted = predictions(image_classifier, *flags)

    def expected(digits: str) -> list[dict[str, str]]:
        return [
            {"input": prediction["input"]}
            | {
                f"{key}{f' {rank}' if rank > 1 else ''}": value if key == "label" else format(value, digits)
                for rank, guess in enumerate(prediction["top"], start=1)
                for key, value in guess.items()
            }
            for prediction in predicted
        ]

    assert len(predicted) == 9
    assert len(expected("")[0]) == 1 + 2 * min(top_k, 10)
    assert csv_rows(predict(image_classifier, *flags, "--format=csv").out) == expected("")
    lines = predict(image_classifier, *flags, "--format=jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == predicted
    if top_k < 10:  # a table is no wider than its width
        assert table_rows(predict(image_classifier, *flags).out) == expected(".4f")


def test_batch_size_does_not_change_predictions(image_classifier, predictions, pictures):
    one, three, many = (predictions(image_classifier, str(pictures), f"--batch_size={size}") for size in (1, 3, 100))
    for left, right in ((one, three), (one, many)):
        for a, b in zip(left, right, strict=True):
            assert (a["input"], a["label"]) == (b["input"], b["label"])
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-6)


@pytest.mark.slow
def test_attention_of_images_is_drawn(image_classifier, predictions, pictures, tmp_path):
    plain = predictions(image_classifier, str(pictures))
    drawn = predictions(image_classifier, str(pictures), "--attention=new/drawn", "--batch_size=3")
    files = sorted((tmp_path / "new" / "drawn").iterdir())
    assert [file.name for file in files] == [
        *(f"000{number}-{number}.png" for number in range(7)), "0007-photo.png",
    ]  # fmt: skip
    contents = set()
    for file in files:
        with Image.open(file) as image:
            assert image.format == "PNG"
            assert min(image.size) > 200
            contents.add(image.convert("RGB").tobytes())
    assert len(contents) == len(files)
    for a, b in zip(plain, drawn, strict=True):
        assert (a["input"], a["label"]) == (b["input"], b["label"])
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)


def test_file_names_may_be_any_bytes(image_classifier, predict, undecodable_name):
    name = undecodable_name
    (prediction,) = json.loads(predict(image_classifier, name, "--format=json").out)
    assert prediction["input"] == name
    (row,) = csv_rows(predict(image_classifier, name, "--format=csv").out)
    assert row["input"] == r"stra\udcdfe.png"
    assert "stra" in predict(image_classifier, name).out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["no*.png"], "no file matches 'no*.png'"),
        (["none"], "none: no images (.jpg, .jpeg, .png"),
        (["a.png", "--top_k=0"], "--top_k=0 must be at least 1"),
        (["a.png", "--batch_size=0"], "--batch_size=0 must be at least 1"),
        (["a.png", "--attention=a.png"], "--attention='a.png': the folder cannot be created (File exists)"),
        (["a.png", "--attention"], "--attention: value missing (write --attention=VALUE)"),
        (["a.png", "--format=xml"], "--format: must be 'table', 'csv', 'json', 'jsonl' or 'parquet', got 'xml'"),
        (["a.png", "--format=cvs"], "'jsonl' or 'parquet', got 'cvs' (did you mean 'csv'?)"),
        (["a.png", "--atention=x"], "--atention: unknown flag (did you mean '--attention'"),
        (["a.png", "--input=missing.txt"], "--input=missing.txt: No such file"),
    ],
)
def test_wrong_use_is_one_line(image_classifier, predict, pictures, tmp_path, argv, message):
    (tmp_path / "none").mkdir()
    (tmp_path / "a.png").write_bytes((pictures / "0.png").read_bytes())
    assert message in predict(image_classifier, *argv).error


# Texts


@pytest.fixture
def sentences() -> list[str]:
    return ["näht 44 <b>gut</b>", "schlecht & 3", "gut", "日本 <script>alert(1)</script>"]


@pytest.mark.slow
def test_text_classes_equal_those_of_the_module(text_classifier, predictions, sentences):
    predicted = predictions(text_classifier, *sentences)
    tokenizer = deserialize_tokenizer(read_checkpoint(text_classifier.last)["perceiver"]["data"]["tokenizer"])
    for text, prediction in zip(sentences, predicted, strict=True):
        input_ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        row = answers(LitClassifier, text_classifier, {"input_ids": input_ids}).softmax(dim=-1)[0]
        probabilities = {guess["label"]: guess["probability"] for guess in prediction["top"]}
        assert probabilities == pytest.approx({"gut": row[0].item(), "schlecht": row[1].item()}, abs=1e-5)
        assert (prediction["input"], prediction["label"]) == (text, max(probabilities, key=probabilities.get))
    assert [prediction["label"] for prediction in predicted[:2]] == ["gut", "schlecht"]


@pytest.mark.slow
def test_texts_from_files_and_standard_input(text_classifier, predictions, sentences, tmp_path, monkeypatch):
    direct = predictions(text_classifier, *sentences)
    guesses = [prediction["top"] for prediction in direct]
    (tmp_path / "lines.txt").write_text("\n\n".join(sentences), encoding="utf-8")
    assert predictions(text_classifier, "--input=lines.txt") == direct
    (tmp_path / "folder").mkdir()
    for number, text in enumerate(sentences):
        (tmp_path / "folder" / f"{number}.txt").write_text(text, encoding="utf-8")
    for argv in (["folder/"], ["folder/*.txt"], [f"folder/{number}.txt" for number in range(4)]):
        of_files = predictions(text_classifier, *argv)
        assert [prediction["input"] for prediction in of_files] == [f"folder/{number}.txt" for number in range(4)]
        for prediction, top in zip(of_files, guesses, strict=True):
            assert prediction["top"] == top
    for argv in ([], ["-"]):
        with (tmp_path / "lines.txt").open(encoding="utf-8") as file:
            monkeypatch.setattr("sys.stdin", file)
            assert predictions(text_classifier, *argv) == direct


def test_command_in_a_pipe(text_classifier, start, finish, sentences, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"n\xe4h")
    argv = ["predict", f"--ckpt_path={text_classifier.last}", "latin.txt", sentences[0], "-", "--format=csv"]
    result = finish(start(*argv, cwd=tmp_path), "\n".join(sentences[1:]))
    assert result.code == 1
    assert result.err.splitlines() == [
        "perceiver: latin.txt: not UTF-8 text: invalid byte 0xe4 at byte 1 (convert the file to UTF-8: iconv -t UTF-8)"
    ]
    assert [row["input"] for row in csv_rows(result.out)] == sentences


def test_unreadable_texts_are_reported_at_the_end(text_classifier, predict, reviews, tmp_path):
    (tmp_path / "binary.txt").write_bytes(b"\0\1")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "reviews.csv").write_text("review,label\ngut,gut\n")
    result = predict(text_classifier, "binary.txt", "gut", "empty.txt", "reviews.csv", "")
    assert result.code == 1
    assert [row["input"] for row in table_rows(result.out)] == ["gut"]
    shown = [line.removeprefix("perceiver: ") for line in result.err.splitlines()]
    assert [line.partition(": ")[0] for line in shown] == ["binary.txt", "empty.txt", "reviews.csv", "''"]
    assert "a binary file" in shown[0]
    assert shown[2].startswith("reviews.csv: no column 'text'; text_column must be one of: review, label")


def test_rows_of_a_table_are_predicted(text_classifier, predictions, reviews):
    file = reviews / "test.jsonl"
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    of_rows = predictions(text_classifier, str(file))
    assert [each.pop("input") for each in of_rows] == [f"{file}:{number}" for number in range(1, 10)]
    of_texts = predictions(text_classifier, *texts)
    assert of_rows == [{name: value for name, value in each.items() if name != "input"} for each in of_texts]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_any_column_of_a_table_is_predicted(text_classifier, predict, predictions, tmp_path, suffix):
    texts = ["gut", "schlecht, sehr schlecht", "gut und schlecht"]
    rows = [{"number": number, "review": text} for number, text in enumerate(texts)]
    file = tmp_path / f"reviews{suffix}"
    if suffix == ".csv":
        file.write_text("number,review\n" + "".join(f'{row["number"]},"{row["review"]}"\n' for row in rows))
    else:
        file.write_text("\n".join(map(json.dumps, rows)))
    of_rows = predictions(text_classifier, str(file), "--text_column=review")
    assert [each.pop("input") for each in of_rows] == [f"{file}:{number}" for number in (1, 2, 3)]
    of_texts = predictions(text_classifier, *texts)
    assert of_rows == [{name: value for name, value in each.items() if name != "input"} for each in of_texts]
    result = predict(text_classifier, str(file), "--text_column=revue")
    assert "no column 'revue'; text_column must be one of: number, review (did you mean 'review'?)" in result.err


def test_text_with_several_lines(text_classifier, predict, predictions):
    text = 'gut,\n"näht" \x1b[31m'
    (prediction,) = predictions(text_classifier, text)
    assert prediction["input"] == text
    (row,) = csv_rows(predict(text_classifier, text, "--format=csv").out)
    assert row["input"] == 'gut,\n"näht" \\u001b[31m'
    table = predict(text_classifier, text).out
    assert len(table.splitlines()) == 2
    assert "\x1b" not in table


class Page(HTMLParser):
    """Parser of a page's tags and the text in its paragraphs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.weights: list[float] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._open.append(tag)
        if tag == "span":
            self.weights.append(float(dict(attrs)["title"]))

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "p" in self._open:
            self.text += data


def test_attention_of_texts_is_drawn(text_classifier, predictions, sentences, tmp_path):
    plain = predictions(text_classifier, *sentences)
    drawn = predictions(text_classifier, *sentences, "--attention=pages", "--batch_size=3")
    files = sorted((tmp_path / "pages").iterdir())
    assert [file.name[:5] for file in files] == ["0000-", "0001-", "0002-", "0003-"]
    assert {file.suffix for file in files} == {".html"}
    for text, file in zip(sentences, files, strict=True):
        page = Page(file.read_text(encoding="utf-8"))
        assert page.text == text
        assert not page.tags & {"b", "script"}
        assert sum(page.weights) == pytest.approx(1, abs=1e-3 * len(text))
    for a, b in zip(plain, drawn, strict=True):
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)


def test_filled_masks_as_csv(trained, predict, predictions):
    argv = ["wor<mask> <mask>", "näh[MASK]", "--top_k=1"]
    rows = csv_rows(predict(trained, *argv, "--format=csv").out)
    filled = predictions(trained, *argv)
    assert [row["mask"] for row in rows] == ["1", "2", "1"]
    assert [row["filled"] for row in rows] == [filled[number]["filled"] for number in (0, 0, 1)]
    assert [row["input"] for row in rows] == [argv[0], argv[0], argv[1]]
    guesses = [guesses for filling in filled for (guesses,) in filling["masks"]]
    assert [row["token"] for row in rows] == [guess["token"] for guess in guesses]
    assert [float(row["probability"]) for row in rows] == [guess["probability"] for guess in guesses]
    assert predict(trained, "a<mask>", "--attention=pages").error.startswith("--attention: unknown flag")


# Tokens


@pytest.mark.slow
def test_token_classes_equal_those_of_the_module(token_classifier, predict, predictions):
    texts = ["Anna lives in Köln", "Otto"]
    predicted = predictions(token_classifier, *texts)
    names = ["city", "other", "person"]
    for text, prediction in zip(texts, predicted, strict=True):
        tokens = prediction["tokens"]
        assert "".join(token["token"] for token in tokens) == text
        input_ids = torch.tensor([PerceiverTokenizer()(text, add_special_tokens=False)["input_ids"]])
        best, numbers = answers(LitTokenClassifier, token_classifier, {"input_ids": input_ids}).softmax(-1)[0].max(-1)
        assert [token["label"] for token in tokens] == [names[number] for number in numbers]
        assert [token["probability"] for token in tokens] == pytest.approx(best.tolist(), abs=1e-5)
    assert predicted[0]["tokens"][0]["label"] == "person"

    rows = csv_rows(predict(token_classifier, *texts, "--format=csv").out)
    assert list(rows[0]) == ["input", "text", "label", "mean probability"]
    assert "".join(row["text"] for row in rows) == "".join(texts)
    labels = [token["label"] for prediction in predicted for token in prediction["tokens"] if token["token"]]
    assert [row["label"] for row in rows for _ in row["text"]] == labels


@pytest.mark.slow
def test_attention_of_tokens_is_drawn(token_classifier, predict, tmp_path):
    assert predict(token_classifier, "Anna & <Otto>", "--attention=pages").code == 0
    (file,) = (tmp_path / "pages").iterdir()
    assert Page(file.read_text(encoding="utf-8")).text == "Anna & <Otto>"


# Numbers


def test_numbers_equal_those_of_the_module(regressor, load, table, predict, predictions):
    columns = load(regressor.last)["perceiver"]["data"]["columns"]
    rows = [[float(row[name] or "nan") for name in "ab"] for row in csv_rows(table.read_text())]
    inputs = torch.tensor((np.array(rows) - columns["mean"]) / columns["std"]).float()
    expected = answers(LitRegressor, regressor, {"inputs": inputs})
    predicted = predictions(regressor, str(table), "--batch_size=7")
    assert [prediction["input"] for prediction in predicted] == [f"{table}:{number}" for number in range(1, 41)]
    for name, column in zip("yz", expected.T.tolist(), strict=True):
        assert [prediction[name] for prediction in predicted] == pytest.approx(column, rel=1e-4, abs=1e-5)
        assert len(set(column)) > 5
    rows = csv_rows(predict(regressor, str(table), "--batch_size=7", "--format=csv").out)
    assert rows == [
        {"input": prediction["input"], **{name: str(prediction[name]) for name in "yz"}} for prediction in predicted
    ]
    assert table_rows(predict(regressor, str(table), "--batch_size=7").out) == rows


def test_rows_as_arguments(regressor, predict, predictions, table):
    of_table = predictions(regressor, str(table))
    written = predictions(regressor, "a=2,b=2", "b=4, a=9", "a=3")
    for prediction, row in zip(written, (2, 9, 3), strict=True):
        for name in "yz":
            assert prediction[name] == pytest.approx(of_table[row][name], rel=1e-5, abs=1e-6)
    result = predict(regressor, "c=4", "a=1", "a=x")
    assert result.code == 1
    assert [row["input"] for row in table_rows(result.out)] == ["a=1"]
    first, second = result.err.splitlines()
    assert "no column 'c'; known: a, b" in first
    assert "'a=x'" in second


def test_attention_of_columns_is_drawn(regressor, predict, tmp_path):
    assert predict(regressor, "a=1,b=2", "a=3", "--attention=bars").code == 0
    files = sorted((tmp_path / "bars").iterdir())
    assert [Image.open(file).format for file in files] == ["PNG", "PNG"]


# Models that the command cannot read for


def test_model_with_several_inputs(predict, train):
    inputs = {
        "image": {"adapter": "image-pixels", "num_channels": 1, "max_resolution": [4, 4], "num_frequency_bands": 2},
        "text": {"adapter": "text", "vocab_size": 20, "max_seq_len": 8, "num_input_channels": 8},
    }
    composite = ["--model.encoder=composite", f"--model.encoder.inputs={json.dumps(inputs)}"]
    run = train("--task=classification", "--data=random", *composite, "--trainer.max_steps=1")
    line = predict(run, "a.png").error
    assert line.startswith("input adapter 'composite' ")
    assert line.endswith(": no reader, so its models read no inputs from the command line")


@pytest.mark.slow
def test_model_of_random_images(predict, train):
    run = train("--task=image-classification", "--data=random", "--trainer.max_steps=1")
    error = predict(run, "a.png").error
    assert f"{run.last}: the model was not trained on images" in error
