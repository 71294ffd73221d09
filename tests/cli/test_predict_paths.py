"""``perceiver predict`` on files, folders and archives of each kind of input, and the flags of its tasks."""

from __future__ import annotations

import json
import zipfile

import pytest

from perceiver_cli.prediction import stream
from perceiver_plugins.sdk.prediction.predictor import Predictor


@pytest.fixture
def predictions(perceiver):
    def predictions(run, *argv: str) -> list[dict]:
        result = perceiver("predict", f"--ckpt_path={run.last}", *argv, "--format=json")
        assert (result.code, result.err) == (0, "")
        return json.loads(result.out)

    return predictions


def test_masks_in_files_are_filled(trained, perceiver, predictions, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("näh <mask>")
    (tmp_path / "b.txt").write_text("w[MASK]rd")
    (direct, other) = predictions(trained, "näh <mask>", "w[MASK]rd")
    found = predictions(trained, "texts", "b.txt", "näh <mask>")
    assert [each["input"] for each in found] == ["texts/a.txt", "b.txt", "näh <mask>"]
    assert [each["text"] for each in found] == ["näh <mask>", "w[MASK]rd", "näh <mask>"]
    for each, expected in zip(found, (direct, other, direct), strict=True):
        assert each["filled"] == expected["filled"]
    (tmp_path / "long.txt").write_text("<mask>" + "x" * 200_000)
    result = perceiver("predict", f"--ckpt_path={trained.last}", "b.txt", "missing.txt", "long.txt", "no mask")
    assert result.code == 1
    assert len(result.out.splitlines()) == 2
    missing, long, none = result.err.splitlines()
    assert "file missing.txt not found" in missing
    assert "'long.txt': more tokens than the model's max_seq_len=32" in long
    assert "'no mask': no <mask> or [MASK] to fill in" in none


@pytest.mark.slow
def test_folder_of_texts_without_slash(text_classifier, predictions, tmp_path):
    (as_word,) = predictions(text_classifier, "texts")
    assert as_word["input"] == "texts"
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("näht 4 <b>gut</b>")
    (of_file,) = predictions(text_classifier, "texts")
    (direct,) = predictions(text_classifier, "näht 4 <b>gut</b>")
    assert of_file == direct | {"input": "texts/a.txt"}
    (tmp_path / "list").write_text("texts\ntexts/a.txt\n")
    found = predictions(text_classifier, "--input=list")
    assert [(each["input"], each["label"]) for each in found] == [("texts/a.txt", direct["label"])] * 2
    # Matrix products of a batch of two are not rounded as those of a single text on every CPU.
    assert [each["probability"] for each in found] == pytest.approx([direct["probability"]] * 2)


def test_archive_of_images(image_classifier, predictions, pictures, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number in range(3):
            archive.write(pictures / f"{number}.png", f"photos/{number}.png")
    found = predictions(image_classifier, "photos.zip")
    direct = predictions(image_classifier, *(str(pictures / f"{number}.png") for number in range(3)))
    assert [each["input"] for each in found] == [f"photos.zip/photos/{number}.png" for number in range(3)]
    assert [each["top"] for each in found] == [each["top"] for each in direct]


def test_empty_table_is_reported(regressor, perceiver, tmp_path):
    (tmp_path / "empty.csv").write_text("a,b\n")
    result = perceiver("predict", f"--ckpt_path={regressor.last}", "empty.csv")
    assert (result.code, result.out, result.err) == (1, "", "perceiver: empty.csv: no rows\n")


def test_help_shows_the_flags_of_the_task(text_classifier, perceiver):
    for argv in ([f"--ckpt_path={text_classifier.last}"], ["--task=text-classification"]):
        text = perceiver("predict", *argv, "--help").out
        assert all(f"  --{flag}" in text for flag in ("top_k", "batch_size", "attention", "output", "overwrite"))
        assert text.isprintable() or {c for c in text if not c.isprintable()} == {"\n"}
    text = perceiver("predict", "--help").out
    assert "--top_k TOP_K" not in text
    assert "perceiver predict --ckpt_path=... --help" in " ".join(text.split())


class Old(Predictor):
    """Predictor of a plugin written before predictors streamed."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []

    def predict(self, inputs):
        self.given.append(inputs)
        return [{"input": text} for text in inputs]

    def answers(self, output, examples):
        raise NotImplementedError

    @staticmethod
    def rows(predictions):
        return iter(predictions)


class New(Old):
    def stream(self, inputs):
        return ({"input": text.upper()} for text in inputs)


def test_predictor_without_stream_receives_all_inputs():
    old = Old()
    assert [*stream(old, iter("ab"))] == [{"input": "a"}, {"input": "b"}]
    assert old.given == [["a", "b"]]
    new = New()
    assert [*stream(new, iter("ab"))] == [{"input": "A"}, {"input": "B"}]
    assert new.given == []


BOMB = "[&a [x,x,x,x,x,x,x,x,x]," + ",".join(f"&{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcd", "bcde")) + "]"  # noqa: B905


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (BOMB, "its aliases expand to more than 10000 values"),
        ("&a [*a]", "the alias *a refers to a value that contains it"),
        ("- " * 3000, "nested more than 50 levels deep"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "predict"])
def test_values_beyond_the_limits_are_refused(perceiver, trained, tmp_path, command, value, message):
    flag = "trainer.devices"
    argv = [command, "--task=mlm"] if command == "fit" else [command, f"--ckpt_path={trained.last}"]
    assert perceiver(*argv, f"--{flag}={value}").error == f"--{flag}: {message}"
    assert perceiver(*argv, f"--{flag}", value).error == f"--{flag}: {message}"
    (tmp_path / "c.yaml").write_text(value)
    assert perceiver(*argv, "--config=c.yaml").error == f"--config=c.yaml: {message}"


def test_text_that_looks_like_yaml_is_text(text_classifier, predictions):
    texts = ["&a [*a]", "[" * 60, "- " * 60, "{a: b}", "*", "!!python/object:os.system"]
    assert [each["input"] for each in predictions(text_classifier, *texts)] == texts
