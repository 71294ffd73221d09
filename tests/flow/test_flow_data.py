"""Data modules of optical flow: files, transformations of pairs, examples."""

from __future__ import annotations

import pickle
import shutil
import zipfile

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from perceiver_plugins.flow.data import FlyingChairsDataModule, SintelDataModule, StereoPairDataModule
from perceiver_plugins.flow.data.pairs import FlowPair, crop_pair, mirror_pair, reduce_pair
from perceiver_plugins.flow.data.stereo import load_stereo_pair
from perceiver_plugins.flow.files import write_flo
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry import UserError


def moving_pair(height: int, width: int, down: int, right: int, seed: int = 0) -> FlowPair:
    """Make a pair of a random image that moves as a whole. Flow out of the frame is unknown."""
    rng = np.random.default_rng(seed)
    around = rng.integers(0, 256, (3 * height, 3 * width, 3), dtype=np.uint8)
    first = around[height : 2 * height, width : 2 * width]
    second = around[height - down : 2 * height - down, width - right : 2 * width - right]
    flow = np.full((height, width, 2), (right, down), np.float32)
    rows, columns = np.mgrid[:height, :width]
    inside = (rows + down >= 0) & (rows + down < height) & (columns + right >= 0) & (columns + right < width)
    flow[~inside] = np.nan
    return FlowPair(first, second, flow)


def assert_flow_is_correct(pair: FlowPair) -> None:
    """Check that pixels with known flow inside the frame have the same colour in both frames."""
    height, width = pair.size
    rows, columns = np.nonzero(np.isfinite(pair.flow).all(axis=-1))
    right, down = np.rint(pair.flow[rows, columns]).astype(int).T
    inside = (rows + down >= 0) & (rows + down < height) & (columns + right >= 0) & (columns + right < width)
    assert inside.sum() > 0.1 * height * width
    rows, columns, right, down = (each[inside] for each in (rows, columns, right, down))
    np.testing.assert_array_equal(pair.first[rows, columns], pair.second[rows + down, columns + right])


# Transformations


@pytest.mark.parametrize("motion", [(0, 0), (2, -3), (-1, 4)])
def test_crops_and_mirrored_pairs_have_correct_flow(motion):
    pair = moving_pair(16, 20, *motion)
    assert_flow_is_correct(pair)
    for shift in ((0, 0), (3, -2), (-4, 1)):
        part = crop_pair(pair, 4, 5, (8, 10), shift)
        assert part.size == (8, 10)
        assert_flow_is_correct(part)
        for flips in ((True, False), (False, True), (True, True)):
            assert_flow_is_correct(mirror_pair(part, *flips))
    unchanged = mirror_pair(pair, False, False)
    assert all(np.array_equal(one, other, equal_nan=True) for one, other in zip(pair, unchanged, strict=True))


def test_frames_and_flow_are_averaged():
    first = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    flow = np.arange(5 * 7 * 2, dtype=np.float32).reshape(5, 7, 2)
    flow[0, 0] = np.nan
    flow[2:4, 2:4] = np.nan
    small = reduce_pair(FlowPair(first, first[::-1], flow), 2)
    assert small.size == (2, 3)
    np.testing.assert_array_equal(small.first[1, 2], np.rint(first[2:4, 4:6].mean(axis=(0, 1))))
    np.testing.assert_allclose(small.flow[0, 0], (flow[0, 1] + flow[1, 0] + flow[1, 1]) / 3 / 2)
    assert np.isnan(small.flow[1, 1]).all()
    np.testing.assert_allclose(small.flow[1, 2], flow[2:4, 4:6].mean(axis=(0, 1)) / 2)


# Files


def test_flying_chairs_are_found_by_name(chairs):
    data = FlyingChairsDataModule(str(chairs(10)), seed=3)
    data.setup()
    train, validation = data.examples("train"), data.examples("validation")
    assert (len(train), len(validation)) == (9, 1)
    assert data.image_size == (10, 14)
    example = train[0, 4]
    assert {name: (value.dtype, tuple(value.shape)) for name, value in example.items()} == {
        "frames": (torch.float32, (2, 3, 10, 14)),
        "labels": (torch.float32, (2, 10, 14)),
    }
    number = int(example["labels"][0, 0, 0])
    assert (example["labels"] == torch.tensor([number, -number])[:, None, None]).all()
    picture = np.asarray(Image.open(f"{data.files.path}/data/{number:05d}_img2.ppm"))
    np.testing.assert_allclose((example["frames"][1].permute(1, 2, 0) + 1) * 127.5, picture, atol=1e-4)


@pytest.mark.parametrize("ends", [("-img0.png", "-img1.png", "-gt.flo"), ("-img_0.png", "-img_1.png", "-flow_01.flo")])
def test_alternative_names_of_pairs_are_found(chairs, ends):
    data = FlyingChairsDataModule(str(chairs(2, ends=ends)), val_fraction=0)
    data.setup()
    assert [int(data.examples("validation")[i]["labels"][0, 0, 0]) for i in range(2)] == [0, 1]


def test_split_file_assigns_pairs(chairs):
    root = chairs(4)
    (root / "FlyingChairs_train_val.txt").write_text("1\n2\n2\n1\n")
    data = FlyingChairsDataModule(str(root))
    data.setup()
    assert [int(data.examples("validation")[i]["labels"][0, 0, 0]) for i in range(2)] == [1, 2]
    (root / "FlyingChairs_train_val.txt").write_text("1\n2\n")
    with pytest.raises(DataError, match=r"2 lines for 4 pairs \(each line must be 1"):
        FlyingChairsDataModule(str(root)).setup()


def test_archive_equals_folder(chairs, tmp_path):
    root = chairs(3)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", root)
    modules = [FlyingChairsDataModule(path, val_fraction=0) for path in (str(root), archive)]
    for data in modules:
        data.setup()
    from_folder, from_archive = (data.examples("validation") for data in modules)
    again = pickle.loads(pickle.dumps(from_archive))  # as a process that loads data gets it
    for index in range(3):
        for dataset in (from_archive, again):
            assert torch.equal(dataset[index]["frames"], from_folder[index]["frames"])


def sintel(tmp_path, scenes: int = 3, frames: int = 4):
    """Writes scenes of Sintel's layout; frame i of scene s moves by (s, i); the pixel (0, 0) is invalid in scene 0."""
    root = tmp_path / "Sintel" / "training"
    rng = np.random.default_rng(0)
    for scene in range(scenes):
        for folder in ("clean", "final", "flow", "invalid"):
            (root / folder / f"alley_{scene}").mkdir(parents=True)
        for number in range(1, frames + 1):
            name = f"alley_{scene}/frame_{number:04d}"
            for rendering in ("clean", "final"):
                pixels = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
                pixels[..., 0] = 0 if rendering == "clean" else 255
                Image.fromarray(pixels).save(root / rendering / f"{name}.png")
            if number < frames:
                write_flo(root / "flow" / f"{name}.flo", np.full((6, 9, 2), (scene, number), np.float32))
                invalid = np.zeros((6, 9), np.uint8)
                invalid[0, 0] = 255 if scene == 0 else 0
                Image.fromarray(invalid).save(root / "invalid" / f"{name}.png")
    test = tmp_path / "Sintel" / "test" / "final" / "cave"
    test.mkdir(parents=True)
    Image.fromarray(np.zeros((6, 9, 3), np.uint8)).save(test / "frame_0001.png")
    return tmp_path / "Sintel"


@pytest.mark.parametrize(("passes", "renderings"), [("clean", {0}), ("final", {1}), ("both", {0, 1})])
def test_sintel_is_split_by_scenes(tmp_path, passes, renderings):
    data = SintelDataModule(str(sintel(tmp_path)), passes=passes, val_fraction=0.3)
    data.setup()
    train, validation = data.examples("train"), data.examples("validation")
    assert (len(train), len(validation)) == (6 * len(renderings), 3 * len(renderings))
    scenes = {
        name: {int(dataset[index]["labels"][0, 3, 3]) for index in range(len(dataset))}
        for name, dataset in (("train", train), ("validation", validation))
    }
    assert (len(scenes["train"]), len(scenes["validation"])) == (2, 1)
    assert scenes["train"] | scenes["validation"] == {0, 1, 2}
    assert {int(train[index]["frames"][0, 0, 0, 0] > 0) for index in range(len(train))} == renderings


def test_sintel_flow_is_to_the_next_frame_where_valid(tmp_path):
    root = sintel(tmp_path)
    data = SintelDataModule(str(root), val_fraction=0)
    data.setup()
    dataset = data.examples("validation")
    for index in range(len(dataset)):
        example = dataset[index]
        scene, number = example["labels"][:, 3, 3].int().tolist()
        for position, name in enumerate((number, number + 1)):
            picture = np.asarray(Image.open(root / f"training/final/alley_{scene}/frame_{name:04d}.png"))
            np.testing.assert_allclose((example["frames"][position].permute(1, 2, 0) + 1) * 127.5, picture, atol=1e-4)
        assert example["labels"].isnan().sum() == (2 if scene == 0 else 0)
        assert example["labels"][:, 0, 0].isnan().all() == (scene == 0)


def test_stereo_flow_is_negative_disparity():
    left, right, disparity = skimage.data.stereo_motorcycle()
    pair = load_stereo_pair()
    known = np.isfinite(disparity)
    np.testing.assert_array_equal(pair.flow[known], np.stack([-disparity[known], 0 * disparity[known]], axis=-1))
    assert np.isnan(pair.flow[~known]).all()
    assert (~known).sum() > 10_000
    rows, columns = np.nonzero(known)
    targets = np.rint(columns + pair.flow[rows, columns, 0]).astype(int)
    inside = targets >= 0
    here, there, wrong = (
        picture[rows[inside], xs].astype(int)
        for picture, xs in ((left, columns[inside]), (right, targets[inside]), (right, columns[inside]))
    )
    assert np.abs(here - there).mean() < 0.3 * np.abs(here - wrong).mean()  # the colours are found where the flow says


def test_stereo_validation_data_is_the_right_part():
    data = StereoPairDataModule(image_size=(40, 48), downscale=4)
    data.setup()
    train, validation = (data.stores[split].pair for split in ("train", "validation"))
    whole = load_stereo_pair()
    for name in FlowPair._fields:
        joined = np.concatenate([getattr(train, name), getattr(validation, name)], axis=1)
        np.testing.assert_array_equal(joined, getattr(whole, name))
    assert train.size[1] > 2 * validation.size[1]


def test_missing_stereo_photographs_name_the_package(monkeypatch):
    monkeypatch.setattr(skimage.data, "stereo_motorcycle", lambda: 1 / 0)
    with pytest.raises(DataError, match=r"install them with pip install 'scikit-image>=0\.24'"):
        StereoPairDataModule(image_size=(40, 48)).setup()


# Examples


def random_crops(chairs, **options):
    path = options.pop("path", None) or str(chairs(5, size=(30, 40)))
    data = FlyingChairsDataModule(path, image_size=(8, 12), crops_per_pair=4, val_fraction=0, **options)
    data.setup()
    return data, path


def test_crops_are_a_function_of_seed_epoch_and_index(chairs):
    changes = {"random_shift": 3, "hflip": 0.5, "vflip": 0.5}
    data, path = random_crops(chairs, seed=1, **changes)
    same, _ = random_crops(chairs, path=path, seed=1, **changes)
    other, _ = random_crops(chairs, path=path, seed=2, **changes)
    first, again, others = (each.examples("train") for each in (data, same, other))
    keys = [(epoch, index) for epoch in range(2) for index in range(len(first))]
    assert len(first) == 20
    seen = {key: first[key]["frames"] for key in keys}
    assert all(torch.equal(again[key]["frames"], seen[key]) for key in reversed(keys))
    assert sum(torch.equal(others[key]["frames"], seen[key]) for key in keys) < 3
    assert sum(torch.equal(seen[0, index], seen[1, index]) for index in range(20)) < 3
    assert sum(torch.equal(seen[0, index], seen[0, index + 5]) for index in range(15)) < 3  # parts of one pair


def test_random_crops_have_correct_flow(tmp_path):
    for number, motion in enumerate([(1, -2), (0, 3)]):
        pair = moving_pair(30, 40, *motion, seed=number)
        Image.fromarray(pair.first).save(tmp_path / f"{number}_img1.png")
        Image.fromarray(pair.second).save(tmp_path / f"{number}_img2.png")
        write_flo(tmp_path / f"{number}_flow.flo", pair.flow)
    data = FlyingChairsDataModule(
        str(tmp_path), image_size=(20, 24), val_fraction=0, random_shift=4, hflip=0.5, vflip=0.5
    )
    data.setup()
    motions = set()
    for epoch in range(20):
        for index in range(2):
            example = data.examples("train")[epoch, index]
            first, second = ((example["frames"].permute(0, 2, 3, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
            flow = example["labels"].permute(1, 2, 0).numpy()
            assert_flow_is_correct(FlowPair(first, second, flow))
            motions.add(tuple(flow[10, 12].tolist()))
    assert len(motions) > 20


def test_crops_are_drawn_from_the_whole_frame(chairs):
    root = chairs(1, size=(12, 16))
    columns = np.broadcast_to(np.arange(16, dtype=np.float32)[None, :, None], (12, 16, 2))
    write_flo(root / "data" / "00000_flow.flo", columns)
    data = FlyingChairsDataModule(str(root), image_size=(12, 12), val_fraction=0)
    data.setup()
    corners = {float(data.examples("train")[epoch, 0]["labels"][0, 0, 0]) for epoch in range(60)}
    assert corners == {0.0, 1.0, 2.0, 3.0, 4.0}


def test_evaluation_covers_all_pixels(chairs):
    data = FlyingChairsDataModule(str(chairs(2, size=(17, 20))), image_size=(8, 12), val_fraction=0)
    data.setup()
    dataset = data.examples("validation")
    assert len(dataset) == 2 * 3 * 2
    for index in range(len(dataset)):
        assert (dataset[index]["labels"][0] == index // 6).all()
    pictures = [np.asarray(Image.open(f"{data.files.path}/data/0000{number}_img1.ppm")) for number in range(2)]
    for index, (top, left) in [(0, (0, 0)), (3, (8, 8)), (11, (9, 8))]:
        expected = pictures[index // 6][top : top + 8, left : left + 12]
        part = (dataset[index]["frames"][0].permute(1, 2, 0) + 1) * 127.5
        np.testing.assert_allclose(part, expected, atol=1e-4)
    beyond = dataset[len(dataset)]
    assert beyond["labels"].isnan().all()
    assert beyond["frames"].isfinite().all()


def test_worker_processes_do_not_change_batches(chairs):
    batches = []
    for num_workers in (0, 2):
        path = str(chairs(4, folder=f"chairs{num_workers}"))
        data = FlyingChairsDataModule(path, val_fraction=0, batch_size=4, num_workers=num_workers, seed=0)
        data.setup()
        batches.append(next(iter(data.train_dataloader())))
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in ("frames", "labels"))


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (8,)}, r"image_size=\(8,\) must be a height and a width"),
        ({"downscale": 0}, "downscale=0 must be at least 1"),
        ({"crops_per_pair": 0}, "crops_per_pair=0 must be at least 1"),
        ({"random_shift": -1}, "random_shift=-1 must be at least 0"),
        ({"hflip": 1.5}, "hflip=1.5 must be from 0 to 1"),
        ({"val_fraction": 1.0}, "val_fraction=1.0 must be at least 0 and less than 1"),
    ],
)
def test_invalid_options_are_rejected(chairs, options, message):
    with pytest.raises(UserError, match=message):
        FlyingChairsDataModule(str(chairs(1)), **options)


def test_frames_smaller_than_image_size_are_reported(chairs):
    data = FlyingChairsDataModule(str(chairs(2)), image_size=(8, 12), downscale=2, val_fraction=0)
    with pytest.raises(
        DataError, match=r"_img1\.ppm: frames of 5x7 pixels after downscale=2 are smaller than image_size"
    ):
        data.setup()


def test_invalid_files_are_reported(chairs, tmp_path):
    with pytest.raises(DataError, match=r"path: folder or archive .*chars not found \(did you mean 'chairs'\?\)"):
        FlyingChairsDataModule(str(chairs(2).with_name("chars")))
    (tmp_path / "file.zip").write_text("no archive")
    with pytest.raises(DataError, match="neither a folder nor a zip archive"):
        FlyingChairsDataModule(str(tmp_path / "file.zip"))
    empty = tmp_path / "empty"
    empty.mkdir()
    for module, expected in ((FlyingChairsDataModule, "NAME_img1.ppm"), (SintelDataModule, "final/SCENE/frame_0001")):
        with pytest.raises(DataError, match=rf"no pairs of frames \(expected .*{expected}"):
            module(str(empty)).setup()
    folder = tmp_path / "chairs" / "data"
    (folder / "00001_img2.ppm").write_bytes(b"P6 damaged")
    data = FlyingChairsDataModule(str(folder), val_fraction=0)
    data.setup()
    with pytest.raises(DataError, match=r"00001_img2\.ppm: (not an image|the image cannot be read)"):
        data.examples("validation")[1]
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "00001_img2.ppm")
    with pytest.raises(DataError, match=r"00001_img2\.ppm: an image of 4x4 pixels for a flow of 10x14"):
        data.examples("validation")[1]
    (folder / "00001_img2.ppm").unlink()
    with pytest.raises(DataError, match=r"00001_flow\.flo: its frame 00001_img2\.ppm"):
        FlyingChairsDataModule(str(folder)).setup()


def test_damaged_archive_is_reported(chairs, tmp_path):
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(chairs(1).rglob("*.*")):
            file.write(path, path.name)
    content = bytearray(archive.read_bytes())
    start = content.find(b"PIEH")
    content[start + 40] ^= 1
    archive.write_bytes(content)
    data = FlyingChairsDataModule(str(archive), val_fraction=0)
    data.setup()
    with pytest.raises(DataError, match=r"00000_flow\.flo: cannot be read from the archive \(Bad CRC-32"):
        data.examples("validation")[0]


def test_missing_test_data_is_reported(chairs):
    data = FlyingChairsDataModule(str(chairs(2)))
    data.setup()
    with pytest.raises(DataError, match=r"no test data \(`perceiver validate` evaluates"):
        data.test_dataloader()
