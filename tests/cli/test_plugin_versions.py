"""A plugin in two versions: models of the first are migrated, or refused with both versions in the message."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel

import perceiver_plugins.huggingface.auto  # noqa: F401
from perceiver_cli.library_warnings import as_note
from perceiver_plugins.huggingface.wrap import to_zoo_model
from perceiver_registry import load_model, read_model, registry
from perceiver_registry.description import PluginVersionWarning
from perceiver_registry.registry import _registry

PLUGIN = """
from perceiver_registry import AdapterSpec, MigrationSpec, hookimpl

PERCEIVER_INTERFACE = "2.0"


@hookimpl
def perceiver_adapters():
    return [
        AdapterSpec(
            name="grid",
            kind="input",
            adapter="acme_grid.model:Grid",
            config="acme_grid.model:GridConfig",
            summary="numbers in columns",
            links={"num_features": "num_features"},
            reads=("inputs",),
            reader="perceiver_plugins.table.reading:TableReader",
            data_options=("feature_columns",),
        )
    ]
"""
MODEL = """
from dataclasses import dataclass

import torch
from torch import nn

from perceiver_core import AdaptedInput, EncoderConfig, InputAdapter


@dataclass
class GridConfig(EncoderConfig):
    num_features: int = 2
    num_input_channels: int = 16
    FIELD: float = 1.0


class Grid(InputAdapter):
    def __init__(self, num_features, num_input_channels, scale):
        super().__init__(num_input_channels)
        self.num_features, self.scale = num_features, scale
        self.PARAMETER = nn.Parameter(torch.randn(num_features, num_input_channels) / 5)

    @classmethod
    def from_config(cls, config):
        return cls(config.num_features, config.num_input_channels, config.FIELD)

    def example_batch(self, batch_size, generator):
        return {"inputs": torch.randn(batch_size, self.num_features, generator=generator)}

    def forward(self, batch):
        numbers = torch.nan_to_num(batch["inputs"])[..., None]
        return AdaptedInput((self.scale * numbers + 1) * self.PARAMETER)
"""
HOOK = """

@hookimpl
def perceiver_migrations():
    return [
        MigrationSpec("second", before="2.0", migration="acme_grid.migrations:Second", summary="scale is called gain"),
        MigrationSpec("first", before="1.0", migration="acme_grid.migrations:First", summary="is not needed here"),
    ]
"""
MIGRATIONS = """
from perceiver_registry import Migration


class First(Migration):
    def description(self, description):
        raise RuntimeError("the checkpoint is of version 1.4")


class Second(Migration):
    def description(self, description):
        print("printed")
        encoder = description["model"]["encoder"]
        if encoder["adapter"] == "grid":
            encoder["gain"] = encoder.pop("scale")
        return description

    def weights(self, weights, description):
        assert description["model"]["encoder"]["scale"] == 0.5
        return {name.replace("adapter.table", "adapter.columns"): weight for name, weight in weights.items()}
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install the package in a version, instead of the one before."""
    path = list(sys.path)

    def install(version: str, field: str, parameter: str, **files: str) -> None:
        site = tmp_path / f"site-{version}-{len(files)}"
        package, metadata = site / "acme_grid", site / f"acme_grid-{version}.dist-info"
        model = MODEL.replace("FIELD", field).replace("PARAMETER", parameter)
        plugin = files.pop("plugin", PLUGIN)
        for name, text in {"__init__": "", "plugin": plugin, "model": model, **files}.items():
            package.mkdir(parents=True, exist_ok=True)
            (package / f"{name}.py").write_text(text)
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-grid\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text("[perceiver]\ngrid = acme_grid.plugin\n")
        monkeypatch.setattr(sys, "path", [str(site), *path])
        forget()

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "acme_grid"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        _registry.cache_clear()

    yield install
    monkeypatch.undo()
    forget()


@pytest.fixture
def first(install):
    install("1.4", "scale", "table")


@pytest.fixture
def second(install):
    """Install the second version, in which a field and a parameter have other names."""
    return lambda: install("2.0", "gain", "columns", plugin=PLUGIN + HOOK, migrations=MIGRATIONS)


@pytest.fixture(scope="module")
def saved_runs(tmp_path_factory) -> Path:
    """Folder of the runs that :func:`fit` has trained, for tests that need the same one."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def fit(perceiver, table, trainer, saved_runs):
    """Train with version 1.4, or copy the run of an earlier test, and return the run's latest checkpoint."""

    def fit(*flags: str) -> Path:
        saved = saved_runs / "_".join(flags)
        if saved.exists():
            shutil.copytree(saved, "logs")
            return next(Path("logs").glob("*/*/checkpoints/last.ckpt"))
        checkpoint = train(*flags)
        if not any("default_root_dir" in flag for flag in flags):
            shutil.copytree("logs", saved)
        return checkpoint

    def train(*flags: str) -> Path:
        data = ["--data=table-files", f"--data.train_files={table}", '--data.label_column=["y", "z"]']
        small = ["--model.num_latents=4", "--model.num_latent_channels=16", "--model.encoder.num_input_channels=16"]
        fields = ["--model.encoder=grid", "--model.encoder.scale=0.5", "--data.batch_size=12"]
        result = perceiver("fit", "--task=regression", *data, *small, *fields, *trainer, "--optimizer.lr=0.01", *flags)
        assert result.code == 0, result.err
        return max(Path("logs").glob("*/*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime_ns)

    return fit


NOTICE = "written with acme-grid 1.4, installed: 2.0 (migrated)"


@pytest.fixture
def noticed(perceiver):
    """Run a command, and return its result and the notices about versions."""

    def run(*argv: str) -> tuple[Any, list[str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = perceiver(*argv)
        assert result.code == 0, result.err
        return result, [str(each.message) for each in caught if each.category is PluginVersionWarning]

    return run


def test_version_notice_is_one_line():
    assert as_note(PluginVersionWarning(f"a.ckpt: {NOTICE}")) == f"perceiver: a.ckpt: {NOTICE}\n"


@pytest.mark.slow
def test_migrated_model_predicts_and_validates(first, second, fit, noticed, table):
    source = fit("--trainer.max_epochs=2")
    ask = ["predict", f"--ckpt_path={source}", "--format=json", str(table)]
    (before, _), (validated, notices) = noticed(*ask), noticed("validate", f"--ckpt_path={source}")
    assert notices == []
    second()
    after, notices = noticed(*ask)
    assert json.loads(after.out) == json.loads(before.out)
    assert after.err == "printed\n"  # what a plugin prints is not part of the output
    assert notices == [f"{source}: {NOTICE}"]
    evaluated, notices = noticed("validate", f"--ckpt_path={source}")
    assert evaluated.out == validated.out
    assert notices == [f"{source}: {NOTICE}"]


@pytest.mark.slow
def test_migrated_run_is_resumed(first, second, fit, noticed):
    whole = torch.load(fit("--trainer.max_epochs=4"), weights_only=True)
    fit("--trainer.max_epochs=2", "--trainer.default_root_dir=halves")
    source = next(Path("halves").glob("**/last.ckpt"))
    second()
    _, notices = noticed("fit", f"--ckpt_path={source}", "--trainer.max_epochs=4")
    assert notices == [f"{source}: {NOTICE}"]
    resumed = torch.load(source, weights_only=True)
    assert resumed["global_step"] == whole["global_step"]
    for name, value in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name.replace("adapter.table", "adapter.columns")], value), name
    described = resumed["perceiver"]
    assert described["model"]["encoder"]["gain"] == 0.5
    assert [each["version"] for each in described["plugins"] if each["distribution"] == "acme-grid"] == ["2.0"]
    # Nothing is migrated twice.
    assert noticed("validate", f"--ckpt_path={source}")[1] == []


@pytest.mark.slow
def test_migrated_model_is_converted(first, second, fit, noticed):
    source = fit("--trainer.max_epochs=1")
    noticed("convert", str(source), "old.safetensors")
    old = load_model(str(source))
    batch = old.input_adapter.example_batch(2, torch.Generator().manual_seed(1))
    expected = old(batch)
    second()
    for file, target in ((str(source), "a.ckpt"), ("old.safetensors", "b.safetensors")):
        assert noticed("convert", file, target)[1] == [f"{file}: {NOTICE}"]
        assert noticed("convert", target, f"again-{target}")[1] == []
        torch.testing.assert_close(load_model(target)(batch), expected, rtol=0, atol=0)
    with safe_open("b.safetensors", framework="pt") as stored:
        assert "input_adapter.columns" in stored.keys()  # noqa: SIM118


@pytest.mark.slow
def test_migrated_encoder_initialises_a_model(first, second, fit, noticed):
    source = fit("--trainer.max_epochs=1")
    second()
    start = [f"--model.encoder.params={source}", "--trainer.max_steps=1", "--optimizer.lr=0"]
    run = torch.load(source, weights_only=True)["perceiver"]["run"]["data"]
    data = [f"--data.train_files={run['train_files']}", '--data.label_column=["y", "z"]']
    _, notices = noticed("fit", "--task=regression", "--data=table-files", *data, *start, "--trainer.accelerator=cpu")
    assert set(notices) == {f"{source}: {NOTICE}"}
    file = max(Path("logs").glob("*/*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    taken, given = (torch.load(path, weights_only=True)["state_dict"] for path in (file, source))
    assert torch.equal(taken["model.input_adapter.columns"], given["model.input_adapter.table"])


COMMANDS = {
    "predict": ["--ckpt_path={source}", "{table}"],
    "validate": ["--ckpt_path={source}"],
    "fit": ["--ckpt_path={source}", "--trainer.max_epochs=3"],
    "convert": ["{source}", "out.safetensors"],
    "export": ["--ckpt_path={source}", "--output=out.pt2"],
}


def errors(perceiver: Any, source: Path, table: Path, commands: Iterable[str] = COMMANDS) -> list[str]:
    """Return the error of each command, without notices."""
    found = []
    for command in commands:
        flags = COMMANDS[command]
        result = perceiver(command, *(flag.format(source=source, table=table) for flag in flags))
        assert result.code == 2, result
        found.append(result.err.splitlines()[-1])
    return found


@pytest.mark.slow
def test_removed_field_is_reported_with_versions(first, install, fit, perceiver, table):
    source = fit("--trainer.max_epochs=1")
    install("2.0", "gain", "table")
    for error in errors(perceiver, source, table):
        gone = f"perceiver: {source}: encoder has no field 'scale'; did you mean 'init_scale'?"
        assert error == f"{gone} (written with acme-grid 1.4, installed: 2.0)"


@pytest.mark.slow
def test_removed_weights_are_reported_with_versions(first, install, fit, perceiver, table):
    source = fit("--trainer.max_epochs=1")
    install("1.5", "scale", "columns")
    for error in errors(perceiver, source, table):
        assert str(source) in error
        assert "input_adapter.columns" in error
        assert error.endswith("(written with acme-grid 1.4, installed: 1.5)"), error


def test_folder_of_another_version_is_read_or_refused(first, install, fit, noticed, perceiver):
    source = fit("--trainer.max_epochs=1")
    noticed("convert", str(source), "folder", "--format=zoo")
    install("1.5", "scale", "table")
    versions = "written with acme-grid 1.4, installed: 1.5"
    assert noticed("convert", "folder", "same.safetensors")[1] == [f"folder: {versions}"]
    install("1.6", "scale", "columns")
    error = perceiver("convert", "folder", "other.safetensors").err
    assert "perceiver.input_adapter.columns' is missing" in error
    assert error.endswith(f"({versions.replace('1.5', '1.6')})\n"), error


@pytest.mark.slow
def test_folder_of_the_first_version_is_migrated(first, second, fit, noticed):
    source = fit("--trainer.max_epochs=1")
    noticed("convert", str(source), "folder", "--format=zoo")
    old = load_model(str(source))
    batch = old.input_adapter.example_batch(2, torch.Generator().manual_seed(1))
    expected = old(batch)
    to_zoo_model(read_model(str(source))).save_pretrained("shards", max_shard_size=500)
    second()
    torch.testing.assert_close(load_model("folder")(batch), expected)
    for folder in ("folder", "shards"):
        model = AutoModel.from_pretrained(folder)
        assert model.perceiver.config.encoder.gain == 0.5
        for name, weight in old.state_dict().items():
            migrated = model.perceiver.state_dict()[name.replace("adapter.table", "adapter.columns")]
            torch.testing.assert_close(migrated, weight, rtol=0, atol=0)
        assert model.name_or_path == folder
        # The saved folder is one of the second version and is not migrated again.
        model.save_pretrained("again")
        assert noticed("convert", "again", f"{folder}.safetensors")[1] == []
        torch.testing.assert_close(load_model("again")(batch), expected)
    assert noticed("convert", "folder", "migrated.ckpt")[1] == [f"folder: {NOTICE}"]
    assert "input_adapter.columns" in load_model("migrated.ckpt").state_dict()


def test_new_model_from_a_config_of_the_first_version_is_saved_in_the_second(first, second, fit, noticed):
    noticed("convert", str(fit("--trainer.max_epochs=1")), "folder", "--format=zoo")
    second()
    model = AutoModel.from_config(AutoConfig.from_pretrained("folder"))
    model.save_pretrained("new")
    torch.testing.assert_close(load_model("new").state_dict(), dict(model.perceiver.state_dict()))


def test_removed_adapter_is_reported_with_versions(first, install, fit, perceiver, table):
    source = fit("--trainer.max_epochs=1")
    install("2.0", "scale", "table", plugin=PLUGIN.replace('"grid"', '"mesh"'))
    expected = "needs the input adapter 'grid' of acme-grid 1.4, which acme-grid 2.0 does not register"
    assert all(
        f"perceiver: {source}: {expected}" in error for error in errors(perceiver, source, table, ["predict", "fit"])
    )


def test_failing_migration_is_reported_with_versions(first, install, fit, perceiver, table):
    source = fit("--trainer.max_epochs=1")
    for number, (line, reason) in enumerate(
        {
            '        return description["scale"]\n': "KeyError: 'scale'",
            "        return None\n": "description must return a mapping",
            "        raise SystemExit(3)\n": "SystemExit: 3",
        }.items()
    ):
        failing = MIGRATIONS.replace('        print("printed")\n', line)
        install(f"2.{number}", "gain", "columns", plugin=PLUGIN + HOOK, migrations=failing)
        failed = f"migration 'second' (plugin 'grid' of acme-grid 2.{number}) failed: {reason}"
        versions = f"(written with acme-grid 1.4, installed: 2.{number})"
        assert errors(perceiver, source, table, ["predict"]) == [f"perceiver: {source}: {failed} {versions}"]


def test_migration_without_description_is_reported(first, install, fit, perceiver, table):
    source = fit("--trainer.max_epochs=1")
    wrong = MIGRATIONS.replace('        print("printed")\n', '        return {**description, "model": []}\n')
    install("2.0", "gain", "columns", plugin=PLUGIN + HOOK, migrations=wrong)
    damaged = "its description of the model is damaged: model has the wrong type"
    versions = "(written with acme-grid 1.4, installed: 2.0)"
    assert errors(perceiver, source, table, ["predict"]) == [f"perceiver: {source}: {damaged} {versions}"]


def test_local_build_counts_as_the_same_version(first, install, fit, noticed):
    source = fit("--trainer.max_epochs=1")
    install("1.4+local.3", "scale", "table")
    assert registry().get("input", "grid").plugin.version == "1.4+local.3"
    assert noticed("validate", f"--ckpt_path={source}")[1] == []
