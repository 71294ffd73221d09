"""Synthetic point clouds: points on surfaces of known shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from perceiver_plugins.arrays.data import ArrayDataModule, Arrays, ArraySplits
from perceiver_plugins.arrays.rotations import random_rotation
from perceiver_plugins.sdk.data.module import check_positive

Rng = np.random.Generator


def _directions(rng: Rng, count: int) -> np.ndarray:
    """Draw points (count, 3) on the unit sphere."""
    vectors = rng.normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _circle(rng: Rng, count: int) -> np.ndarray:
    """Draw points (count, 2) on the unit circle."""
    angles = rng.uniform(0, 2 * np.pi, count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _cube(rng: Rng, count: int) -> np.ndarray:
    points = rng.uniform(-1, 1, (count, 3))
    points[np.arange(count), rng.integers(3, size=count)] = rng.choice([-1.0, 1.0], count)
    return points


def _cylinder(rng: Rng, count: int) -> np.ndarray:
    return np.concatenate([_circle(rng, count), rng.uniform(-1, 1, (count, 1))], axis=1)


def _cone(rng: Rng, count: int) -> np.ndarray:
    radius = np.sqrt(rng.uniform(0, 1, (count, 1)))  # uniform on the surface
    return np.concatenate([_circle(rng, count) * radius, 1 - 2 * radius], axis=1)


def _torus(rng: Rng, count: int) -> np.ndarray:
    ring, tube = _circle(rng, count), _circle(rng, count)
    return np.concatenate([ring * (1 + 0.35 * tube[:, :1]), 0.35 * tube[:, 1:]], axis=1)


def _disc(rng: Rng, count: int) -> np.ndarray:
    radius = np.sqrt(rng.uniform(0, 1, (count, 1)))
    return np.concatenate([_circle(rng, count) * radius, np.zeros((count, 1))], axis=1)


def _helix(rng: Rng, count: int) -> np.ndarray:
    height = rng.uniform(-1, 1, count)
    return np.stack([np.cos(2 * np.pi * height), np.sin(2 * np.pi * height), height], axis=1)


def _tetrahedron(rng: Rng, count: int) -> np.ndarray:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
    weights = rng.dirichlet([1, 1, 1], count)  # uniform on a triangle
    faces = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]])[rng.integers(4, size=count)]
    return (weights[:, :, None] * corners[faces]).sum(axis=1)


SHAPES: Mapping[str, Callable[[Rng, int], np.ndarray]] = {
    "cone": _cone,
    "cube": _cube,
    "cylinder": _cylinder,
    "disc": _disc,
    "helix": _helix,
    "sphere": _directions,
    "tetrahedron": _tetrahedron,
    "torus": _torus,
}
"""Functions that draw points (count, 3) on the surface of each shape."""


class ShapesDataModule(ArrayDataModule):
    """Synthetic point clouds: points on the surfaces of eight shapes, stretched, turned about the vertical axis, noisy.

    Cones, cubes, cylinders, discs, helices, spheres, tetrahedra and tori, of 64 to ``num_points`` points. The axes are
    stretched by 0.7 to 1.3. The data is the same for every seed; training rotates it about the vertical axis again.

    Args:
        num_examples: Training examples; validation and test have a quarter of this number each.
        num_points: Largest number of points of a cloud.
        noise: Standard deviation of the normal noise of each coordinate.
    """

    num_coordinates = 3
    unit_sphere = True

    def __init__(self, num_examples: int = 2000, num_points: int = 128, noise: float = 0.03, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive(num_examples=num_examples, num_points=num_points)
        self.num_examples = num_examples
        self.num_points = num_points
        self.noise = noise

    def augment(self, array: np.ndarray, rng: Rng) -> np.ndarray:
        """Rotate a cloud (m, 3) about the vertical axis."""
        return array @ random_rotation(rng, 3, about_last=True).T

    def load(self) -> ArraySplits:
        sizes = {"train": self.num_examples, "validation": self.num_examples // 4, "test": self.num_examples // 4}
        splits = {split: self._draw(number, size) for number, (split, size) in enumerate(sizes.items())}
        return ArraySplits(list(SHAPES), splits)

    def _draw(self, number: int, size: int) -> Arrays:
        rng = np.random.default_rng([20, number])  # arbitrary, different for each split
        labels = np.arange(size) % len(SHAPES)
        return Arrays([self._cloud(list(SHAPES)[label], rng) for label in labels], labels)

    def _cloud(self, shape: str, rng: Rng) -> np.ndarray:
        count = int(rng.integers(min(64, self.num_points), self.num_points + 1))
        points = SHAPES[shape](rng, count) * rng.uniform(0.7, 1.3, 3)
        points = points @ random_rotation(rng, 3, about_last=True).T + rng.normal(scale=self.noise, size=(count, 3))
        return points.astype(np.float32)
