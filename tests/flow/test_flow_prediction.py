"""Reader and predictor of optical flow."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_cli.main import main
from perceiver_plugins.flow.data.pairs import frames_tensor
from perceiver_plugins.flow.files import draw_flow, read_flow, write_flo
from perceiver_plugins.flow.prediction import FlowPredictor
from perceiver_plugins.flow.reading import FrameReader, Video
from perceiver_plugins.flow.tiling import predict_tiled_flow
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry import UserError


@pytest.fixture
def folder(tmp_path, frames):
    """Folder of three frames with numbers in their names."""
    folder = tmp_path / "walk"
    folder.mkdir()
    for number, pixels in zip((2, 9, 10), frames(3, 8, 12), strict=True):
        Image.fromarray(pixels).save(folder / f"frame_{number}.png")
    return folder


@pytest.fixture
def video(tmp_path, frames):
    """Lossless video of five frames, and the frames."""
    path = tmp_path / "walk.mkv"
    pictures = frames(5, 16, 24)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.height, stream.width, stream.pix_fmt = 16, 24, "bgr0"
        for pixels in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode(None))
    return path, pictures


@pytest.fixture
def reader(flow_module) -> FrameReader:
    return FrameReader({}, flow_module().model.input_adapter)


# Reading


def names(reader: FrameReader, *inputs: object) -> list[str]:
    pairs = reader.expand([str(name) for name in inputs])
    return [" ".join(part.rpartition("/")[2] for part in pair.split(" ")) for pair in pairs]


def test_frames_are_paired_with_their_successors(reader, folder):
    files = [folder / f"frame_{number}.png" for number in (2, 9, 10)]
    expected = ["frame_2.png frame_9.png", "frame_9.png frame_10.png"]
    assert names(reader, folder) == expected
    assert names(reader, folder / "frame_*.png") == expected
    assert names(reader, *files) == expected
    assert names(reader, files[2], files[0]) == ["frame_10.png frame_2.png"]
    # A folder, or a pattern, is a sequence of its own.
    assert names(reader, files[0], files[1], folder, files[1], files[2]) == [expected[0], *expected, expected[1]]


def test_video_is_expanded_to_pairs_of_frames(reader, video):
    path, pictures = video
    pairs = reader.expand([str(path)])
    assert [pair.rpartition("/")[2] for pair in pairs] == [f"walk.mkv#{number}" for number in (1, 2, 3, 4)]
    for number in (0, 1, 2, 3, 1):
        expected = frames_tensor(pictures[number], pictures[number + 1])
        torch.testing.assert_close(reader.read(pairs[number]), expected, rtol=0, atol=0)


def test_video_is_decoded_once(video, monkeypatch):
    path, pictures = video
    opened = []
    monkeypatch.setattr(av, "open", lambda *args, real=av.open, **options: opened.append(1) or real(*args, **options))
    frames = Video(path)
    for number in (0, 1, 1, 2, 2, 3, 3, 4):
        np.testing.assert_array_equal(frames.read(number), pictures[number])
    assert len(opened) == 1
    np.testing.assert_array_equal(frames.read(0), pictures[0])
    assert len(opened) == 2
    with pytest.raises(DataError, match=r"walk\.mkv: the video ends before frame 5"):
        frames.read(5)


def test_animated_gif_is_read_as_video(reader, tmp_path):
    pictures = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (0, 100, 255)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
    pairs = reader.expand([str(tmp_path / "a.gif")])
    values = [[int((frame.mean() + 1) * 127.5 + 0.5) for frame in reader.read(pair)] for pair in pairs]
    np.testing.assert_allclose(values, [[0, 100], [100, 255]], atol=2)


def test_unreadable_frames_are_reported(reader, folder, tmp_path, frames):
    one = folder / "frame_2.png"
    Image.fromarray(frames(1, 5, 7)[0]).save(tmp_path / "other.png")
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"frame_2\.png: a single frame \(optical flow needs two"):
        reader.expand([str(one)])
    with pytest.raises(UserError, match=r"no images \(\.jpg, .*\) in the folder"):
        reader.expand([str(tmp_path / "empty")])
    with pytest.raises(UserError, match=r"no image matches '.*\*\.jpg'"):
        reader.expand([f"{tmp_path}/*.jpg"])
    with pytest.raises(UserError, match=r"notes\.txt: neither an image nor a video that can be read"):
        reader.expand([str(tmp_path / "notes.txt")])
    with pytest.raises(UserError, match=r"none\.mp4: no such file"):
        reader.expand([str(tmp_path / "none.mp4")])
    (pair,) = reader.expand([str(one), str(tmp_path / "none.png")])
    with pytest.raises(UserError, match=r"none\.png: the image cannot be read \(No such file"):
        reader.read(pair)
    (pair,) = reader.expand([str(one), str(tmp_path / "other.png")])
    with pytest.raises(UserError, match="frames of different sizes, 8x12 and 5x7 pixels"):
        reader.read(pair)
    with pytest.raises(UserError, match="pairs of frames of different sizes"):
        reader.collate([torch.zeros(2, 3, 8, 12), torch.zeros(2, 3, 5, 7)])
    with pytest.raises(UserError, match=r"frame_2\.png: not a pair of frames"):
        reader.read(str(one))


# Predicting


def record_batch_sizes(module) -> list[int]:
    """Record the batch sizes of the module's encoder."""
    counts: list[int] = []
    module.model.encoder.register_forward_hook(lambda encoder, inputs, output: counts.append(len(inputs[0].x)))
    return counts


def test_frames_of_the_training_size_are_one_tile(flow_module, reader, folder):
    module = flow_module()
    counts = record_batch_sizes(module)
    predictor = FlowPredictor(module, reader)
    predictions = predictor.predict([str(folder)])
    assert counts == [1, 1]
    for prediction, pair in zip(predictions, reader.expand([str(folder)]), strict=True):
        flow = module.flow(reader.read(pair)[None])[0]
        length = flow.square().sum(dim=0).sqrt()
        assert prediction == {
            "input": str(pair),
            "height": 8,
            "width": 12,
            "mean_to_the_right": pytest.approx(float(flow[0].mean()), rel=1e-4),
            "mean_down": pytest.approx(float(flow[1].mean()), rel=1e-4),
            "mean_length": pytest.approx(float(length.mean()), rel=1e-4),
            "max_length": pytest.approx(float(length.max()), rel=1e-4),
        }
    assert predictions[0] != predictions[1]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_larger_frames_are_tiled_and_flow_is_written(flow_module, reader, video, tmp_path, batch_size):
    module = flow_module()
    path, pictures = video
    counts = record_batch_sizes(module)
    output = tmp_path / "new" / "flow"
    predictor = FlowPredictor(module, reader, output=str(output), overlap=2, batch_size=batch_size)
    predictions = predictor.predict([str(path)])
    assert (len(predictions), sum(counts), max(counts)) == (4, 4 * 3 * 3, batch_size)
    for number, prediction in enumerate(predictions):
        frames = frames_tensor(pictures[number], pictures[number + 1])
        expected = predict_tiled_flow(module.flow, frames, (8, 12), overlap=2)
        written = torch.from_numpy(read_flow(prediction["flow"])).permute(2, 0, 1)
        torch.testing.assert_close(written, expected, rtol=1e-4, atol=1e-5)
        picture = np.asarray(Image.open(prediction["picture"])).astype(int)
        assert np.abs(picture - np.asarray(draw_flow(expected))).max() <= 1
    assert sorted(file.name for file in output.iterdir()) == [
        f"{number:04d}-walk.{suffix}" for number in range(4) for suffix in ("flo", "png")
    ]


def test_frames_are_downscaled_as_in_training(flow_module, video):
    module = flow_module()
    _, pictures = video
    predictor = FlowPredictor(module, FrameReader({"downscale": 2}, module.model.input_adapter))
    flow = predictor.flow(frames_tensor(pictures[0], pictures[1]))
    assert flow.shape == (2, 16, 24)
    means = pictures[:2].reshape(2, 8, 2, 12, 2, 3).mean(axis=(2, 4))
    small = module.flow(torch.from_numpy(means).permute(0, 3, 1, 2)[None].float() / 127.5 - 1)[0]
    # Halfway between two pixels of the enlarged flow, twice that of the small one.
    torch.testing.assert_close(
        flow.unflatten(2, (12, 2)).unflatten(1, (8, 2)).mean(dim=(2, 4))[:, 1:-1, 1:-1].mean(dim=(1, 2)),
        2 * small[:, 1:-1, 1:-1].mean(dim=(1, 2)),
        rtol=0.1,
        atol=0.05,
    )
    assert FlowPredictor(module, predictor.reader, downscale=1).downscale == 1
    odd = predictor.flow(torch.randn(2, 3, 17, 25))
    assert odd.shape == (2, 17, 25)


def test_end_point_error_is_computed_from_true_flow(flow_module, reader, folder, tmp_path):
    module = flow_module()
    pairs = reader.expand([str(folder)])
    flows = [module.flow(reader.read(pair)[None])[0].permute(1, 2, 0).numpy() for pair in pairs]
    targets = tmp_path / "targets"
    targets.mkdir()
    for number, flow in zip((9, 10), flows, strict=True):
        true = flow + np.array([3.0, -4.0], np.float32)
        true[:2] = np.nan
        write_flo(targets / f"{number}.flo", true)
    predictions = FlowPredictor(module, reader, flow=str(targets)).predict([str(folder)])
    for prediction, flow in zip(predictions, flows, strict=True):
        assert prediction["end_point_error"] == pytest.approx(5.0, rel=1e-4)
        still = np.linalg.norm(flow + np.array([3.0, -4.0]), axis=-1)[2:].mean()
        assert prediction["without_motion"] == pytest.approx(still, rel=1e-4)
    rows = list(FlowPredictor.rows(predictions))
    assert [row["end point error"] for row in rows] == ["5.000", "5.000"]
    one = FlowPredictor(module, reader, flow=str(targets / "10.flo"))
    (prediction,) = one.predict([str(folder / f"frame_{number}.png") for number in (9, 10)])
    assert prediction["end_point_error"] == pytest.approx(5.0, rel=1e-4)
    with pytest.raises(UserError, match=r"flow: 1 flow files for 2 pairs of frames \(give one for each pair\)"):
        one.predict([str(folder)])


def test_unreadable_pairs_are_left_out(flow_module, reader, folder, tmp_path):
    module = flow_module()
    (folder / "frame_9.png").write_bytes(b"damaged")
    Image.open(folder / "frame_2.png").save(folder / "frame_11.png")
    predictor = FlowPredictor(module, reader)
    assert [prediction["input"].count("frame") for prediction in predictor.predict([str(folder)])] == [2]
    assert len(predictor.failures) == 2
    assert all("frame_9.png: not an image" in failure for failure in predictor.failures)
    write_flo(tmp_path / "small.flo", np.zeros((3, 4, 2), np.float32))
    predictor = FlowPredictor(module, reader, flow=str(tmp_path / "small.flo"))
    assert predictor.predict([str(folder / f"frame_{number}.png") for number in (2, 10)]) == []
    assert "small.flo: flow of 3x4 pixels for frames of 8x12" in predictor.failures[0]


def test_invalid_options_are_rejected(flow_module, reader, folder, tmp_path):
    module = flow_module()
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for options, message in (
        ({"overlap": -1}, "overlap=-1 must be at least 0"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"downscale": 0}, "downscale=0 must be at least 1"),
        ({"flow": str(tmp_path / "empty")}, "no .flo or .png files in the folder"),
    ):
        with pytest.raises(UserError, match=message):
            FlowPredictor(module, reader, **options)
    predictor = FlowPredictor(module, reader, output=str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"the folder cannot be created \(File exists\)"):
        predictor.predict([str(folder)])


# Through the command


@pytest.mark.slow
def test_fit_and_predict_commands(chairs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = chairs(3)
    small = {
        "model.num_latents": 4,
        "model.num_latent_channels": 16,
        "model.encoder.num_self_attention_layers_per_block": 1,
        "model.encoder.num_frequency_bands": 3,
        "model.decoder.num_cross_attention_qk_channels": 16,
        "data.image_size": "[8, 12]",
        "data.downscale": 1,
        "trainer.max_steps": 2,
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
    }
    flags = [f"--{name}={value}" for name, value in small.items()]
    assert main(["fit", "--task=optical-flow", "--data=flying-chairs", f"--data.path={root}", *flags]) == 0
    assert "val_epe" in capsys.readouterr().out
    frames = [str(root / "data" / f"00001_img{number}.ppm") for number in (1, 2)]
    truth = str(root / "data" / "00001_flow.flo")
    predict = ["predict", "--ckpt_path=last", *frames, f"--flow={truth}", "--output=out", "--format=json"]
    assert main(predict) == 0
    (prediction,) = json.loads(capsys.readouterr().out)
    assert (prediction["input"], prediction["height"], prediction["width"]) == (" ".join(frames), 10, 14)
    error = np.linalg.norm(read_flow(prediction["flow"]) - read_flow(truth), axis=-1).mean()
    assert prediction["end_point_error"] == pytest.approx(float(error), rel=1e-4)
    assert prediction["without_motion"] == pytest.approx(2**0.5, rel=1e-5)
    assert Image.open(prediction["picture"]).size == (14, 10)
    assert main([*predict[:-2], "--output=flow.csv"]) == 0
    assert capsys.readouterr().out == ""
    (row,) = csv.DictReader(Path("flow.csv").read_text().splitlines())
    assert float(row["end point error"]) == prediction["end_point_error"]
