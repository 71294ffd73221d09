"""KITTI: flow in 16-bit PNG files and the layout of the data set; frames that are not images."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceiver_plugins.flow.data import FlyingChairsDataModule, KittiDataModule
from perceiver_plugins.flow.data.folders import FileStore, PairNames
from perceiver_plugins.flow.files import parse_flow, read_flow
from perceiver_plugins.flow.prediction import _flow_files
from perceiver_plugins.flow.reading import Frame, FramePair, FrameReader
from perceiver_plugins.sdk.data.file_trees import FolderTree
from perceiver_plugins.sdk.errors import DataError


def encode_png16(values: np.ndarray) -> bytes:
    """Encode values (height, width, 3) as a 16-bit PNG, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encode_kitti_flow(flow: np.ndarray) -> bytes:
    """Encode a flow (height, width, 2), NaN where it is unknown, in KITTI's format."""
    known = np.isfinite(flow).all(axis=-1)
    values = np.where(known[..., None], np.nan_to_num(flow) * 64 + 2**15, 0)
    return encode_png16(np.concatenate([np.rint(values), known[..., None]], axis=-1).astype(np.uint16))


def test_kitti_flow_is_read_exactly(tmp_path):
    rng = np.random.default_rng(0)
    flow = (rng.integers(-(2**15) + 1, 2**15, (5, 7, 2)) / 64).astype(np.float32)
    flow[1, 2] = flow[4, 6] = np.nan
    (tmp_path / "a.png").write_bytes(encode_kitti_flow(flow))
    found = read_flow(tmp_path / "a.png")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, flow)


def test_nonzero_mask_values_are_known():
    values = np.full((1, 3, 3), 2**15, np.uint16)
    values[0, :, 2] = 0, 1, 65535
    assert np.isnan(parse_flow(encode_png16(values), "a")).tolist() == [[[True] * 2, [False] * 2, [False] * 2]]


def test_pictures_and_damaged_files_are_rejected(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    for mode, found in (("RGB", "3 of 8 bits"), ("L", "1 of 8 bits"), ("I;16", "1 of 16 bits")):
        Image.new(mode, (4, 3)).save(file)
        with pytest.raises(DataError, match=rf"a\.png: not a KITTI flow file: .* got {found}"):
            read_flow(file)
    content = encode_kitti_flow(np.zeros((5, 7, 2), np.float32))
    file.write_bytes(content[:60])
    with pytest.raises(DataError, match=r"a\.png: the image cannot be read \("):
        read_flow(file)
    monkeypatch.setattr("perceiver_plugins.image.data.decoding.MAX_PIXELS", 30)
    with pytest.raises(DataError, match=r"a\.png: the image cannot be read \(it has 7x5 pixels"):
        parse_flow(content, "a.png")


def kitti(root: Path, frames, camera: str = "image_2", number: int = 4) -> Path:
    """Write a data set in the layout of KITTI; the flow of pair i is (i, -i) where it is known."""
    for folder in (camera, "flow_occ", "flow_noc"):
        (root / "training" / folder).mkdir(parents=True)
    for i in range(number):
        for offset, frame in enumerate(frames(3, 10 + i, 14, seed=i), start=9):
            Image.fromarray(frame).save(root / "training" / camera / f"{i:06d}_{offset:02d}.png")
        for kind in ("occ", "noc"):
            flow = np.full((10 + i, 14, 2), (i, -i), np.float32)
            flow[: 1 if kind == "occ" else 5] = np.nan
            (root / "training" / f"flow_{kind}" / f"{i:06d}_10.png").write_bytes(encode_kitti_flow(flow))
    testing = root / "testing" / camera
    testing.mkdir(parents=True)
    Image.new("RGB", (14, 10)).save(testing / "000000_10.png")
    return root


@pytest.mark.parametrize(("camera", "packed"), [("image_2", True), ("colored_0", False), ("image_0", False)])
def test_kitti_layout(tmp_path, frames, camera, packed):
    path = kitti(tmp_path / "kitti", frames, camera)
    if packed:
        archive = zipfile.ZipFile(tmp_path / "kitti.zip", "w")
        with archive:
            for file in sorted(path.rglob("*.png")):
                archive.write(file, file.relative_to(path))
        path = tmp_path / "kitti.zip"
    data = KittiDataModule(str(path), image_size=(8, 12), val_fraction=0.25)
    stores = data.stores
    pairs = [store.read(number) for store in stores.values() for number in range(len(store))]
    assert {split: len(store) for split, store in stores.items()} == {"train": 3, "validation": 1}
    for pair in pairs:
        i = len(pair.flow) - 10
        first, second = frames(3, 10 + i, 14, seed=i)[1:]
        assert np.array_equal(pair.first, first)
        assert np.array_equal(pair.second, second)
        assert np.isnan(pair.flow[0]).all()
        assert (pair.flow[1:] == (i, -i)).all()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"].shape == (3, 2, 8, 12)
    known = KittiDataModule(str(path), flow="noc").stores["train"].read(0).flow
    assert np.isnan(known[:5]).all()
    assert np.isfinite(known[5:]).all()


def test_other_layouts_are_rejected(tmp_path, frames):
    path = kitti(tmp_path / "kitti", frames, number=1)
    (path / "training" / "image_2" / "000000_11.png").unlink()
    with pytest.raises(DataError, match=r"flow_occ/000000_10\.png: its frames image_2/000000_10\.png and "):
        KittiDataModule(str(path)).load()
    with pytest.raises(DataError, match=r"and flow_occ/000000_10\.png\)"):
        KittiDataModule(str(path / "testing")).load()


def test_kitti_flow_in_other_layouts(chairs):
    path = chairs(2)
    for i in range(2):
        flow = path / "data" / f"{i:05d}_flow.flo"
        flow.with_suffix(".png").write_bytes(encode_kitti_flow(np.full((10, 14, 2), (i + 0.5, 0), np.float32)))
    assert _flow_files(str(path / "data"))[0].suffix == ".flo"
    for i in range(2):
        (path / "data" / f"{i:05d}_flow.flo").unlink()
    data = FlyingChairsDataModule(str(path), val_fraction=0.5)
    found = [store.read(0).flow[0, 0, 0] for store in data.stores.values()]
    assert sorted(found) == [0.5, 1.5]
    assert [file.name for file in _flow_files(str(path / "data")) if "flow" in file.name] == [
        "00000_flow.png",
        "00001_flow.png",
    ]


def test_unused_images_and_other_files_are_reported(chairs, frames, caplog):
    path = chairs(2)
    Image.fromarray(frames(1, 10, 14)[0]).save(path / "data" / "more.png")
    (path / "data" / "more.pfm").write_bytes(b"")
    with caplog.at_level("INFO"):
        FlyingChairsDataModule(str(path)).load()
    assert f"1 images that are not part of a pair left out: {path}/data/more.png" in caplog.text
    assert "1 files left out: 1 .pfm; frames and flow end in" in caplog.text


def test_postscript_is_not_executed(tmp_path, chairs, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("a program was run"))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 14 10\n%%EndComments\nshowpage\n%%EOF\n"
    file = tmp_path / "a.png"
    file.write_bytes(program)
    with pytest.raises(DataError, match=r"a\.png: not an image"):
        FrameReader({}, None).read(FramePair(Frame(file), Frame(file)))
    path = chairs(1, folder="programs")
    (path / "data" / "a.png").write_bytes(program)
    names = PairNames("data/a.png", "data/a.png", "data/00000_flow.flo", invalid="data/a.png")
    store = FileStore(FolderTree(path), [names])
    for read in (store.size, store.read):
        with pytest.raises(DataError, match=r"a\.png: not an image"):
            read(0)
