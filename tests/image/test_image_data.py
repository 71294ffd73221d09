"""Image data modules: examples, batches, augmentation, data sets in memory."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import pickle
import random
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest
import timm.data
import torch
import torchvision.datasets
from PIL import Image
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from sample_data import sample_data

from perceiver_plugins.image import data as data_modules
from perceiver_plugins.image.data import (
    CIFAR10DataModule,
    DigitsDataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    MNISTDataModule,
)
from perceiver_plugins.image.data.arrays import in_memory
from perceiver_plugins.image.data.sources import ImageSplits
from perceiver_plugins.image.data.transforms import (
    Augmentation,
    ImageFormat,
    seeded_generators,
    shift_and_rotate,
    to_pixels,
)
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError

PLAIN = {"mean": 0.0, "std": 1.0}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


class ArrayModule(ImageDataModule):
    """Data module of given images, for training and validation."""

    def __init__(self, pixels: torch.Tensor, labels: torch.Tensor, **options: Any) -> None:
        super().__init__(**options)
        self.images = in_memory(pixels, labels, "test images")

    @property
    def source(self) -> str:
        return "test images"

    def load(self) -> ImageSplits:
        names = [f"class {label}" for label in range(int(self.images.labels.max()) + 1)]
        return ImageSplits(names, {"train": self.images, "validation": self.images})


def noise(number: int, channels: int = 3, height: int = 9, width: int = 12) -> torch.Tensor:
    """Draw images of noise."""
    return torch.randint(0, 256, (number, channels, height, width), dtype=torch.uint8)


def constant_images(number: int, classes: int = 4, **size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Create images whose pixels are 60 times their label."""
    labels = torch.arange(number) % classes
    return torch.zeros_like(noise(number, 1, **size)) + 60 * labels[:, None, None, None].to(torch.uint8), labels


def ready(module: ImageDataModule) -> ImageDataModule:
    module.setup()
    return module


def batches(loader: Any) -> list[dict[str, torch.Tensor]]:
    return list(loader)


def assert_same(one: list[dict[str, torch.Tensor]], two: list[dict[str, torch.Tensor]]) -> None:
    assert len(one) == len(two) > 0
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


EVERYTHING = {
    "min_crop": 0.5,
    "augment": "rand-m9-mstd0.5",
    "hflip": 0.5,
    "random_shift": 2,
    "random_rotation": 10.0,
    "random_erasing": 0.5,
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
}


# batches


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation(channels: int) -> None:
    pixels = noise(5, channels)
    mean, std = [0.2, 0.5, 0.7][:channels], [0.3, 1.5, 0.1][:channels]
    module = ready(ArrayModule(pixels, torch.arange(5), num_channels=channels, mean=mean, std=std, batch_size=5))
    (batch,) = batches(module.val_dataloader())
    for channel in range(channels):
        expected = (pixels[:, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(batch["pixel_values"][:, channel].double(), expected, rtol=1e-5, atol=1e-5)
    assert (batch["pixel_values"].dtype, batch["labels"].dtype) == (torch.float32, torch.int64)
    assert batch["pixel_values"].is_contiguous()
    assert batch["labels"].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(module.images.store.pixels, pixels)  # images in memory are not modified


def test_mean_and_std_are_matched_to_channels() -> None:
    module = ArrayModule(noise(2), torch.arange(2), mean=0.25, std=[0.5])
    assert (module.mean, module.std) == ((0.25,) * 3, (0.5,) * 3)
    grey = ArrayModule(noise(2), torch.arange(2), num_channels=1)
    assert grey.mean == pytest.approx([(0.485 + 0.456 + 0.406) / 3])
    assert DigitsDataModule(num_channels=3).mean == DigitsDataModule().mean * 3


def test_single_examples_and_indices_beyond_the_end() -> None:
    module = ready(ArrayModule(noise(3), torch.tensor([2, 0, 1])))
    examples = module.split_datasets["validation"]
    batch = examples.__getitems__([1, 2, 3, 4])
    assert batch["labels"].tolist() == [0, 1, IGNORED, IGNORED]
    assert batch["pixel_values"].shape == (4, 3, 9, 12)
    assert torch.equal(examples[1]["pixel_values"], batch["pixel_values"][0])
    assert examples[7]["labels"] == IGNORED
    assert torch.equal(module.split_datasets["train"][(5, 1)]["pixel_values"], batch["pixel_values"][0])


def test_properties_before_setup() -> None:
    labels = torch.tensor([0, 2, 2, 0, 2])
    module = ArrayModule(noise(5), labels)
    assert (module.num_classes, module.class_counts) == (3, [2, 0, 3])
    assert module.label_names == ["class 0", "class 1", "class 2"]
    assert (module.num_channels, module.image_size) == (3, (9, 12))


@pytest.mark.parametrize(
    ("options", "size", "min_crop", "crop_pct"),
    [
        ({}, (9, 12), 1, 1),
        ({"image_size": 16}, (16, 16), 1, 1),
        ({"image_size": 8}, (8, 8), 0.35, 0.875),
        ({"image_size": (8, 20)}, (8, 20), 1, 1),
        ({"image_size": [8, 7], "min_crop": 1.0}, (8, 7), 1, 1),
        ({"image_size": 8, "crop_pct": 0.9}, (8, 8), 0.35, 0.9),
        ({"min_crop": 0.5}, (9, 12), 0.5, 0.875),
    ],
)
def test_size_and_crops(options: dict[str, Any], size: tuple[int, int], min_crop: float, crop_pct: float) -> None:
    module = ready(ArrayModule(noise(4), torch.arange(4), batch_size=4, **options))
    assert (module.image_size, module.min_crop, module.crop_pct) == (size, min_crop, crop_pct)
    for loader in (module.train_dataloader(), module.val_dataloader()):
        (batch,) = batches(loader)
        assert batch["pixel_values"].shape == (4, 3, *size)
        assert batch["pixel_values"].is_contiguous()


def test_default_size_of_large_images_is_64() -> None:
    module = ArrayModule(noise(2, 1, 65, 100), torch.arange(2))
    assert (module.image_size, module.min_crop, module.crop_pct) == ((64, 64), 0.35, 0.875)
    assert ArrayModule(noise(2, 1, 30, 64), torch.arange(2)).image_size == (30, 64)


class OwnModule(ArrayModule):
    """Data module of the user's own images."""

    augmented_by_default = True


@pytest.mark.parametrize(
    ("module_class", "channels", "options", "expected"),
    [
        (OwnModule, 3, {}, (0.5, 4)),
        (OwnModule, 1, {}, (0.0, 4)),
        (OwnModule, 3, {"image_size": (20, 15)}, (0.5, 0)),
        (OwnModule, 3, {"image_size": (20, 15), "min_crop": 1.0}, (0.5, 1)),
        (OwnModule, 3, {"hflip": 0.0, "random_shift": 0}, (0.0, 0)),
        (OwnModule, 1, {"hflip": 0.25, "random_shift": 3}, (0.25, 3)),
        (ArrayModule, 3, {}, (0.0, 0)),
        (ArrayModule, 3, {"hflip": 0.25, "random_shift": 3}, (0.25, 3)),
    ],
)
def test_augmentation_of_own_images(
    module_class: type[ArrayModule], channels: int, options: dict[str, Any], expected: tuple[float, int]
) -> None:
    module = ready(module_class(noise(3, channels, 33, 35), torch.arange(3), **options))
    augmentation = Augmentation(module.image_format, 3, module.min_crop, **module.augmentation_options)
    assert (augmentation.hflip, augmentation.random_shift) == expected
    assert module.split_datasets["train"].augmentation is None or augmentation.any


def test_description_is_plain_data(tmp_path: Path) -> None:
    module = ArrayModule(noise(2), torch.arange(2), image_size=8)
    torch.save(module.description(), tmp_path / "d.pt")
    loaded = torch.load(tmp_path / "d.pt", weights_only=True)
    assert ImageFormat.from_description(json.loads(json.dumps(loaded))) == module.image_format
    with pytest.raises(UserError, match=r"not trained on images: .* lacks 'image_size'"):
        ImageFormat.from_description({"tokenizer": "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_size", [0, 8]),
        ("image_size", [8]),
        ("image_size", [8.5, 8]),
        ("image_size", [100_000, 100_000]),  # would exhaust the memory
        ("image_size", "32"),
        ("num_channels", "3"),
        ("num_channels", 0),
        ("mean", [math.nan] * 3),
        ("mean", "abc"),
        ("mean", [0.5] * 2),
        ("std", [0.0] * 3),
        ("std", [1.0, -1.0, 1.0]),
        ("crop_pct", 0),
        ("bit_depth", 40),
    ],
)
def test_invalid_descriptions_are_refused(name: str, value: Any) -> None:
    description = ImageFormat((8, 8), 3, (0.5,) * 3, (0.5,) * 3).description()
    with pytest.raises(UserError, match=rf"checkpoint: .*{name}.*: must be"):
        ImageFormat.from_description({**description, name: value})


# evaluation


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 96), (96, 64)])
def test_evaluation_equals_timm(height: int, width: int) -> None:
    # timm resizes before it crops: at these sizes, its crops begin at whole pixels as well.
    image = Image.fromarray(noise(1, 3, height, width)[0].permute(1, 2, 0).numpy())
    options = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "crop_pct": 0.875}
    theirs = timm.data.create_transform(28, is_training=False, interpolation="bicubic", **options)(image)
    image_format = ImageFormat((28, 28), 3, **options)
    ours = image_format.normalize(to_pixels([image_format.cut(image)]))[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (4, 12), (15, 5)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.5])
def test_evaluation_uses_the_centre_crop(size: tuple[int, int], crop_pct: float) -> None:
    # Pixel values are coordinates: their mean is the centre of the crop, their range its extent.
    columns, rows = np.meshgrid(np.arange(60), np.arange(40))
    image = Image.fromarray(np.stack([columns, rows, rows], axis=-1).astype(np.uint8))
    pixels = to_pixels([ImageFormat(size, 3, (0,), (1,), crop_pct).cut(image)])[0].float()
    assert pixels[0].mean() == pytest.approx(29.5, abs=0.6)
    assert pixels[1].mean() == pytest.approx(19.5, abs=0.6)
    scale = crop_pct * min(40 / size[0], 60 / size[1])
    step = pixels[0, :, 1:] - pixels[0, :, :-1]
    assert step.mean() == pytest.approx(scale, abs=0.35)
    assert (pixels[1, 1:] - pixels[1, :-1]).mean() == pytest.approx(scale, abs=0.35)


def test_images_of_their_own_size_are_left_as_they_are() -> None:
    pixels = noise(1, 3, 7, 5)
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    assert torch.equal(to_pixels([ImageFormat((7, 5), 3, (0,), (1,)).cut(image)]), pixels)


# random generators


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_a_function_of_seed_epoch_and_examples(channels: int) -> None:
    pixels, labels = noise(24, channels, 16, 16), torch.arange(24) % 3
    options = {"batch_size": 6, "num_channels": channels, **EVERYTHING}

    def epochs(**more: Any) -> list[dict[str, torch.Tensor]]:
        module = ready(ArrayModule(pixels, labels, **{"seed": 3, **options, **more}))
        loader = module.train_dataloader()
        found = batches(loader)
        loader.sampler.set_epoch(1)
        return found + batches(loader)

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    alone = epochs()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    assert_same(alone, epochs())
    assert_same(alone, epochs(num_workers=2))
    other = epochs(seed=4)
    assert not torch.equal(alone[0]["pixel_values"], other[0]["pixel_values"])
    examples = ready(ArrayModule(pixels, labels, seed=3, **options)).split_datasets["train"]
    first, again, later = ([(epoch, index) for index in range(6)] for epoch in (0, 0, 1))
    assert torch.equal(examples.__getitems__(first)["pixel_values"], examples.__getitems__(again)["pixel_values"])
    assert not torch.equal(examples.__getitems__(first)["pixel_values"], examples.__getitems__(later)["pixel_values"])


def test_seeded_generators_are_repeatable_and_restored() -> None:
    def draw(*key: int) -> list[float]:
        with seeded_generators(*key):
            return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    before = torch.get_rng_state()
    assert draw(1, 2, 3) == draw(1, 2, 3)
    drawn = [draw(*key) for key in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (1, -1, 3))]
    assert all(len(set(values)) == 5 for values in zip(*drawn, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


class Seen(BoringModel):
    """Model that records its training batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[dict[str, torch.Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.batches.append(batch)
        return self.layer.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert set(batch) == {"pixel_values", "labels"}


class SaveEach(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.slow
def test_training_resumes_within_an_epoch(tmp_path: Path) -> None:
    def fit(ckpt_path: Path | None = None) -> list[dict[str, torch.Tensor]]:
        model = Seen()
        trainer = Trainer(
            max_epochs=2,
            accelerator="cpu",
            callbacks=[] if ckpt_path else [SaveEach(tmp_path)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, DigitsDataModule(batch_size=300, **EVERYTHING), ckpt_path=ckpt_path)
        return model.batches

    alone = fit()
    assert len(alone) == 8
    for step in (1, 4, 6):
        assert_same(fit(tmp_path / f"{step}.ckpt"), alone[step:])


# augmentation


def augmentation(size: tuple[int, int], channels: int = 3, **options: Any) -> Augmentation:
    image_format = ImageFormat(size, channels, (0.0,) * channels, (1.0,) * channels)
    return Augmentation(image_format, options.pop("num_classes", 4), **options)


def test_shifts_are_whole_pixels_with_black_borders() -> None:
    pixels = noise(1, 2, 5, 7).expand(400, -1, -1, -1)
    result = shift_and_rotate(pixels, 2, 0.0)
    padded = torch.nn.functional.pad(pixels[0].float(), (2, 2, 2, 2))
    expected = {(y, x): padded[:, y : y + 5, x : x + 7] for y in range(5) for x in range(5)}
    found = set()
    for image in result:
        shift, nearest = min(expected.items(), key=lambda item: float((item[1] - image).abs().max()))
        torch.testing.assert_close(image, nearest, rtol=0, atol=1e-2)
        found.add(shift)
    assert found == set(expected)


def test_rotations_preserve_distances_and_stay_within_the_limit() -> None:
    height, width = 41, 61
    rows, columns = torch.meshgrid(torch.arange(height) - 20.0, torch.arange(width) - 30.0, indexing="ij")
    dot = 255 * torch.exp(-((columns - 12) ** 2 + rows**2) / 8)  # to the right of the middle
    images = shift_and_rotate(dot.byte().expand(200, 1, -1, -1), 0, 30.0)[:, 0]
    weights = images / images.sum(dim=(1, 2), keepdim=True)
    x, y = (weights * columns).sum(dim=(1, 2)), (weights * rows).sum(dim=(1, 2))
    torch.testing.assert_close(torch.hypot(x, y), torch.full_like(x, 12.0), rtol=0, atol=0.1)
    angles = torch.atan2(y, x).rad2deg()
    assert 25 < angles.max() < 30.5
    assert -30.5 < angles.min() < -25


def test_random_crops_have_the_given_areas_and_aspect_ratios() -> None:
    columns, rows = np.meshgrid(np.arange(250), np.arange(200))
    image = Image.fromarray(np.stack([columns, rows, rows], axis=-1).astype(np.uint8))
    cut = augmentation((32, 32), min_crop=0.3).cut
    areas, ratios, lefts = [], [], []
    for _ in range(200):
        pixels = to_pixels([cut(image)])[0].float()
        width, height = ((pixels[c].max() - pixels[c].min()) * 32 / 31 for c in range(2))
        areas.append(float(width * height) / (250 * 200))
        ratios.append(float(width / height))
        lefts.append(float(pixels[0].min()))
    assert 0.28 < min(areas) < 0.4
    assert 0.8 < max(areas) < 1.05
    assert 0.7 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.43
    assert max(lefts) > 50


def test_hflip() -> None:
    pixels = noise(1, 3, 4, 5).expand(500, -1, -1, -1)
    pixel_values, labels = augmentation((4, 5), hflip=0.3).batch(pixels, torch.arange(500))
    plain = pixels.float() / 255
    same = torch.isclose(pixel_values, plain).flatten(1).all(dim=1)
    mirrored = torch.isclose(pixel_values, plain.flip(-1)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 0.2 < mirrored.float().mean() < 0.4
    assert labels.tolist() == list(range(500))


def test_random_erasing() -> None:
    pixels = torch.full((300, 1, 20, 20), 255, dtype=torch.uint8)
    pixel_values, _ = augmentation((20, 20), 1, random_erasing=0.25).batch(pixels, torch.zeros(300).long())
    erased = (pixel_values == 0).float().mean(dim=(1, 2, 3))
    assert 0.15 < (erased > 0).float().mean() < 0.35
    assert 0.01 < erased[erased > 0].min() < erased.max() < 0.4


@pytest.mark.parametrize(
    "options", [{"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 1.0, "cutmix_alpha": 1.0}]
)
def test_mixed_labels_match_mixed_images(options: dict[str, float]) -> None:
    pixels, labels = constant_images(24, classes=4, height=8, width=8)
    module = ready(ArrayModule(pixels, labels, num_channels=1, batch_size=6, **PLAIN, **options))
    two_classes = 0
    for batch in batches(module.train_dataloader()):
        assert batch["labels"].shape == (6, 4)
        torch.testing.assert_close(batch["labels"].sum(dim=1), torch.ones(6))
        brightness = batch["pixel_values"].mean(dim=(1, 2, 3))
        torch.testing.assert_close(batch["labels"] @ (60 / 255 * torch.arange(4.0)), brightness, rtol=1e-4, atol=1e-4)
        two_classes += int(((batch["labels"] > 0).sum(dim=1) == 2).sum())
    assert two_classes > 0
    (batch, *_) = batches(module.val_dataloader())
    assert batch["labels"].dtype == torch.int64


@pytest.mark.parametrize(
    ("augment", "channels"), [("rand-m9-mstd0.5-inc1", 1), ("augmix-m5-w2", 3), ("original-mstd0.5", 3), ("v0", 1)]
)
def test_timm_augmentations(augment: str, channels: int) -> None:
    images = noise(1, channels, 12, 17).expand(8, -1, -1, -1)
    module = ready(ArrayModule(images, torch.arange(8), num_channels=channels, augment=augment, batch_size=8, **PLAIN))
    (batch,) = batches(module.train_dataloader())
    assert batch["pixel_values"].shape == (8, channels, 12, 17)
    assert 0 <= batch["pixel_values"].min() < batch["pixel_values"].max() <= 1
    assert (batch["pixel_values"] != images / 255).flatten(1).any(dim=1).sum() >= 2


def test_augmentation_is_disabled_by_default() -> None:
    module = ready(ArrayModule(noise(4), torch.arange(4)))
    assert module.split_datasets["train"].augmentation is None
    assert ready(ArrayModule(noise(4), torch.arange(4), hflip=0.1)).split_datasets["train"].augmentation is not None


# images in memory, and in files


@pytest.mark.parametrize("options", [{}, {"hflip": 0.5, "random_shift": 1}, EVERYTHING])
@pytest.mark.parametrize("channels", [1, 3])
def test_files_and_arrays_give_the_same_batches(channels: int, options: dict[str, Any], tmp_path: Path) -> None:
    pixels, labels = noise(12, channels, 8, 10), torch.arange(12) // 6
    for index, image in enumerate(pixels):
        path = tmp_path / f"class {int(labels[index])}" / f"{index:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((image[0] if channels == 1 else image.permute(1, 2, 0)).numpy()).save(path)
    more = {"num_channels": channels, "batch_size": 5, "hflip": 0.0, "random_shift": 0, **options}
    from_files = ImageFolderDataModule(str(tmp_path), **more)
    files = from_files.splits.images["train"]
    order = torch.tensor([int(Path(files.store.location(int(number))).stem) for number in files.numbers])
    in_files = ready(from_files).split_datasets["train"]
    memory = ready(ArrayModule(pixels[order], labels[order], **more)).split_datasets["train"]
    keys = [(2, index) for index in range(len(order))]
    assert_same([in_files.__getitems__(keys)], [memory.__getitems__(keys)])


def test_digits() -> None:
    module = ready(DigitsDataModule())
    sizes = {split: len(examples) for split, examples in module.split_datasets.items()}
    assert sizes == {"train": 1258, "validation": 269, "test": 270}
    assert (module.num_channels, module.image_size, module.num_classes) == (1, (8, 8), 10)
    assert module.label_names == list("0123456789")
    for split in sizes:
        share = np.bincount(module.splits.images[split].labels) / sizes[split]
        assert np.abs(share - 0.1).max() < 0.01
    numbers = [set(module.splits.images[split].numbers.tolist()) for split in sizes]
    assert len(set.union(*numbers)) == sum(map(len, numbers)) == 1797
    values = module.split_datasets["train"].__getitems__(range(1258))["pixel_values"]
    assert float(values.mean()) == pytest.approx(0, abs=0.01)
    assert float(values.std()) == pytest.approx(1, abs=0.01)
    other = DigitsDataModule(seed=7)
    assert torch.equal(other.splits.images["test"].numbers, module.splits.images["test"].numbers)
    assert not torch.equal(
        next(iter(ready(other).train_dataloader()))["labels"], next(iter(module.train_dataloader()))["labels"]
    )


def idx(array: np.ndarray) -> bytes:
    shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, prefix: str, number: int, packed: bool = True) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (number, 28, 28))
    labels = np.arange(number) % 10
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        data = idx(array)
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(data) if packed else data)
    return images, labels


@pytest.mark.parametrize(("module_class", "packed"), [(MNISTDataModule, True), (FashionMNISTDataModule, False)])
def test_idx_files(module_class: Any, packed: bool, tmp_path: Path) -> None:
    images, labels = write_mnist(tmp_path, "train", 30, packed)
    module = ready(module_class(str(tmp_path), val_size=10, batch_size=20, **PLAIN))
    (batch,) = batches(module.train_dataloader())
    order = sorted(range(20), key=lambda index: int(batch["pixel_values"][index].double().sum() * 255))
    expected = sorted(range(20), key=lambda index: int(images[index].sum()))
    torch.testing.assert_close(batch["pixel_values"][order, 0].double() * 255, torch.tensor(images[expected]).double())
    assert batch["labels"][order].tolist() == labels[expected].tolist()
    (batch,) = batches(module.val_dataloader())
    torch.testing.assert_close(batch["pixel_values"][:, 0].double() * 255, torch.tensor(images[20:]).double())
    with pytest.raises(DataError, match="no test data: root has no file t10k-images"):
        module.test_dataloader()
    write_mnist(tmp_path, "t10k", 7, packed)
    (batch,) = batches(ready(module_class(str(tmp_path), val_size=10)).test_dataloader())
    assert batch["labels"].tolist() == list(range(7))


def test_mnist_equals_torchvision(tmp_path: Path) -> None:
    for prefix in ("train", "t10k"):
        write_mnist(tmp_path / "MNIST" / "raw", prefix, 12, packed=False)
    theirs = torchvision.datasets.MNIST(str(tmp_path))
    module = MNISTDataModule(str(tmp_path), val_size=2)
    assert torch.equal(module.splits.images["train"].store.pixels[:, 0], theirs.data)
    assert torch.equal(module.splits.images["train"].labels, theirs.targets[:10])
    assert set(module.splits.images) == {"train", "validation", "test"}


def test_fashion_mnist_class_names() -> None:
    assert FashionMNISTDataModule().classes[0] == "T-shirt/top"


def test_real_mnist() -> None:
    module = ready(MNISTDataModule(str(sample_data("mnist"))))
    assert {split: len(examples) for split, examples in module.split_datasets.items()} == {
        "train": 50_000,
        "validation": 10_000,
    }
    assert sum(module.class_counts) == 50_000
    assert module.class_counts[:2] == [4932, 5678]
    # Statistics of a sample: neighbouring images are from two sources, with thin and thick strokes.
    values = module.split_datasets["train"].__getitems__(range(0, 50_000, 11))["pixel_values"]
    assert float(values.mean()) == pytest.approx(0, abs=0.01)
    assert float(values.std()) == pytest.approx(1, abs=0.01)


def test_downloads_are_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def download(self: torchvision.datasets.MNIST) -> None:
        print("Failed to download (trying next)")
        for prefix in ("train", "t10k"):
            write_mnist(Path(self.raw_folder), prefix, 12, packed=False)

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    module = ready(MNISTDataModule(val_size=2))
    assert len(module.split_datasets["test"]) == 12
    assert (tmp_path / "cache" / "images" / "MNIST" / "MNIST" / "raw").is_dir()
    assert capsys.readouterr().out == ""


def test_failed_download_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("Error downloading\ntrain-images")

    for module_class in (FashionMNISTDataModule, CIFAR10DataModule):
        monkeypatch.setattr(module_class.torchvision_class, "download", fail)
        name = module_class.torchvision_class.__name__
        with pytest.raises(DataError, match=rf"{name} could not be downloaded .*; set root to a folder") as caught:
            _ = module_class().num_classes
        assert "\n" not in str(caught.value)


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(name: str, number: int) -> str:
        images = np.random.default_rng(number).integers(0, 256, (number, 3072)).astype(np.uint8)
        data = pickle.dumps({"data": images, "labels": [index % 10 for index in range(number)]})
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    theirs = torchvision.datasets.CIFAR10
    meta = pickle.dumps({"label_names": [*"abcdefghij"]})
    (folder / "batches.meta").write_bytes(meta)
    # torchvision verifies checksums.
    monkeypatch.setattr(theirs, "train_list", [[f"data_batch_{n}", write(f"data_batch_{n}", 10 + n)] for n in (1, 2)])
    monkeypatch.setattr(theirs, "test_list", [["test_batch", write("test_batch", 5)]])
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": hashlib.md5(meta).hexdigest()})
    for root in (tmp_path, folder):
        module = ready(CIFAR10DataModule(str(root), val_size=3, batch_size=8, **PLAIN))
        (batch,) = batches(module.val_dataloader())
        expected = theirs(str(tmp_path)).data[-3:]
        torch.testing.assert_close(batch["pixel_values"].permute(0, 2, 3, 1) * 255, torch.tensor(expected).float())
        assert {split: len(examples) for split, examples in module.split_datasets.items()} == {
            "train": 20,
            "validation": 3,
            "test": 5,
        }
    assert module.label_names[3] == "cat"
    (folder / "data_batch_1").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"\(data_batch_1, .*, test_batch, batches.meta\) are missing or damaged"):
        _ = CIFAR10DataModule(str(folder)).num_classes


# errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size=0 must be a height and a width of at least 1"),
        ({"image_size": (8, -1)}, r"image_size=\(8, -1\) must be"),
        ({"num_channels": 2}, "num_channels=2 must be 1"),
        ({"mean": [0.1, 0.2]}, r"mean=\[0.1, 0.2\] must be one number, or one for each of the 1 channels"),
        ({"std": 0.0}, "std=0.0 must be more than 0"),
        ({"crop_pct": 0.0}, "crop_pct=0.0 must be more than 0 and at most 1"),
        ({"min_crop": 1.5}, "min_crop=1.5 must be more than 0 and at most 1"),
        ({"hflip": 1.1}, "hflip=1.1 must be from 0 to 1"),
        ({"random_erasing": -0.1}, "random_erasing=-0.1 must be from 0 to 1"),
        ({"random_shift": -1}, "random_shift=-1 must be at least 0"),
        ({"random_rotation": 200}, "random_rotation=200 must be from 0 to 180"),
        ({"mixup_alpha": -1.0}, "mixup_alpha=-1.0 must be at least 0"),
        ({"augment": "rand-m9-q3"}, "augment='rand-m9-q3' is not one of timm's .*; examples: rand-m9-mstd0.5"),
        ({"augment": "rnad-m9"}, "augment='rnad-m9' is not one of timm's"),
        ({"augment": "augmix-mx3"}, "augment='augmix-mx3' is not one of timm's"),
        ({"augment": ""}, "augment='' is not one of timm's"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        DigitsDataModule(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte", lambda data: data[:-1], "damaged: 23519 bytes, expected 30x28x28"),
        ("train-images-idx3-ubyte", lambda data: b"\x89PNG" + data, "not an idx file of bytes in 3 dimensions"),
        ("train-labels-idx1-ubyte", lambda data: b"", "not an idx file of bytes in 1 dimensions"),
        ("train-labels-idx1-ubyte", lambda data: idx(np.zeros(29)), "29 labels for the 30 images"),
        ("train-labels-idx1-ubyte", lambda data: idx(np.arange(30)), "the label of image 10 is 10; it must be from 0"),
    ],
)
def test_damaged_idx_files(name: str, change: Any, message: str, tmp_path: Path) -> None:
    write_mnist(tmp_path, "train", 30, packed=False)
    path = tmp_path / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{name}: .*{message}") as caught:
        _ = MNISTDataModule(str(tmp_path), val_size=10).num_classes
    assert "\n" not in str(caught.value)


def test_missing_and_truncated_idx_files(tmp_path: Path) -> None:
    write_mnist(tmp_path, "train", 30)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"labels-idx1-ubyte.gz: the compressed data is damaged"):
        _ = MNISTDataModule(str(tmp_path)).num_classes
    labels.rename(tmp_path / "train-labels.gz")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte not found, with or without .gz \(did you mean"):
        _ = MNISTDataModule(str(tmp_path)).num_classes
    write_mnist(tmp_path, "train", 30)
    with pytest.raises(DataError, match=r"val_size=10000 leaves no images for training \(there are 30\)"):
        _ = MNISTDataModule(str(tmp_path)).num_classes
    with pytest.raises(DataError, match=r"root: file or folder .*/mnsit not found"):
        MNISTDataModule(str(tmp_path / "mnsit"))


@pytest.mark.parametrize("name", [name for name in data_modules.__all__ if name != "ImageDataModule"])
def test_all_flags_have_help(name: str) -> None:
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(getattr(data_modules, name), "data")
    flags = {action.dest: action.help for action in parser._actions if action.dest.startswith("data.")}
    assert {"data.image_size", "data.augment", "data.mixup_alpha", "data.seed", "data.num_workers"} <= set(flags)
    assert all(flags.values()), [flag for flag, text in flags.items() if not text]


def test_flags_are_parsed() -> None:
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DigitsDataModule, "data", instantiate=False)
    values = parser.parse_args(["--data.image_size=[8, 9]", "--data.mean=0.5", "--data.std=[0.5]"]).as_dict()["data"]
    module = DigitsDataModule(**values)
    assert (module.image_size, module.mean, module.std) == ((8, 9), (0.5,), (0.5,))
    assert DigitsDataModule(**parser.parse_args(["--data.image_size=9"]).as_dict()["data"]).image_size == (9, 9)
