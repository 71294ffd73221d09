"""Defaults by the number and size of images."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from perceiver_plugins.image.sizing import MAX_EPOCHS, MIN_EPOCHS, TRAINED_PIXELS, size_rule


@pytest.mark.parametrize(
    ("num_images", "image_size", "epochs"),
    [
        (20, (32, 32), MAX_EPOCHS),
        (1_000_000, (64, 64), MIN_EPOCHS),
        (5_000, (32, 32), -(-TRAINED_PIXELS // (1_024 * 5_000))),
        (1_250, (64, 64), -(-TRAINED_PIXELS // (1_024 * 5_000))),
    ],
)
def test_number_of_epochs_follows_the_number_of_pixels(num_images, image_size, epochs):
    data = SimpleNamespace(num_train_examples=num_images, num_classes=3, image_size=image_size)
    found = size_rule(data, "image-classification", {})
    height, width = image_size
    assert found.facts == f"{num_images:,} images, 3 classes, {height}x{width} pixels"
    assert found.defaults == {"trainer.max_epochs": epochs}


def test_images_with_any_number_of_classes_have_no_label_smoothing():
    data = SimpleNamespace(num_train_examples=20, num_classes=3, image_size=(32, 32), multi_label=True)
    assert size_rule(data, "image-classification", {}).defaults["task.label_smoothing"] == 0


@pytest.mark.parametrize("missing", ["num_train_examples", "image_size"])
def test_data_of_unknown_size_has_no_defaults(missing):
    known = {"num_train_examples": 10, "num_classes": 3, "image_size": (8, 8)}
    data = SimpleNamespace(**{name: value for name, value in known.items() if name != missing})
    assert size_rule(data, "image-classification", {}) is None
    assert size_rule(SimpleNamespace(**known), "optical-flow", {}) is None
