"""Images in folders and archives: layouts, file formats, errors."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sample_data import sample_data

from perceiver_plugins.image.data import ImageFolderDataModule, ImageNetDataModule
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError


def write(path: Path, value: int = 128, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
    """Write an image of one colour; size: (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of two classes, in which each image has a different value."""
    root = tmp_path / "pets"
    for index in range(10):
        write(root / "cat" / f"{index}.png", index)
        write(root / "dog" / f"{index}.png", 100 + index)
    return root


def pack(root: Path, path: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, f"{prefix}{file.relative_to(root).as_posix()}")
    return path


def ready(module: ImageFolderDataModule) -> ImageFolderDataModule:
    module.setup()
    return module


def read_all(module: ImageFolderDataModule) -> int:
    """Read all examples and return their number."""
    return sum(len(batch["labels"]) for batch in (*module.train_dataloader(), *module.val_dataloader()))


def contents(module: ImageFolderDataModule) -> dict[str, list[tuple[int, str]]]:
    """Return value and class of each image in each split."""
    found = {}
    for split, images in ready(module).splits.images.items():
        loader = module._evaluation_loader(split)
        values = torch.cat([batch["pixel_values"][:, 0].mean(dim=(1, 2)) for batch in loader])
        values = (values * module.std[0] + module.mean[0]) * 255
        names = [module.label_names[label] for label in images.labels.tolist()]
        found[split] = list(zip(values.round().int().tolist(), names, strict=True))
    return found


# layouts


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("nested", [False, True])
def test_folder_per_class(kind: str, nested: bool, folder: Path, tmp_path: Path) -> None:
    write(folder / "cat" / ".hidden.png", 200)
    write(folder / "cat" / "deeper" / "x.PNG", 50)
    (folder / "dog" / "readme.txt").write_text("no image")
    write(folder / ".cache" / "a.png")
    write(folder / "__MACOSX" / "cat" / "a.png")
    write(folder / "stray.png") if not nested else None
    path = pack(folder, tmp_path / "pets.zip", "pets/" if nested else "") if kind == "zip" else folder
    if kind == "folder" and nested:
        path = folder.parent
    module = ImageFolderDataModule(str(path), val_fraction=0.2, random_shift=0)
    found = contents(module)
    assert (module.label_names, module.num_classes, module.num_channels) == (["cat", "dog"], 2, 3)
    assert (module.image_size, module.class_counts) == ((10, 12), [9, 8])
    expected = [(index, "cat") for index in (*range(10), 50)] + [(100 + index, "dog") for index in range(10)]
    assert sorted(found["train"] + found["validation"]) == sorted(expected)
    assert [name for _, name in found["validation"]] == ["cat"] * 2 + ["dog"] * 2
    again = ImageFolderDataModule(str(path), val_fraction=0.2, random_shift=0, seed=9)
    assert contents(again) == found
    with pytest.raises(DataError, match="no test data: no folder 'test'"):
        module.test_dataloader()


@pytest.mark.parametrize(
    ("kind", "names"), [("folder", ("train", "val", "test")), ("zip", ("Training", "validation", "testing"))]
)
def test_folder_per_split(kind: str, names: tuple[str, ...], tmp_path: Path) -> None:
    root = tmp_path / "root"
    for value, split in enumerate(names):
        write(root / split / "train" / "1.png", 10 * value)  # a class of that name
        write(root / split / "val" / "1.png", 10 * value + 1)
    write(root / "annotations" / "1.png")
    path = pack(root, tmp_path / "root.zip") if kind == "zip" else root
    assert contents(ImageFolderDataModule(str(path))) == {
        "train": [(0, "train"), (1, "val")],
        "validation": [(10, "train"), (11, "val")],
        "test": [(20, "train"), (21, "val")],
    }


def test_class_may_be_named_train(folder: Path) -> None:
    (folder / "dog").rename(folder / "train")
    assert ImageFolderDataModule(str(folder)).label_names == ["cat", "train"]


def test_class_without_validation_images_is_reported(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    folder.rename(root / "train")
    write(root / "val" / "dog" / "1.png")
    module = ready(ImageFolderDataModule(str(root)))
    assert caplog.messages == [f"{root}/val: no folder for 1 of 2 classes: 'cat'"]
    assert next(iter(module.val_dataloader()))["labels"].tolist() == [1]


def test_cifar_archive() -> None:
    archive_path = sample_data("cifar10-jpeg/train-500-per-class.zip")
    module = ready(ImageFolderDataModule(str(archive_path), val_fraction=0.2))
    assert (module.num_classes, module.image_size, module.class_counts) == (10, (32, 32), [400] * 10)
    batch = next(iter(module.val_dataloader()))
    assert batch["pixel_values"].shape == (64, 3, 32, 32)
    plain = {"num_channels": 1, "mean": 0.5, "std": 0.25, "hflip": 0.0, "random_shift": 0}
    again = ready(ImageFolderDataModule(str(archive_path), **plain))
    store = again.splits.images["train"].store
    assert store.location(7) == f"{archive_path}/train/airplane/0070.jpg"
    with zipfile.ZipFile(archive_path) as archive, archive.open("train/airplane/0070.jpg") as file:
        expected = torch.tensor(np.asarray(Image.open(file).convert("L")))
    (index,) = torch.nonzero(again.splits.images["train"].numbers == 7)[:, 0].tolist()
    image = again.split_datasets["train"][(0, index)]["pixel_values"][0]
    torch.testing.assert_close(image, (expected / 255 - 0.5) / 0.25, rtol=1e-5, atol=1e-5)


def test_worker_processes_read_an_archive(folder: Path, tmp_path: Path) -> None:
    path = str(pack(folder, tmp_path / "pets.zip"))
    alone, helped = (
        ready(ImageFolderDataModule(path, batch_size=2, hflip=0.5, num_workers=workers, seed=1)) for workers in (0, 2)
    )
    _ = helped.splits.images["train"].read(0, 3)  # this process has the archive open too
    pairs = zip(alone.train_dataloader(), helped.train_dataloader(), strict=True)
    for one, other in pairs:
        assert torch.equal(one["pixel_values"], other["pixel_values"])
        assert torch.equal(one["labels"], other["labels"])


def test_imagenet_in_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("n01443537", "n01440764", "other"):
            write(tmp_path / split / name / "1.JPEG")
    module = ImageNetDataModule(str(tmp_path))
    assert module.label_names == ["tench, Tinca tinca", "goldfish, Carassius auratus", "other"]
    assert set(module.splits.images) == {"train", "validation"}
    assert (module.hflip, module.default_image_size, module.default_min_crop) == (0.5, (224, 224), 0.08)
    module.setup()
    with pytest.raises(DataError, match="the labels of ImageNet's test images are not public"):
        module.test_dataloader()


@pytest.mark.parametrize("packed", [False, True])
def test_examples_can_be_pickled(packed: bool, folder: Path, tmp_path: Path) -> None:
    path = pack(folder, tmp_path / "pets.zip") if packed else folder
    options = {"augment": "rand-m9-mstd0.5", "mixup_alpha": 0.2, "cutmix_alpha": 0.2, "random_erasing": 0.5}
    examples = ready(ImageFolderDataModule(str(path), **options)).split_datasets["train"]
    sent = pickle.loads(pickle.dumps(examples))
    keys = [(0, index) for index in range(5)]
    assert torch.equal(sent.__getitems__(keys)["pixel_values"], examples.__getitems__(keys)["pixel_values"])


# kinds of images


MODES = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "jpg": ["L", "RGB", "CMYK", "YCbCr"],
    "tiff": ["1", "L", "RGBA", "CMYK", "I;16", "I"],
    "gif": ["P"],
    "webp": ["RGB", "RGBA"],
    "bmp": ["1", "RGB"],
    "ppm": ["RGB"],
    "pgm": ["L", "I"],
}


@pytest.mark.parametrize(
    ("suffix", "mode", "num_channels"),
    [
        (suffix, mode, 1 if (index + row) % 2 else 3)
        for row, (suffix, modes) in enumerate(MODES.items())
        for index, mode in enumerate(modes)
    ],
)
def test_image_modes(suffix: str, mode: str, num_channels: int, folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    folder.rename(root / "train")
    value = 255 if mode == "1" else 102  # an entry of Pillow's default palette
    path = write(root / "val" / "cat" / f"a.{suffix}", value, mode="L" if mode.startswith("I") else mode)
    if mode.startswith("I"):  # 16 bits
        Image.fromarray(np.full((10, 12), 256 * value + 255, np.uint16 if mode == "I;16" else np.int32)).save(path)
    write(root / "val" / "dog" / "b.png", 7)
    module = ready(ImageFolderDataModule(str(root), num_channels=num_channels, mean=0.0, std=1 / 255))
    (batch,) = module.val_dataloader()
    assert batch["pixel_values"].shape == (2, num_channels, 10, 12)
    assert (batch["pixel_values"][0] - value).abs().max() <= 1.01
    assert (batch["pixel_values"][1] - 7).abs().max() < 0.01


def test_greyscale_conversion_has_itu_r_601_weights(folder: Path) -> None:
    Image.new("RGB", (12, 10), (200, 100, 50)).save(folder / "cat" / "0.png")
    module = ImageFolderDataModule(str(folder), num_channels=1)
    images = module.splits.images["train"]
    files = [images.store.location(number) for number in images.numbers.tolist()]
    (index,) = (index for index, file in enumerate(files) if file.endswith("cat/0.png"))
    grey = np.asarray(images.read(index, 1))
    assert grey == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, abs=1)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0] = 255
    for name in ("a", "b"):
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise
        path = tmp_path / name / "1.png"
        path.parent.mkdir()
        Image.fromarray(np.rot90(upright)).save(path, exif=exif)
    image = ImageFolderDataModule(str(tmp_path)).splits.images["train"].read(0, 3)
    assert np.array_equal(np.asarray(image), upright)


def test_mixed_sizes_and_modes(folder: Path) -> None:
    write(folder / "cat" / "large.jpg", size=(300, 400))
    write(folder / "cat" / "flat.png", size=(90, 3), mode="L")
    write(folder / "dog" / "dot.png", size=(1, 1), mode="RGBA")
    module = ready(ImageFolderDataModule(str(folder), val_fraction=0.5, batch_size=10))
    assert module.image_size == (64, 64)
    for split in ("train", "validation"):
        for batch in module._evaluation_loader(split):
            assert batch["pixel_values"].shape[1:] == (3, 64, 64)
    small = ready(ImageFolderDataModule(str(folder), image_size=(6, 8), min_crop=0.2, batch_size=10))
    assert next(iter(small.train_dataloader()))["pixel_values"].shape == (10, 3, 6, 8)


# errors


def damage(path: Path, part: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])


def noisy(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("kind", "packed"),
    [
        ("truncated.jpg", False),
        ("truncated.png", True),
        ("text.png", False),
        ("empty.jpg", True),
        ("float.tiff", False),
    ],
)
def test_damaged_image_is_reported(
    kind: str, packed: bool, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "dog" / kind
    content = kind.partition(".")[0]
    if content == "truncated":
        damage(noisy(path))
    elif content == "float":
        Image.fromarray(np.ones((10, 12), np.float32)).save(path)
    else:
        path.write_text("no image" if content == "text" else "")
    where = pack(folder, tmp_path / "pets.zip") if packed else folder
    options: dict[str, Any] = {"batch_size": 19, "val_fraction": 0.05}
    module = ready(ImageFolderDataModule(str(where), **options))
    with pytest.raises(DataError) as caught:
        read_all(module)
    assert str(caught.value).startswith(f"{where}/dog/{kind}: ")
    assert str(caught.value).endswith("skip_unreadable=true leaves such images out")
    assert "\n" not in str(caught.value)
    module = ready(ImageFolderDataModule(str(where), skip_unreadable=True, **options))
    (message,) = caplog.messages
    assert message.startswith(f"{where}: 1 of 21 images are left out: {where}/dog/{kind}: ")
    assert "\n" not in message
    assert module.class_counts == [9, 9]
    assert read_all(module) == 20


def test_error_in_a_worker_is_one_line(folder: Path) -> None:
    damage(noisy(folder / "dog" / "3.png"))
    module = ready(ImageFolderDataModule(str(folder), num_workers=1, val_fraction=0.5))
    with pytest.raises(DataError) as caught:
        read_all(module)
    assert str(caught.value).startswith(f"{folder}/dog/3.png: the image cannot be read (")
    assert str(caught.value).endswith("); skip_unreadable=true leaves such images out")
    assert "\n" not in str(caught.value)


def test_deleted_file_is_reported(folder: Path) -> None:
    module = ready(ImageFolderDataModule(str(folder), val_fraction=0.5))
    (folder / "cat" / "3.png").unlink()
    with pytest.raises(DataError, match=r"cat/3.png: the image cannot be read \(No such file or directory\)"):
        read_all(module)


def test_damaged_archive_is_reported(folder: Path, tmp_path: Path) -> None:
    path = pack(folder, tmp_path / "pets.zip")
    data = bytearray(path.read_bytes())
    offset = data.index(b"cat/3.png") + len("cat/3.png") + 20
    data[offset] ^= 0xFF
    path.write_bytes(data)
    module = ready(ImageFolderDataModule(str(path), val_fraction=0.5))
    with pytest.raises(
        DataError, match=r"cat/3.png: cannot be read from the archive .*; skip_unreadable=true"
    ) as caught:
        read_all(module)
    assert "\n" not in str(caught.value)


def empty_class(folder: Path) -> None:
    (folder / "ant").mkdir()


def empty_class_in_validation(folder: Path) -> None:
    splits(folder, "train")
    write(folder / "val" / "cat" / "1.png")
    (folder / "val" / "dog").mkdir()


def other_class_in_validation(folder: Path) -> None:
    splits(folder, "train")
    write(folder / "val" / "dogs" / "1.png")


def no_classes_in_validation(folder: Path) -> None:
    splits(folder, "train")
    write(folder / "val" / "1.png")


def empty_validation(folder: Path) -> None:
    splits(folder, "train")
    (folder / "val").mkdir()


def no_train(folder: Path) -> None:
    splits(folder, "val")


def splits(folder: Path, name: str) -> None:
    for label in ("cat", "dog"):
        (folder / name).mkdir(exist_ok=True)
        (folder / label).rename(folder / name / label)


def two_validations(folder: Path) -> None:
    splits(folder, "train")
    write(folder / "val" / "cat" / "1.png")
    write(folder / "valid" / "cat" / "1.png")


def splits_without_classes(folder: Path) -> None:
    (folder / "cat").rename(folder / "train")
    (folder / "dog").rename(folder / "val")


def one_class(folder: Path) -> None:
    for file in (folder / "dog").iterdir():
        file.unlink()
    (folder / "dog").rmdir()


def no_classes(folder: Path) -> None:
    for label in ("cat", "dog"):
        for file in (folder / label).iterdir():
            file.rename(folder / f"{label}{file.name}")
        (folder / label).rmdir()


def no_images(folder: Path) -> None:
    for file in folder.rglob("*.png"):
        file.rename(file.with_suffix(".txt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (empty_class, "pets/ant: no images in the folder of this class"),
        (empty_class_in_validation, "pets/val/dog: no images in the folder of this class"),
        (other_class_in_validation, r"pets/val/dogs: not a class of .*/train \(did you mean 'dog'\?\)"),
        (no_classes_in_validation, "pets/val: no folders of classes"),
        (empty_validation, "pets/val: no folders of classes"),
        (no_train, "a folder 'val', but no 'train' with folders of classes"),
        (two_validations, "both val and valid are for validation"),
        (splits_without_classes, "pets/(train|val): no folders of classes in it"),
        (one_class, r"a single folder of a class, 'cat' \(at least two"),
        (no_classes, r"no folders of classes \(images must be in a folder for each class"),
        (no_images, r"pets: no images \(.jpg, "),
    ],
)
def test_wrong_folders(change: Any, message: str, folder: Path, tmp_path: Path) -> None:
    change(folder)
    path = folder
    if change in (empty_class, no_train, no_images):
        path = pack(folder, tmp_path / "pets.zip")
        message = message.replace("pets/", "pets.zip/").replace("pets:", "pets.zip:")
    with pytest.raises(DataError, match=message) as caught:
        _ = ImageFolderDataModule(str(path)).num_classes
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_wrong_paths(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"path: file or folder .*/pet not found \(did you mean 'pets'\?\)"):
        ImageFolderDataModule(str(tmp_path / "pet"))
    text = tmp_path / "a.txt"
    text.write_text("no archive")
    with pytest.raises(DataError, match=r"a.txt: neither a folder nor a zip archive, or a damaged one"):
        _ = ImageFolderDataModule(str(text)).num_classes
    with pytest.raises(UserError, match=r"val_fraction=0\.0 must be more than 0"):
        ImageFolderDataModule(str(folder), val_fraction=0.0)


def test_too_few_images_for_validation(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / name / "1.png")
    module = ready(ImageFolderDataModule(str(tmp_path)))
    assert len(module.split_datasets["train"]) == 2
    with pytest.raises(DataError, match=r"no validation data \(too few images"):
        module.val_dataloader()


def test_linked_folders_are_read(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("cat", "dog"):
        os.symlink(folder / name, root / name)
    assert ImageFolderDataModule(str(root)).class_counts == [9, 9]


def test_classes_of_a_trained_model_need_no_training_images(tmp_path: Path) -> None:
    for name in ("bird", "dog"):
        write(tmp_path / "images" / "test" / name / "1.png")
    module = ImageFolderDataModule(str(tmp_path / "images"), image_size=8)
    with pytest.raises(DataError, match="no 'train' with folders of classes"):
        module.setup()
    module = ImageFolderDataModule(str(tmp_path / "images"))
    module.known = {"label_names": ["ant", "bird", "cat", "dog"], "image_size": [6, 8], "crop_pct": 0.9}
    module.setup("test")
    assert module.label_names == ["ant", "bird", "cat", "dog"]
    assert (module.image_size, module.crop_pct) == ((6, 8), 0.9)
    assert [batch["labels"].tolist() for batch in module.test_dataloader()] == [[1, 3]]
