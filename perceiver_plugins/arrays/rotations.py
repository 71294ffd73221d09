"""Random rotations of point clouds."""

from __future__ import annotations

import numpy as np


def random_rotation(rng: np.random.Generator, dimensions: int, about_last: bool = False) -> np.ndarray:
    """Draw a rotation matrix (dimensions, dimensions) uniformly, by the QR decomposition of normal numbers.

    Mezzadri, "How to generate random matrices from the classical compact groups", 2007.

    Args:
        rng: random generator.
        dimensions: dimensions of the space.
        about_last: rotate about the last axis, which is vertical.
    """
    if about_last and dimensions > 1:
        matrix = np.eye(dimensions)
        matrix[:-1, :-1] = random_rotation(rng, dimensions - 1)
        return matrix
    q, r = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return q
