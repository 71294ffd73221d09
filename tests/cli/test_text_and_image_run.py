"""Runs on tables with columns of texts and images: training, prediction, embeddings, evaluation, resuming, export."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import perceiver_zoo

pytestmark = pytest.mark.slow

SMALL = {"num_latents": 2, "num_latent_channels": 16, "encoder": {"num_self_attention_heads": 1}}


def write_table(name: str, count: int) -> str:
    """Write a table of numbers, texts and images, some of which are missing."""
    Path("img").mkdir(exist_ok=True)
    with open(name, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "size", "what it is", "photo", "label"])
        for index in range(count):
            photo = f"img/{index}.png"
            Image.new("RGB", (9, 9), (index * 7 % 256, 90, 30)).save(photo)
            text = f"a thing of {index} kinds that is {'good' if index % 2 else 'bad'} to have"
            cells = [index % 5, text if index % 9 else "", photo if index % 7 else "", "yes" if index % 2 else "no"]
            writer.writerow([f"p{index}", *cells])
    return name


def test_model_of_texts_and_images_is_used_by_all_commands(perceiver, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    fit = ["fit", "--task=classification", f"--data={write_table('train.csv', 60)}", "--trainer.max_epochs=1"]
    columns = ["--data.feature_columns=[size,what it is,photo]", "--data.image_size=8", "--data.max_seq_len=9"]
    result = perceiver(*fit, *columns, "--model.num_latents=2")
    assert result.code == 0, result.err
    assert "columns: 1 number; texts: what it is; images: photo" in caplog.text
    (last,) = Path().glob("logs/*/version_0/checkpoints/last.ckpt")
    record = torch.load(last, weights_only=True)["perceiver"]
    assert [*record["model"]["encoder"]["columns"]] == ["what_it_is", "photo"]
    assert record["model"]["decoder"]["pool_inputs"] is False
    assert {used["name"] for used in record["plugins"]} >= {"table", "text", "image-stages"}

    write_table("new.csv", 9)
    result = perceiver("predict", f"--ckpt_path={last}", "new.csv", "--keep_columns=[id]", "--format=jsonl")
    assert result.code == 0, result.err
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["id"] for line in lines] == [f"p{index}" for index in range(9)]
    frame = pd.read_csv("new.csv").drop(columns="id")
    model = perceiver_zoo.load(last, device="cpu")
    for found in (model.predict(frame), model.predict(["new.csv"])):
        assert [each["probability"] for each in found] == pytest.approx([line["probability"] for line in lines])
    assert perceiver("embed", f"--ckpt_path={last}", "new.csv", "--output=v.npy").code == 0
    np.testing.assert_allclose(np.load("v.npy"), model.embed(frame), rtol=1e-4, atol=1e-6)
    result = perceiver("test", f"--ckpt_path={last}", "--data.test_files=new.csv", "--result=r.json")
    assert result.code == 0, result.err
    right = sum(line["label"] == label for line, label in zip(lines, frame["label"], strict=True))
    assert json.loads(Path("r.json").read_text())["metrics"]["test_accuracy"] == pytest.approx(right / 9)

    result = perceiver("fit", f"--ckpt_path={last}", "--trainer.max_epochs=2")
    assert result.code == 0, result.err
    result = perceiver("export", f"--ckpt_path={last}", "--output=m.onnx")
    assert result.code == 0, result.err
    for line in ("what_it_is.input_ids", "what_it_is.missing", "photo.pixel_values", "photo.missing"):
        assert line in result.out + result.err


def test_estimators_read_frames_with_texts_and_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pd.read_csv(write_table("train.csv", 40))
    inputs, options = frame[["size", "what it is", "photo"]], {"data": {"image_size": 8}, "model": SMALL}
    classifier = perceiver_zoo.PerceiverClassifier(max_epochs=1, random_state=0, device="cpu", **options)
    assert set(classifier.fit(inputs, frame["label"]).predict(inputs[:5])) <= {"yes", "no"}
    assert [*classifier._loaded.module.model.input_adapter.parts] == ["photo", "table", "what_it_is"]
    regressor = perceiver_zoo.PerceiverRegressor(max_epochs=1, random_state=0, device="cpu", **options)
    assert regressor.fit(frame[["photo"]], np.arange(80).reshape(40, 2)).predict(frame[["photo"]]).shape == (40, 2)
