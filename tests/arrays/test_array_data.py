"""Files, data modules and preprocessing of arrays of vectors."""

from __future__ import annotations

import io
import json
import struct
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from perceiver_plugins.arrays import (
    ArrayFormat,
    ArrayReader,
    DigitRowsDataModule,
    FeatureFilesDataModule,
    FeatureFolderDataModule,
    FeaturesEncoderConfig,
    FeaturesInputAdapter,
    PointsEncoderConfig,
    PointsFolderDataModule,
    PointsInputAdapter,
    ShapesDataModule,
)
from perceiver_plugins.arrays.decoding import as_vectors, decode_array
from perceiver_plugins.arrays.rotations import random_rotation
from perceiver_plugins.arrays.shapes import SHAPES
from perceiver_plugins.image.data import DigitsDataModule
from perceiver_registry import UserError


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_clouds(folder, sizes=(5, 9, 7, 12), width=4):
    """Write clouds of two classes, and return them in the order of the classes."""
    rng, clouds = np.random.default_rng(0), []
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number, size in enumerate(sizes):
            cloud = rng.normal(loc=3, scale=2, size=(size, width)).astype(np.float32)
            np.save(folder / label / f"{number}.npy", cloud)
            clouds.append(cloud)
    return clouds


# Files


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "i2", "u1"])
def test_numpy_files(dtype):
    array = np.arange(6).reshape(3, 2).astype(dtype)
    decoded = decode_array(npy(array), "x.npy")
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, [[0, 1], [2, 3], [4, 5]])


@pytest.mark.parametrize("separator", [" ", ",", ", ", ";", "\t", "   "])
def test_lines_of_numbers(separator):
    lines = ["# x y", separator.join(["1", "-2.5"]), "", separator.join(["1e-3", "4"]) + " \r"]
    decoded = decode_array("\n".join(lines).encode("utf-8-sig"), "x.xyz")
    np.testing.assert_array_equal(decoded, np.float32([[1, -2.5], [1e-3, 4]]))


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"1 2\n3 4 5\n", "x.txt", "x.txt, line 2: 3 numbers, the lines before have 2"),
        (b"1 2\nx 4\n", "x.txt", "x.txt, line 2: 'x' is not a finite number"),
        (b"1 nan\n", "x.txt", "x.txt, line 1: 'nan' is not a finite number"),
        (b"1 1_0\n", "x.txt", "'1_0' is not a finite number"),
        (b"", "x.txt", "x.txt: contains no numbers"),
        (b"\xff\n", "x.txt", "not UTF-8 text"),
        (b"no array", "x.npy", "x.npy: not an array of numbers in NumPy's format"),
        (npy(np.ones((3, 2)))[:-1], "x.npy", "x.npy: not an array of numbers in NumPy's format"),
        (npy(np.ones((3, 2, 2))), "x.npy", r"shape \(3, 2, 2\), must be vectors x numbers"),
        (npy(np.ones((0, 2))), "x.npy", "x.npy: contains no numbers"),
        (npy(np.array([[1, 2], [3, np.inf]])), "x.npy", "number 2 of vector 2 is inf, not finite"),
        (npy(np.array([[1, 1e300]])), "x.npy", "number 2 of vector 1 is 1e.300, not finite"),
        (npy(np.array([["a"]])), "x.npy", "contains something other than numbers"),
        (npy(np.array([[1j]])), "x.npy", "contains something other than numbers"),
    ],
)
def test_errors_name_the_file_and_the_line(content, name, message):
    with pytest.raises(UserError, match=message) as caught:
        decode_array(content, name)
    assert "\n" not in str(caught.value)


def test_objects_in_numpy_files_are_not_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "created"), "w"))

    file = io.BytesIO()
    np.save(file, np.array([Hostile()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="objects are not read"):
        decode_array(file.getvalue(), "x.npy")
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': (",
        "{[]: 1}",
        "{1: 2, 'a': 3}",
        "{'descr': (), 'fortran_order': False, 'shape': (1, 2)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (True, True)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000, 2)}",
        "'\\d'",
    ],
)
@pytest.mark.filterwarnings("error")
def test_damaged_headers_of_numpy_files_are_refused(header):
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(16)
    with pytest.raises(UserError, match=r"x\.npy: not an array of numbers in NumPy's format \(damaged\)"):
        decode_array(content, "x.npy")


def test_archives_are_no_numpy_files():
    file = io.BytesIO()
    np.savez(file, np.ones((2, 2)))
    for content in (file.getvalue(), b"PK\x03\x04"):
        with pytest.raises(UserError, match="not an array of numbers in NumPy's format"):
            decode_array(content, "x.npy")


@pytest.mark.parametrize("value", [None, "1 2", {"a": 1}, [["1", "2"]], [[1, None]]])
def test_values_other_than_numbers_are_refused(value):
    with pytest.raises(UserError, match="input 1: contains something other than numbers"):
        as_vectors(value, "input 1")


def test_tensors_are_converted():
    for dtype in (torch.bfloat16, torch.float32, torch.int64):
        tensor = torch.tensor([[1, 2], [3, 4]], dtype=dtype)
        tensor.requires_grad_(tensor.is_floating_point())
        np.testing.assert_array_equal(as_vectors(tensor, "input 1"), np.float32([[1, 2], [3, 4]]))


# Preprocessing


def test_coordinates_are_scaled_to_the_unit_sphere_and_features_standardised():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(5, 3, (size, 4)) for size in (6, 11)]
    array_format = ArrayFormat.fit(arrays, 3, unit_sphere=True)
    colours = np.concatenate([array[:, 3] for array in arrays])
    example = array_format.example(arrays[0])
    torch.testing.assert_close(
        example["features"].numpy()[:, 0], np.float32((arrays[0][:, 3] - colours.mean()) / colours.std())
    )
    coordinates = example["coordinates"].numpy()
    np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(coordinates, axis=1).max(), 1, rtol=1e-6)


def test_sampling_is_even_in_evaluation_and_random_in_training():
    array = np.arange(10.0)[:, None]
    array_format = ArrayFormat(0, [0.0], [1.0], max_vectors=4)
    assert array_format.sample(array, None)[:, 0].tolist() == [0, 2, 5, 7]
    drawn = [tuple(array_format.sample(array, np.random.default_rng(seed))[:, 0]) for seed in range(8)]
    assert len(set(drawn)) > 1
    assert all(list(each) == sorted(set(each)) and len(each) == 4 for each in drawn)
    assert len(array_format.sample(array[:4], np.random.default_rng(0))) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"std": [0.0]},
        {"std": [1.0, 1.0]},
        {"mean": ["a"]},
        {"mean": [float("nan")]},
        {"max_vectors": 0},
        {"max_vectors": True},
        {"num_coordinates": -1},
        {"unit_sphere": 1},
        {"unknown": 1},
    ],
)
def test_hostile_descriptions_are_refused(change):
    described = {"num_coordinates": 3, "mean": [0.0], "std": [1.0]} | change
    with pytest.raises(UserError, match="checkpoint: array_format"):
        ArrayFormat.from_description({"array_format": described})


@pytest.mark.parametrize("about_last", [False, True])
def test_random_rotations_keep_lengths_and_orientation(about_last):
    matrix = random_rotation(np.random.default_rng(1), 3, about_last)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrix), 1)
    assert np.array_equal(matrix[2], [0, 0, 1]) == about_last


# Data modules


def test_folders_of_clouds(tmp_path):
    clouds = write_clouds(tmp_path)
    data = PointsFolderDataModule(str(tmp_path), val_fraction=0.25, max_vectors=8, batch_size=2)
    data.setup()
    assert data.label_names == ["a", "b"]
    assert (data.num_train_examples, len(data.split_datasets["validation"])) == (6, 2)
    assert (data.num_coordinates, data.num_features, data.max_positions) == (3, 1, 8)
    reader = ArrayReader(data.description(), PointsInputAdapter(PointsEncoderConfig(num_features=1)))
    sources = reader.expand([str(tmp_path)])
    batch = next(iter(data.val_dataloader()))
    read = reader.collate([reader.read(sources[number]) for number in _held_out(data, clouds)])
    assert batch["labels"].tolist() == [0, 1]
    for name in ("coordinates", "features", "attention_mask"):
        torch.testing.assert_close(batch[name], read[name])


def _held_out(data, clouds):
    """Return the indices of the validation clouds among all clouds."""
    return [
        next(number for number, cloud in enumerate(clouds) if np.array_equal(cloud, array))
        for array in data.data.splits["validation"].arrays
    ]


def test_augmentation_moves_and_rotates_in_training_only(tmp_path):
    write_clouds(tmp_path, width=3)
    data = PointsFolderDataModule(str(tmp_path), rotate="vertical", val_fraction=0.25)
    data.setup()
    dataset = data.split_datasets["train"]
    plain, first, second = (dataset[key]["coordinates"] for key in (0, (0, 0), (1, 0)))
    torch.testing.assert_close(first[:, 2], plain[:, 2])
    assert not torch.allclose(first[:, :2], plain[:, :2], atol=1e-3)
    assert not torch.allclose(first, second, atol=1e-3)
    torch.testing.assert_close(first.norm(dim=1), plain.norm(dim=1))
    assert torch.equal(dataset[(0, 0)]["coordinates"], first)


def test_clouds_with_other_numbers_of_channels_are_refused(tmp_path):
    write_clouds(tmp_path)
    np.save(tmp_path / "b" / "9.npy", np.ones((3, 5)))
    with pytest.raises(UserError, match=r"b/9\.npy: 5 numbers in a vector, .*a/0\.npy has 4"):
        FeatureFolderDataModule(str(tmp_path)).data  # noqa: B018
    (tmp_path / "b" / "9.npy").unlink()
    with pytest.raises(UserError, match="num_coordinates=9: the data has 4 numbers in a vector"):
        PointsFolderDataModule(str(tmp_path), num_coordinates=9).setup()


def test_trained_models_keep_the_number_of_vectors(tmp_path):
    write_clouds(tmp_path)
    description = PointsFolderDataModule(str(tmp_path), max_vectors=8).description()
    for options, problem in (
        ({"max_vectors": 8}, None),
        ({"max_vectors": 9}, "max_vectors=9: the model was trained with 8"),
        ({"max_vectors": None}, "max_vectors=null: the model was trained with 8"),
    ):
        data = PointsFolderDataModule(str(tmp_path), **options)
        data.inherited = description
        with pytest.raises(UserError, match=problem) if problem else nullcontext():
            data.setup()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_feature_files(tmp_path, suffix):
    rng = np.random.default_rng(0)
    rows = [{"clip": rng.normal(size=(2 + number % 3, 3)).tolist(), "label": "xy"[number % 2]} for number in range(20)]
    file = tmp_path / f"rows{suffix}"
    if suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), file)
    data = FeatureFilesDataModule(str(file), features_column="clip", test_files=None)
    data.setup()
    assert (data.label_names, data.num_features, data.max_positions) == (["x", "y"], 3, 4)
    vectors = np.concatenate(list(data.data.splits["train"].arrays))
    np.testing.assert_allclose(data.array_format.mean, vectors.mean(axis=0), rtol=1e-5)
    reader = ArrayReader(data.description(), FeaturesInputAdapter(FeaturesEncoderConfig(num_features=3)))
    sources = reader.expand([str(file)])
    assert sources[1] == f"{file}:2"
    in_memory = reader.read(reader.source_of(rows[1]["clip"], "input 1"))
    torch.testing.assert_close(reader.read(sources[1]), in_memory)
    assert reader.collate([reader.read(each) for each in sources[:3]])["features"].shape == (3, 4, 3)


def test_rows_with_uneven_vectors_are_refused(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"features": [[1, 2]], "label": 0}\n{"features": [[1, 2], [3]], "label": 1}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: 'features': vectors of different lengths"):
        FeatureFilesDataModule(str(file)).data  # noqa: B018


def test_reader_refuses_vectors_of_another_length():
    array_format = ArrayFormat(0, [0.0] * 3, [1.0] * 3)
    reader = ArrayReader(array_format.description(), FeaturesInputAdapter(FeaturesEncoderConfig(num_features=3)))
    with pytest.raises(UserError, match="input 1: 2 numbers in a vector, must be 3 as in training"):
        reader.read(reader.source_of(np.ones((4, 2)), "input 1"))
    with pytest.raises(UserError, match="must be a text or path or an array"):
        reader.source_of(3, "input 1")


def test_digit_rows_are_the_digits_of_the_image_data():
    rows, images = DigitRowsDataModule(), DigitsDataModule()
    rows.setup()
    assert {split: len(arrays.labels) for split, arrays in rows.data.splits.items()} == {
        split: len(labelled) for split, labelled in images.load().images.items()
    }
    first = rows.data.splits["test"].arrays[0]
    pixels = images.load().images["test"].read(0, 1)
    np.testing.assert_allclose(np.asarray(pixels), np.rint(first * 255 / 16))


def test_shapes_are_points_on_surfaces():
    rng = np.random.default_rng(0)
    points = {name: draw(rng, 500) for name, draw in SHAPES.items()}
    radius = {name: np.hypot(each[:, 0], each[:, 1]) for name, each in points.items()}
    np.testing.assert_allclose(np.linalg.norm(points["sphere"], axis=1), 1)
    np.testing.assert_allclose(np.abs(points["cube"]).max(axis=1), 1)
    np.testing.assert_allclose(radius["cylinder"], 1)
    np.testing.assert_allclose(radius["helix"], 1)
    np.testing.assert_allclose(radius["cone"], (1 - points["cone"][:, 2]) / 2)
    np.testing.assert_allclose((radius["torus"] - 1) ** 2 + points["torus"][:, 2] ** 2, 0.35**2)
    assert not points["disc"][:, 2].any()
    # Each face of the tetrahedron is a plane at the same distance from the centre.
    normals = np.array([[1, 1, -1], [1, -1, 1], [-1, 1, 1], [-1, -1, -1]])
    np.testing.assert_allclose((points["tetrahedron"] @ normals.T).max(axis=1), 1)


def test_shapes_are_the_same_in_each_run_and_differ_between_splits():
    first, second = (ShapesDataModule(num_examples=16, num_points=30).data.splits for _ in range(2))
    for split in ("train", "validation", "test"):
        for one, other in zip(first[split].arrays, second[split].arrays, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first["validation"].arrays[0], first["test"].arrays[0])
