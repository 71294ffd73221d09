"""Conversion and prediction on the command line, against the oracle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import peer
import pytest
import torch
from PIL import Image

from perceiver_cli.main import main
from perceiver_plugins.flow.files import read_flow

BYTES = 6
"""Token id of byte 0."""


@pytest.fixture
def predictions(tmp_path, capsys):
    """Function that saves a model, and predicts with the folder and with a converted checkpoint."""

    def predictions(kind: str, config: peer.Config, state: peer.State, *argv: str, **settings) -> list[dict]:
        source = peer.save_folder(tmp_path / "theirs", kind, config, state, **settings)
        checkpoint = str(tmp_path / "ours.ckpt")
        assert main(["convert", source, checkpoint]) == 0
        assert "(krasserm)" in capsys.readouterr().out
        predicted = []
        for each in (checkpoint, source):
            code = main(["predict", f"--ckpt_path={each}", *argv, "--format=json"])
            output = capsys.readouterr()
            assert (code, output.err) == (0, "")
            predicted.append(json.loads(output.out))
        assert predicted[0] == predicted[1]
        return predicted[0]

    return predictions


def tokens(text: str) -> list[int]:
    return [byte + BYTES for byte in text.encode()]


def test_text_classifier_predicts(predictions):
    config = peer.model_config("text-classifier", decoder={"num_classes": 2})
    state = peer.random_state(config)
    names = {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}, "tokenizer_class": "PerceiverTokenizer"}
    texts = ["A film.", "Ünique"]
    found = predictions("text-classifier", config, state, *texts, **names)
    for text, prediction in zip(texts, found, strict=True):
        logits = peer.outputs(config, state, torch.tensor([[4, *tokens(text), 5]]))
        best, number = logits[0].softmax(dim=-1).max(dim=-1)
        assert prediction["label"] == ("NEGATIVE", "POSITIVE")[int(number)]
        assert prediction["probability"] == pytest.approx(float(best), rel=1e-4)


def test_language_model_fills_masks(predictions):
    config = peer.model_config("masked-language-model")
    state = peer.random_state(config)
    (prediction,) = predictions("masked-language-model", config, state, "A f[MASK]lm.")
    logits = peer.outputs(config, state, torch.tensor([[*tokens("A f"), 3, *tokens("lm.")]]))
    best = logits[0, 3, BYTES:].softmax(dim=-1).topk(5)  # without special tokens
    (guesses,) = prediction["masks"]
    assert [guess["probability"] for guess in guesses] == pytest.approx(best.values.tolist(), rel=1e-4)
    names = [bytes([byte]).decode(errors="replace") for byte in best.indices.tolist()]
    assert [guess["token"] for guess in guesses] == names


@pytest.mark.slow
def test_image_classifier_predicts(predictions, tmp_path):
    config = peer.model_config("image-classifier")
    state = peer.random_state(config)
    pixels = np.random.default_rng(3).integers(256, size=(6, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    folder = tmp_path / "theirs"
    folder.mkdir()
    settings = {"do_center_crop": False, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    (prediction,) = predictions("image-classifier", config, state, str(tmp_path / "image.png"))
    read = (torch.from_numpy(pixels) / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.3, 0.4])
    best, number = peer.outputs(config, state, read[None])[0].softmax(dim=-1).max(dim=-1)
    assert prediction["label"] == str(int(number))
    assert prediction["probability"] == pytest.approx(float(best), rel=1e-4)


def test_optical_flow_predicts(predictions, tmp_path):
    config = peer.model_config("optical-flow", {"num_patch_input_channels": 3})
    state = peer.random_state(config)
    frames = np.random.default_rng(3).integers(256, size=(2, 5, 8, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"frame{number}.png")
    images = [str(tmp_path / f"frame{number}.png") for number in range(2)]
    predictions("optical-flow", config, state, *images, f"--output={tmp_path / 'flow'}")
    read = torch.from_numpy(frames).permute(0, 3, 1, 2)[None] / 255 * 2 - 1
    expected = 20 * peer.outputs(config, state, read)[0].unflatten(0, (5, 8))
    (file,) = Path(tmp_path, "flow").glob("*.flo")
    assert peer.relative_difference(torch.from_numpy(read_flow(file)), expected) < 1e-4
