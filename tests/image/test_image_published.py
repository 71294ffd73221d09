"""Preprocessing of published models against the image processor of ``transformers``."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from perceiver_plugins.huggingface.image import _data, _processor
from perceiver_plugins.huggingface.image_processor import ZooImageProcessor
from perceiver_plugins.image.data.transforms import ImageFormat
from perceiver_plugins.image.reading import ImageReader
from perceiver_plugins.sdk.prediction.predictor import Predictor
from perceiver_registry import UserError

SMALL = {"size": {"height": 24, "width": 24}, "crop_size": {"height": 28, "width": 28}}

OPTIONS: list[dict[str, Any]] = [
    {},
    {"do_normalize": False},
    {"do_rescale": False},
    {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1 / 127.5},
    {"rescale_factor": 0.01, "do_normalize": False},
    {"image_mean": [0.1, 0.5, 0.9], "image_std": [0.2, 0.3, 0.4]},
    {"image_mean": 0.5, "image_std": 0.25},
    {"resample": 0},
    {"resample": 1},
    {"resample": 2},
    {"do_center_crop": False},
    {"do_resize": False},
    {"do_resize": False, "do_center_crop": False},
    {"crop_size": {"height": 24, "width": 24}},
    {"crop_size": {"height": 20, "width": 22}},
    {"size": {"height": 17, "width": 31}, "crop_size": {"height": 19, "width": 41}},
    {"size": 13, "crop_size": 15},
    {"do_convert_rgb": True},
    {"image_processor_type": "PerceiverImageProcessorFast"},
    {"feature_extractor_type": "PerceiverFeatureExtractor", "image_processor_type": None},
]

SIZES = [(40, 60), (61, 33), (7, 90), (24, 24)]


def describe_data(folder, config: dict[str, Any] | None) -> dict[str, Any]:
    """Return the data description of a published model with a preprocessor_config.json."""
    folder.mkdir(exist_ok=True)
    if config is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(config))
    description = _data(transformers.PerceiverConfig(image_size=24), str(folder))
    return json.loads(json.dumps(description))  # as stored in a checkpoint


def picture(size: tuple[int, int], mode: str) -> Image.Image:
    """Create a picture of noise; size: (height, width)."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return image.quantize(32) if mode == "P" else image.convert(mode)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_preprocessing_equals_transformers(tmp_path, options):
    config = {"image_processor_type": "PerceiverImageProcessor", **SMALL, **options}
    description = describe_data(tmp_path / "model", config)
    reader = ImageReader(description, None)
    options = {name: value for name, value in config.items() if not name.endswith("_type")}
    theirs = transformers.PerceiverImageProcessor(**options)
    again = ZooImageProcessor.from_description(description)
    exported = _processor(None, description)
    # One of 256 levels in the units of the output.
    level = options.get("rescale_factor", 1 / 255) if options.get("do_rescale", True) else 1.0
    if options.get("do_normalize", True):
        level /= float(np.min(options.get("image_std", 0.224)))
    for size in SIZES:
        for mode in ("RGB", "L", "P") if size == SIZES[0] else ("RGB",):
            image = picture(size, mode)
            file = tmp_path / "image.png"
            image.save(file)
            expected = torch.as_tensor(theirs(image.convert("RGB"), return_tensors="pt")["pixel_values"]).float()
            found = reader.collate([reader.read(str(file))])["pixel_values"]
            assert found.shape == expected.shape
            for each in (found, again(image, return_tensors="pt")["pixel_values"]):
                assert (each - expected).abs().max() <= 1.001 * level
            same = exported(image.convert("RGB"), return_tensors="pt")["pixel_values"]
            assert (torch.as_tensor(same).float() - expected).abs().max() <= 1.001 * level


def test_defaults_without_a_preprocessor_config(tmp_path):
    published = describe_data(tmp_path / "model", None)["processor"]
    theirs = transformers.PerceiverImageProcessor()
    for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "resample"):
        assert published[name] == getattr(theirs, name), name
    assert published["rescale_factor"] == pytest.approx(theirs.rescale_factor)
    assert published["image_mean"] == list(theirs.image_mean)
    assert published["image_std"] == list(theirs.image_std)
    assert (published["size"], published["crop_size"]) == ({"height": 24, "width": 24}, {"height": 27, "width": 27})


@pytest.mark.parametrize(
    ("config", "mean", "std"),
    [
        ({}, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ({"do_normalize": False}, [0.0] * 3, [1.0] * 3),
        ({"rescale_factor": 2 / 255, "image_mean": 1, "image_std": 2}, [0.5] * 3, [1.0] * 3),
        ({"do_rescale": False, "image_mean": 127.5, "image_std": 255}, [0.5] * 3, [1.0] * 3),
        ({"do_rescale": False, "do_normalize": False}, [0.0] * 3, [1 / 255] * 3),
    ],
    ids=str,
)
def test_image_format_has_the_same_range(tmp_path, config, mean, std):
    image_format = ImageFormat.from_description(describe_data(tmp_path / "model", config))
    assert image_format.mean == pytest.approx(mean)
    assert image_format.std == pytest.approx(std)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "its class is 'ViTImageProcessor'"),
        ({"do_pad": True}, "do_pad=True is not supported"),
        ({"data_format": "channels_last"}, "data_format='channels_last' is not supported"),
        ({"size": {"shortest_edge": 24}}, "size={'shortest_edge': 24} must be a height and a width"),
        ({"size": 0}, "size=0 must be a height and a width"),
        ({"resample": 4}, "resample=4 must be one of 0 (nearest), 1 (Lanczos), 2 (bilinear), 3 (bicubic)"),
        ({"do_resize": "no"}, "do_resize='no' must be true or false"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std must not be 0"),
        ({"image_mean": [0.5, 0.5]}, "image_mean=[0.5, 0.5] must be one number, or one for each of 3 channels"),
        ({"rescale_factor": 0}, "rescale_factor=0 must be more than 0"),
        ([1], "cannot be used"),
    ],
    ids=str,
)
def test_unsupported_options_are_rejected(tmp_path, config, message):
    with pytest.raises(UserError) as caught:
        describe_data(tmp_path / "model", config)
    assert str(caught.value).startswith(f"{tmp_path}/model: its preprocessor_config.json cannot be used: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class MeanPredictor(Predictor):
    """Predictor of the mean of the pixel values."""

    def answers(self, output, examples):
        return [{"mean": mean} for mean in output.tolist()]

    @staticmethod
    def rows(predictions):
        return iter(())


def test_images_that_are_not_resized_are_predicted_in_batches_of_one_size(tmp_path):
    reader = ImageReader(describe_data(tmp_path / "model", {"do_resize": False, "do_center_crop": False}), None)
    files = [str(tmp_path / f"{number}.png") for number in range(4)]
    for file, size in zip(files, [(30, 40), (50, 60), (30, 40), (3, 3)], strict=True):
        picture(size, "RGB").save(file)

    class Mean(nn.Module):
        def forward(self, batch, positions):
            if min(batch["pixel_values"].shape[2:]) < 5:
                raise ValueError("images of 3x3 pixels are too small")
            return batch["pixel_values"].mean(dim=(1, 2, 3))

    module = SimpleNamespace(model=Mean(), device=torch.device("cpu"))
    predictor = MeanPredictor(module, reader, batch_size=3)
    predictions = predictor.predict([*files, str(tmp_path / "missing.png")])
    assert [prediction["input"] for prediction in predictions] == files[:3]
    for prediction in predictions:
        assert prediction["mean"] == pytest.approx(reader.read(prediction["input"]).pixel_values.mean().item())
    assert predictor.failures == [
        f"{files[3]}: the model does not support this input (images of 3x3 pixels are too small)",
        f"{tmp_path}/missing.png: cannot be read (No such file or directory)",
    ]
    with pytest.raises(UserError, match=r"^images of different sizes cannot be batched$"):
        reader.collate([reader.read(file) for file in files[:2]])
