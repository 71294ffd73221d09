"""Predictions of the multimodal autoencoder, in Python and on the command line."""

from __future__ import annotations

import json

import pytest
import torch

from perceiver_cli.main import main
from perceiver_plugins.multimodal import ClipReader, LitMultimodalAutoencoder, reconstruct
from perceiver_plugins.multimodal.data import ClipFormat, read_clip
from perceiver_plugins.multimodal.data.format import from_batch
from perceiver_plugins.multimodal.prediction import ClipPredictor
from perceiver_registry import UserError

FORMAT = ClipFormat(num_frames=2, frame_size=(4, 8), frame_rate=2, samples_per_frame=600)
WRITTEN = ClipFormat(num_frames=4, frame_size=(16, 16), frame_rate=4, samples_per_frame=2000)


@pytest.fixture
def module(clip_model_config, randomise) -> LitMultimodalAutoencoder:
    clip = {"num_audio_samples": FORMAT.num_samples, "samples_per_patch": 100}
    module = LitMultimodalAutoencoder.create(clip_model_config(clip, decoder={"label_names": [*"abcde"]}))
    randomise(module.model)
    return module.eval()


@pytest.fixture
def reader(module) -> ClipReader:
    return ClipReader(FORMAT.description(), module.model.input_adapter)


def test_reader_finds_and_reads_clips(reader, clip_folder):
    path = clip_folder({"circle": 2, "cross": 1}, WRITTEN)
    (path / "notes.txt").write_text("no clip")
    files = [str(path / name) for name in ("circle/0.mp4", "circle/1.mp4", "cross/0.mp4")]
    assert reader.expand([str(path)]) == files
    assert reader.expand([str(path / "circle" / "*.mp4"), files[0], "missing.mp4"]) == [*files[:2], "missing.mp4"]
    clip = reader.read(files[1])
    assert torch.equal(clip.frames, read_clip(files[1], FORMAT).frames)
    batch = reader.collate([clip, reader.read(files[2])])
    assert batch["pixel_values_videos"].shape == (2, 2, 3, 4, 8)
    assert batch["input_values"].shape == (2, 1200)
    with pytest.raises(UserError, match="no file matches"):
        reader.expand(["nothing*.mp4"])
    (path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no clips"):
        reader.expand([str(path / "empty")])
    with pytest.raises(UserError, match="was not trained on clips: the description of its data lacks 'num_frames'"):
        ClipReader({"image_size": [8, 8]}, None)


@torch.no_grad()
def test_classes_and_reconstructions(module, reader, clip_folder, tmp_path):
    path = clip_folder({"circle": 2, "square": 1}, WRITTEN)
    (path / "bad.mp4").write_bytes(b"no video")
    predictor = ClipPredictor(module, reader, top_k=2, batch_size=2, reconstructions=str(tmp_path / "out"))
    predictions = predictor.predict([str(path)])
    assert len(predictions) == 3
    (failure,) = predictor.failures
    assert failure.startswith(f"{path / 'bad.mp4'}: the clip cannot be read")
    for prediction in predictions:
        clip = reader.read(prediction["input"])
        reconstruction = reconstruct(module.model, reader.collate([clip]))
        probabilities, numbers = reconstruction.logits[0].softmax(dim=-1).sort(descending=True)
        assert [each["label"] for each in prediction["top"]] == ["abcde"[number] for number in numbers[:2]]
        found = [each["probability"] for each in prediction["top"]]
        assert found == pytest.approx(probabilities[:2].tolist(), abs=1e-6)
        assert (prediction["label"], prediction["probability"]) == tuple(prediction["top"][0].values())
        (expected,) = from_batch(reconstruction.pixel_values_videos, reconstruction.input_values)
        found = read_clip(prediction["reconstruction"], FORMAT)
        assert (found.frames.float() - expected.frames.float()).abs().mean() < 25  # as far as H.264 goes with noise
        assert torch.corrcoef(torch.stack([found.samples, expected.samples]))[0, 1] > 0.5
    rows = list(predictor.rows(predictions))
    assert [*rows[0]] == ["input", "label", "probability", "label 2", "probability 2", "reconstruction"]
    assert rows[1]["probability 2"] == f"{predictions[1]['top'][1]['probability']:.4f}"


def test_only_label_is_decoded_without_reconstructions(module, reader, clip_folder):
    path = clip_folder({"circle": 2}, WRITTEN)
    queries = []
    module.model.decoder.register_forward_pre_hook(lambda decoder, inputs: queries.append(inputs[0].shape[:2]))
    predictions = ClipPredictor(module, reader).predict([str(path)])
    assert queries == [(2, 1)]
    assert "reconstruction" not in predictions[0]


def test_invalid_options_are_reported(module, reader, clip_folder, tmp_path):
    with pytest.raises(UserError, match="top_k=0 must be at least 1"):
        ClipPredictor(module, reader, top_k=0)
    (tmp_path / "file").write_text("")
    predictor = ClipPredictor(module, reader, reconstructions=str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"^reconstructions='.*file': the folder cannot be created \(File exists\)$"):
        predictor.predict([str(clip_folder({"circle": 1}, WRITTEN))])


@pytest.mark.slow
def test_fit_and_predict_on_the_command_line(clip_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = clip_folder({"circle": 3, "square": 3}, WRITTEN)
    fit = [
        "fit",
        "--task=multimodal-autoencoding",
        "--data=video-folder",
        f"--data.path={path}",
        "--data.num_frames=2",
        "--data.frame_size=[8,12]",
        "--data.frame_rate=4",
        "--data.samples_per_frame=800",
        "--data.batch_size=2",
        "--model.num_latents=4",
        "--model.num_latent_channels=16",
        "--model.encoder.num_self_attention_layers_per_block=1",
        "--trainer.max_steps=2",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]
    assert main(fit) == 0
    assert "val_video_psnr" in capsys.readouterr().out
    clips = [str(path / "circle" / "0.mp4"), str(path / "square" / "2.mp4")]
    predict = ["predict", "--ckpt_path=best", *clips, "--trainer.accelerator=cpu", "--reconstructions=made"]
    assert main([*predict, "--format=json"]) == 0
    predictions = json.loads(capsys.readouterr().out)
    assert [prediction["input"] for prediction in predictions] == clips
    for prediction in predictions:
        assert prediction["label"] in ("circle", "square")
        assert sum(each["probability"] for each in prediction["top"]) == pytest.approx(1, abs=1e-5)
    written = ClipFormat(num_frames=2, frame_size=(8, 12), frame_rate=4, samples_per_frame=800)
    assert read_clip(tmp_path / "made" / "0001-2.mp4", written).frames.shape == (2, 3, 8, 12)
    assert main(["predict", "--ckpt_path=best", "none.mp4", "--trainer.accelerator=cpu"]) == 1
    assert "none.mp4: no such file" in capsys.readouterr().err
    assert main([*fit, "--data.samples_per_frame=805"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "num_audio_samples=1610: must be a multiple of samples_per_patch=16" in line
