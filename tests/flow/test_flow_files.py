"""Flow files in the Middlebury format, and visualisation of flow."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
import torchvision
from torchvision.datasets import FlyingChairs

from perceiver_plugins.flow.files import draw_flow, read_flow, write_flo
from perceiver_plugins.sdk.errors import DataError


def test_flo_file_has_the_middlebury_layout(tmp_path):
    flow = np.array([[[1.5, -2.0], [0.25, 3.0], [np.nan, np.nan]], [[0.0, 0.0], [-7.0, 8.0], [9.0, 10.0]]], np.float32)
    write_flo(tmp_path / "a.flo", flow)
    content = (tmp_path / "a.flo").read_bytes()
    assert struct.unpack("<f2i12f", content) == pytest.approx(
        (202021.25, 3, 2, 1.5, -2.0, 0.25, 3.0, 1e10, 1e10, 0.0, 0.0, -7.0, 8.0, 9.0, 10.0)
    )
    np.testing.assert_array_equal(read_flow(tmp_path / "a.flo"), flow)


def test_torchvision_reads_written_files(chairs):
    root = chairs(3)
    (root / "FlyingChairs_train_val.txt").write_text("1\n1\n2\n")
    root.rename(root.with_name("FlyingChairs"))
    try:
        _, _, flow = FlyingChairs(root.parent, split="train")[1]
    except TypeError as error:
        if "0-dimensional" not in str(error):
            raise
        pytest.skip(f"torchvision {torchvision.__version__} reads no .flo file with numpy {np.__version__}: {error}")
    np.testing.assert_array_equal(flow[:, 3, 4], [1, -1])


@pytest.mark.parametrize("unknown", [1e10, -2e9, np.inf, np.nan])
def test_one_unknown_component_makes_the_flow_unknown(tmp_path, unknown):
    (tmp_path / "a.flo").write_bytes(struct.pack("<f2i4f", 202021.25, 2, 1, unknown, 3.0, 4.0, 5.0))
    np.testing.assert_array_equal(read_flow(tmp_path / "a.flo"), [[[np.nan, np.nan], [4.0, 5.0]]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6 nothing of that kind", "does not begin with 'PIEH'"),
        (b"", "does not begin with 'PIEH'"),
        (b"PIEH", "damaged flow file: 4 bytes, expected 12 for 0x0 pixels"),
        (struct.pack("<f2i3f", 202021.25, 2, 1, 0, 0, 0), "24 bytes, expected 28 for 2x1 pixels"),
        (struct.pack("<f2i", 202021.25, -2, -1), "damaged flow file"),
    ],
)
def test_invalid_flow_file_is_rejected(tmp_path, content, message):
    (tmp_path / "a.flo").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_flow(tmp_path / "a.flo")
    assert str(tmp_path / "a.flo") in str(error.value)


def test_missing_file_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"none\.flo: cannot be read \(No such file"):
        read_flow(tmp_path / "none.flo")


def test_other_shape_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"\(2, 3, 4\): must be \(height, width, 2\)"):
        write_flo(tmp_path / "a.flo", np.zeros((2, 3, 4)))


def test_picture_has_a_colour_per_direction():
    flow = torch.tensor([[[10.0, 0.0, -10.0, 0.0, 0.0]], [[0.0, 10.0, 0.0, -10.0, 0.0]]])
    picture = np.asarray(draw_flow(flow)).astype(int)
    assert picture.shape == (1, 5, 3)
    right, down, left, up, still = picture[0]
    assert right[0] > 200 > 100 > right[2]  # red, as in the paper's colour wheel
    assert still.min() >= 250  # white
    colours = [right, down, left, up, still]
    assert all(np.abs(a - b).max() > 80 for i, a in enumerate(colours) for b in colours[:i])


def test_unknown_flow_can_be_drawn():
    flow = torch.full((2, 3, 4), torch.nan)
    flow[:, 0, 0] = 1.0
    assert draw_flow(flow).size == (4, 3)
