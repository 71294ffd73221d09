"""Deprecated names, which still work and warn."""

from __future__ import annotations

import importlib
import sys

import faults
import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from perceiver_plugins.sdk.tasks import LitPerceiver, optimizers
from perceiver_registry import AdapterSpec, ModelSpec
from perceiver_registry.testing import adapter_checks, plugin_checks
from perceiver_registry.testing.renamed import RENAMED_CHECKS

MOVED = {
    "perceiver_plugins.hub.from_checkpoint": "perceiver_plugins.huggingface",
    "perceiver_plugins.training.data.PerceiverDataModule": "perceiver_plugins.sdk.data.module",
    "perceiver_plugins.training.errors.DataError": "perceiver_plugins.sdk.errors",
    "perceiver_plugins.training.in_backward.stepping_in_backward": "perceiver_plugins.sdk.tasks.in_backward",
    "perceiver_plugins.training.lightning.LitPerceiver": "perceiver_plugins.sdk.tasks.lightning",
    "perceiver_plugins.training.loading.example_rng": "perceiver_plugins.sdk.data.loading",
    "perceiver_plugins.training.optimizers.find_optimizer": "perceiver_plugins.sdk.tasks.optimizers",
    "perceiver_plugins.training.prediction.Predictor": "perceiver_plugins.sdk.prediction.predictor",
    "perceiver_plugins.training.reading.Reader": "perceiver_plugins.sdk.prediction.reader",
}


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_moved_name_warns(old: str, new: str) -> None:
    module, _, name = old.rpartition(".")
    with pytest.warns(DeprecationWarning, match=rf"^{module} is deprecated: import {name} from {new}$"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(new), name)


def test_import_of_published_model_cards_works_and_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "perceiver_plugins.hub.auto", raising=False)
    monkeypatch.delitem(CONFIG_MAPPING._extra_content, "perceiver-zoo", raising=False)
    monkeypatch.delitem(sys.modules, "perceiver_plugins.huggingface.auto", raising=False)
    with pytest.warns(DeprecationWarning, match="import perceiver_plugins.huggingface.auto$"):
        importlib.import_module("perceiver_plugins.hub.auto")
    assert CONFIG_MAPPING["perceiver-zoo"].__name__ == "ZooConfig"


@pytest.mark.parametrize(
    ("old", "new", "arguments"),
    [
        ("find_optimizer", "find_optimizer", ["AdamW"]),
        ("find_lr_scheduler", "find_lr_scheduler", ["StepLR"]),
        ("known_optimizers", "optimizers", []),
        ("known_lr_schedulers", "lr_schedulers", []),
    ],
)
def test_look_up_on_tasks_warns(old: str, new: str, arguments: list[str]) -> None:
    message = f"^LitPerceiver.{old} is deprecated: use {optimizers.__name__}.{new}$"
    with pytest.warns(DeprecationWarning, match=message):
        found = getattr(LitPerceiver, old)(*arguments)
    assert found == getattr(optimizers, new)(*arguments)


@pytest.mark.parametrize(
    "spec",
    [
        AdapterSpec("wave", "input", "acme:Wave", "acme:WaveConfig", "waves"),
        ModelSpec("wave-small", "waves", {}, 1, "a small one"),
    ],
    ids=["AdapterSpec", "ModelSpec"],
)
def test_deprecated_alias_of_import_paths_warns(spec: AdapterSpec | ModelSpec) -> None:
    with pytest.warns(DeprecationWarning, match="use import_paths"):
        assert spec.places == spec.import_paths


def test_skip_accepts_old_names_of_checks_and_warns() -> None:
    with pytest.warns(DeprecationWarning, match="places_can_be_imported is deprecated .* use import_paths_resolve"):
        checks = adapter_checks(faults.FRAMES, skip={"places_can_be_imported"})
    assert "import_paths_resolve" not in {check.name for check in checks}


def test_old_names_of_checks_map_to_existing_checks() -> None:
    checks = [*adapter_checks(faults.FRAMES), *adapter_checks(faults.CHORDS), *plugin_checks("checkpoints")]
    assert set(RENAMED_CHECKS.values()) <= {check.name for check in checks}


def test_sentence_of_checks_warns() -> None:
    check = adapter_checks(faults.FRAMES)[0]
    with pytest.warns(DeprecationWarning, match="use description"):
        assert check.sentence == check.description


def test_unknown_name_of_a_moved_module_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="NoSuchName"):
        from perceiver_plugins.training.data import NoSuchName  # noqa: F401
