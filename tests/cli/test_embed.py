"""``perceiver embed``: files and printed embeddings equal those of the Python API."""

from __future__ import annotations

import csv
import io
import json
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from perceiver_cli import parquet, vectors
from perceiver_plugins.sdk.prediction import EmbeddingPredictor
from perceiver_registry import UserError, read_model, registry

AWKWARD = ['gut, "sehr"', "näht\n44", " ", "🎉 gut", "x"]
"""Texts with commas, quotes, line ends and an emoji; the third is blank."""


@pytest.fixture
def embed(perceiver):
    """Function that runs ``perceiver embed`` with a run's latest model."""

    def embed(run, *argv: str):
        return perceiver("embed", f"--ckpt_path={run.last}", *argv)

    return embed


def load_model_and_reader(run):
    """Load a run's model and its reader."""
    model, description = read_model(str(run.last))
    reader_type = registry().adapter_of("input", model.config.encoder).resolve("reader")
    return model.eval(), reader_type(description.data, model.input_adapter)


def expected(run, sources, pool="mean") -> np.ndarray:
    """Embed inputs one by one with the Python API."""
    model, reader = load_model_and_reader(run)
    with torch.no_grad():
        return np.concatenate([model.embed(reader.collate([reader.read(source)]), pool).numpy() for source in sources])


def written(file) -> tuple[list[str], np.ndarray]:
    """Read inputs and embeddings from a file of any format."""
    suffix = file.suffix
    if suffix == ".npy":
        ids = [json.loads(line) for line in file.with_suffix(".ids.jsonl").read_text().splitlines()]
        return ids, np.load(file)
    if suffix == ".parquet":
        table = pq.read_table(file)
        return table["input"].to_pylist(), np.array(table["embedding"].to_pylist(), np.float32)
    if suffix == ".csv":
        header, *rows = csv.reader(io.StringIO(file.read_text(encoding="utf-8"), newline=""))
        assert header == ["input", *(f"embedding_{i}" for i in range(len(header) - 1))]
        return [row[0] for row in rows], np.array([row[1:] for row in rows], np.float32)
    text = file.read_text(encoding="utf-8")
    rows = json.loads(text) if suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    return [row["input"] for row in rows], np.array([row["embedding"] for row in rows], np.float32)


def notes(result) -> list[str]:
    """Return the lines on standard error without progress, which a slow machine prints."""
    return [line for line in result.err.splitlines() if not line.startswith("Embedding: ")]


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".csv", ".json", ".jsonl"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_files_have_the_embeddings_of_the_python_api(text_classifier, embed, tmp_path, monkeypatch, suffix, batch_size):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 130)  # three inputs, fewer in the last one
    file = tmp_path / f"v{suffix}"
    result = embed(text_classifier, *AWKWARD, f"--output={file}", f"--batch_size={batch_size}")
    assert (result.code, result.out) == (0, ""), result.err
    inputs, found = written(file)
    assert inputs == AWKWARD
    assert found.shape == (5, 16)
    np.testing.assert_allclose(found, expected(text_classifier, AWKWARD), atol=1e-6)
    names = {file.name, "v.ids.jsonl"} if suffix == ".npy" else {file.name}
    assert {each.name for each in tmp_path.iterdir()} == names


def test_written_files_have_equal_numbers(text_classifier, embed, tmp_path):
    """Numbers in text files restore the float32 of the binary files."""
    found = []
    for suffix in (".npy", ".parquet", ".csv", ".json", ".jsonl"):
        assert embed(text_classifier, *AWKWARD, f"--output=v{suffix}").code == 0
        found.append(written(tmp_path / f"v{suffix}")[1])
    assert found[0].dtype == np.float32
    for each in found[1:]:
        np.testing.assert_array_equal(each, found[0])


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".jsonl"])
def test_latents_without_pooling(text_classifier, embed, tmp_path, suffix):
    assert embed(text_classifier, *AWKWARD, "--pool=none", f"--output=v{suffix}").code == 0
    inputs, found = written(tmp_path / f"v{suffix}")
    assert inputs == AWKWARD
    assert found.shape == (5, 4, 16)
    np.testing.assert_allclose(found, expected(text_classifier, AWKWARD, "none"), atol=1e-6)


def test_images_of_a_folder(image_classifier, embed, pictures, tmp_path):
    assert embed(image_classifier, str(pictures), "--output=v.npy", "--batch_size=3").code == 0
    inputs, found = written(tmp_path / "v.npy")
    names = ["0.png", "1.png", "2.png", "3.png", "4.png", "more/5.png", "more/6.png", "photo.jpg"]
    assert inputs == [str(pictures / name) for name in names]
    np.testing.assert_allclose(found, expected(image_classifier, inputs), atol=1e-5)
    assert len(np.unique(found.round(3), axis=0)) == 8


def test_rows_of_a_table_with_missing_values(regressor, embed, table, tmp_path):
    assert embed(regressor, str(table), "--output=v.parquet", "--batch_size=7").code == 0
    inputs, found = written(tmp_path / "v.parquet")
    assert inputs == [f"{table}:{number}" for number in range(1, 41)]
    rows = [f"a={a},b={'' if a % 7 == 3 else a % 5}" for a in range(40)]
    np.testing.assert_allclose(found, expected(regressor, rows), atol=1e-5)
    assert np.isfinite(found).all()


def test_quantized_embeddings_are_close(regressor, embed, tmp_path):
    exact = expected(regressor, ["a=1,b=2", "a=20"])
    result = embed(regressor, "a=1,b=2", "a=20", "--output=v.npy", "--quantize=int8", "--trainer.accelerator=cpu")
    assert result.code == 0
    assert notes(result) == ["perceiver: embedding with int8 weights, which changes embeddings slightly"]
    found = written(tmp_path / "v.npy")[1]
    assert 1e-5 < np.abs(found - exact).max() < 0.2


def test_printed_embeddings(text_classifier, embed, monkeypatch):
    first, second = expected(text_classifier, ["gut", "schlecht"])
    header, *rows = embed(text_classifier, "gut", "schlecht").out.splitlines()
    assert header.split("  ")[0] == "input"
    for row, text, vector in zip(rows, ("gut", "schlecht"), (first, second), strict=True):
        assert row.split() == [text, *(f"{number:.4f}" for number in vector[:4]), "16"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"gut\nschlecht\n"), encoding="utf-8"))
    lines = [json.loads(line) for line in embed(text_classifier, "--format=jsonl").out.splitlines()]
    assert [line["input"] for line in lines] == ["gut", "schlecht"]
    np.testing.assert_allclose([line["embedding"] for line in lines], [first, second], atol=1e-6)


def test_most_similar_inputs(text_classifier, embed, tmp_path):
    texts = ["näht 1 gut", "schlecht 7", "gut", "schlecht", "etwas"]
    found = expected(text_classifier, [*texts, "sehr gut"]).astype(float)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    order = sorted(range(5), key=lambda i: -unit[i] @ unit[5])
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    argv = ["--input=texts.txt", "--similar_to=sehr gut"]
    rows = json.loads(embed(text_classifier, *argv, "--top_k=3", "--format=json").out)
    assert [row["input"] for row in rows] == [texts[i] for i in order[:3]]
    assert [row["similarity"] for row in rows] == pytest.approx([unit[i] @ unit[5] for i in order[:3]], abs=1e-5)
    printed = embed(text_classifier, *argv).out.splitlines()
    assert len(printed) == 6
    assert printed[1].split()[-1] == f"{rows[0]['similarity']:.4f}"
    assert embed(text_classifier, *argv, "--output=s.csv").code == 0
    assert (tmp_path / "s.csv").read_text().splitlines()[0] == "input,similarity"


def test_similar_inputs_are_found_in_a_file(text_classifier, embed, monkeypatch, tmp_path):
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 130)
    texts = ["näht 1 gut", *AWKWARD, "schlecht 7", "gut", "schlecht", "etwas"]
    assert embed(text_classifier, *texts, "--output=v.parquet").code == 0
    argv = ["--similar_to=sehr gut", "--top_k=4", "--format=json"]
    found = json.loads(embed(text_classifier, "--vectors=v.parquet", *argv).out)
    assert len(found) == 4
    assert found == json.loads(embed(text_classifier, *texts, *argv).out)
    assert embed(text_classifier, "--vectors=v.parquet", "--similar_to=gut", "--output=s.csv").code == 0
    rows = csv.DictReader(io.StringIO((tmp_path / "s.csv").read_text(encoding="utf-8"), newline=""))
    assert len([*rows]) == 10


def test_files_of_another_model_are_not_searched(text_classifier, regressor, embed, tmp_path):
    assert embed(regressor, "a=1,b=2", "--output=table.parquet").code == 0
    assert embed(text_classifier, "gut", "--output=none.parquet", "--pool=none").code == 0
    assert embed(text_classifier, "gut", "--output=int8.parquet", "--quantize=int8").code == 0
    for name in ("table", "none", "int8"):
        line = embed(text_classifier, "--similar_to=gut", f"--vectors={name}.parquet").error
        assert line == (
            f"--vectors={name}.parquet: has embeddings of another model or of other options (embed the inputs again)"
        )
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"input": ["gut"], "embedding": [[1.0] * 16]}), "other.parquet")
    messages = {
        "damaged": "cannot be read (",
        "missing": "file not found (relative to ",
        "other": "not a file of perceiver embed",
    }
    for name, message in messages.items():
        line = embed(text_classifier, "--similar_to=gut", f"--vectors={name}.parquet").error
        assert line.startswith(f"--vectors={name}.parquet: {message}")


def test_damage_of_a_file_is_reported(text_classifier, embed, tmp_path):
    """Change a byte in each part of the file: names, numbers, the headers of their pages, metadata."""
    file = tmp_path / "v.parquet"
    assert embed(text_classifier, *AWKWARD, f"--output={file}").code == 0
    content = file.read_bytes()
    rows = list(
        vectors.read_vectors(file, identity := pq.read_metadata(file).metadata[vectors.IDENTITY_KEY.encode()].decode())
    )
    errors = []
    for position in range(4, len(content), 23):
        file.write_bytes(content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :])
        try:
            found = list(vectors.read_vectors(file, identity))
        except UserError as error:
            errors.append(str(error))
            continue
        assert [row["input"] for row in found] == [row["input"] for row in rows]
        np.testing.assert_array_equal([row["embedding"] for row in found], [row["embedding"] for row in rows])
    assert all(error.startswith(f"--vectors={file}: ") for error in errors)
    assert len(errors) > 50
    file.write_bytes(content[:9] + b"\xff" * 9 + content[18:])
    line = embed(text_classifier, "--similar_to=gut", "--vectors=v.parquet").error
    assert line.startswith("--vectors=v.parquet: cannot be read (")


def test_inputs_file_is_named_after_the_array(text_classifier, embed, tmp_path):
    for name, ids in {"a.b": "a.b.ids.jsonl", "a.c": "a.c.ids.jsonl", "a.NPY": "a.ids.jsonl"}.items():
        assert embed(text_classifier, name, f"--output={name}", "--format=npy").code == 0
        assert (tmp_path / ids).read_text() == f'"{name}"\n'


def test_failed_inputs_are_reported_and_the_others_written(image_classifier, embed, pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = [str(pictures / "0.png"), str(pictures / "photo.jpg")]
    result = embed(image_classifier, good[0], "bad.png", good[1], "missing.png", "--output=v.npy")
    assert result.code == 1
    assert [line.split(": ")[1] for line in notes(result)] == ["bad.png", "missing.png"]
    inputs, found = written(tmp_path / "v.npy")
    assert inputs == good
    np.testing.assert_allclose(found, expected(image_classifier, good), atol=1e-5)


@pytest.mark.parametrize("name", ["v.npy", "v.parquet", "v.csv"])
def test_files_are_replaced_as_a_whole(text_classifier, embed, tmp_path, name):
    assert embed(text_classifier, "gut", f"--output={name}").code == 0
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    line = embed(text_classifier, "schlecht", f"--output={name}").error
    assert line == f"--output={name}: already exists (--overwrite replaces it)"
    assert embed(text_classifier, "missing.txt", f"--output={name}", "--overwrite").code == 1  # nothing to write
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert embed(text_classifier, "schlecht", f"--output={name}", "--overwrite").code == 0
    assert written(tmp_path / name)[0] == ["schlecht"]
    if name == "v.npy":
        (tmp_path / name).unlink()
        assert "--output=v.ids.jsonl: already exists" in embed(text_classifier, "gut", f"--output={name}").error


def test_input_is_not_replaced_by_the_inputs_file(text_classifier, embed, tmp_path):
    (tmp_path / "v.ids.jsonl").write_text('{"text": "gut"}\n')
    line = embed(text_classifier, "v.ids.jsonl", "--output=v.npy", "--overwrite").error
    assert line == "--output=v.ids.jsonl: is also an input (give another file)"


def test_names_that_are_not_utf8(image_classifier, embed, undecodable_name, tmp_path):
    name = undecodable_name
    for suffix in (".npy", ".parquet", ".csv"):
        assert embed(image_classifier, ".", f"--output=v{suffix}").code == 0
        (found,), _ = written(tmp_path / f"v{suffix}")
        assert found == (name if suffix == ".npy" else r"stra\udcdfe.png")


def test_missing_pyarrow_is_reported_before_inputs_are_read(text_classifier, embed, monkeypatch, tmp_path):
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    result = embed(text_classifier, "missing.txt", "--output=v.parquet")
    assert result.code != 0
    assert "pyarrow" in result.err
    assert [*tmp_path.iterdir()] == []


def test_different_numbers_of_latents_are_refused_in_an_array(text_classifier, embed, monkeypatch, tmp_path):
    lengths = iter([4, 3, 4])
    embed_one = EmbeddingPredictor._embed
    monkeypatch.setattr(
        EmbeddingPredictor, "_embed", lambda self, batch: [each[: next(lengths)] for each in embed_one(self, batch)]
    )
    argv = ["a", "b", "c", "--pool=none", "--batch_size=2"]
    result = embed(text_classifier, *argv, "--output=v.npy")
    assert result.code == 2
    assert notes(result) == [
        "perceiver: v.npy: incomplete; a corrected command with this --output resumes (batches recorded: 1)",
        "perceiver: --pool=none: inputs have 4 and 3 latents, which one .npy array cannot contain (use .parquet, "
        "or --pool=mean)",
    ]
    assert os.listdir() == [".v.npy.journal"]
    lengths = iter([4, 3, 4])
    assert embed(text_classifier, *argv, "--output=v.parquet").code == 0
    assert [len(each) for each in pq.read_table("v.parquet")["embedding"].to_pylist()] == [4, 3, 4]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--pool=none", "--output=v.csv"], "--pool=none: a row of CSV has one vector"),
        (["--pool=none", "--format=csv"], "--pool=none: a row of CSV has one vector"),
        (["--pool=max"], "--pool: must be 'mean' or 'none', got 'max'"),
        (["--format=npy"], "--format=npy: needs a file (add --output=FILE.npy)"),
        ([f"--output={'v' * 251}.npy"], f"--output={'v' * 251}.ids.jsonl: cannot be created (File name too long)"),
        (["--output=v.bin"], "--output=v.bin: unknown suffix (use .csv, .json, .jsonl, .npy, .parquet"),
        (["--output=v.npy", "--format=parquet"], "--output=v.npy: suffix does not match --format=parquet"),
        (["--similar_to=x", "--output=v.npy"], "--similar_to: returns similarities, which .npy cannot store"),
        (["--similar_to=x", "--pool=none"], "--pool=none: --similar_to compares means"),
        (["--similar_to=none.txt"], "--similar_to=none.txt: input: file none.txt not found"),
        (["--vectors=v.parquet"], "--vectors=v.parquet: has no effect without --similar_to"),
        (["--vectors=v.parquet", "--similar_to=x"], "--vectors=v.parquet: replaces inputs"),
        (["--top_k=3"], "--top_k: has no effect without --similar_to"),
        (["--top_k=0", "--similar_to=x"], "--top_k=0 must be at least 1"),
        (["--batch_size=0"], "--batch_size=0 must be at least 1"),
        (["--attention=maps"], "--attention: unknown flag"),
        (["--data.batch_size=3"], "--data.batch_size: has no effect in embed, which uses the model as it was trained"),
    ],
)
def test_wrong_flags(text_classifier, embed, argv, message):
    assert embed(text_classifier, "gut", *argv).error.startswith(message)


def test_tasks_without_a_predictor_are_embedded(regressor, embed, perceiver, monkeypatch, tmp_path):
    monkeypatch.setitem(vars(registry().get("task", "regression").spec), "predictor", None)
    line = perceiver("predict", f"--ckpt_path={regressor.last}", "a=1,b=2").error
    assert line == "--task=regression: this task has no predictor (perceiver embed embeds inputs)"
    assert embed(regressor, "a=1,b=2", "--output=v.npy").code == 0
    np.testing.assert_allclose(np.load("v.npy"), expected(regressor, ["a=1,b=2"]), atol=1e-6)


def test_vectors_are_not_predictions(text_classifier, perceiver):
    line = perceiver("predict", f"--ckpt_path={text_classifier.last}", "gut", "--output=v.npy").error
    assert line == "--output=v.npy: unknown suffix (use .csv, .json, .jsonl, .parquet, or add --format)"


def test_help_explains_files_and_flags(perceiver):
    text = " ".join(perceiver("embed", "--help").out.split())
    for part in ("usage: perceiver embed [INPUT ...]", "vectors.ids.jsonl", "--pool {mean,none}", "--similar_to"):
        assert part in text
    assert "--attention" not in text
