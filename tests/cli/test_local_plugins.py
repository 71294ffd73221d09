"""Plugins from local files (``--plugin=FILE``)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from environments import FreshEnvironment, Result

from perceiver_cli.main import main
from perceiver_registry import INTERFACE_VERSION

MY_ADAPTERS = '''
"""An adapter, its data and their hooks in one file."""

from dataclasses import dataclass

import torch
from torch import nn

from perceiver_core import AdaptedInput, EncoderConfig, InputAdapter
from perceiver_plugins.sdk.data.module import PerceiverDataModule
from perceiver_registry import AdapterSpec, DataSpec, hookimpl

print("my adapters")


@hookimpl
def perceiver_adapters():
    yield AdapterSpec("wave", "input", "my_adapters:Wave", "my_adapters:WaveConfig", "waves", reads=("wave",))


@hookimpl
def perceiver_data():
    yield DataSpec("noise", "my_adapters:Noise", ("classification",), "noise", yields=("wave",))


@dataclass
class WaveConfig(EncoderConfig):
    """Frames of a wave.

    Args:
        frame_length: values of a frame.
    """

    frame_length: int = 4


class Wave(InputAdapter):
    def __init__(self, frame_length):
        super().__init__(12)
        self.linear = nn.Linear(frame_length, 12)

    @classmethod
    def from_config(cls, config):
        return cls(config.frame_length)

    def forward(self, batch):
        return AdaptedInput(self.linear(batch["wave"].unflatten(1, (-1, self.linear.in_features))))


class Examples(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, key):
        index = key[1] if isinstance(key, tuple) else key
        return {"wave": torch.linspace(0, index, 8), "labels": index % 2}


class Noise(PerceiverDataModule):
    num_classes = 2

    def __init__(self, batch_size: int = 2, num_workers: int = 0):
        super().__init__(batch_size, num_workers=num_workers)

    def setup(self, stage=None):
        self.split_datasets = {"train": Examples(), "validation": Examples()}
'''

LIGHT = """
from perceiver_registry import DataSpec, hookimpl

class Example(str):
    pass

@hookimpl
def perceiver_data():
    return [DataSpec("{name}", "torch:Tensor", ("*",), "nothing")]
"""

FIT = [
    "fit",
    "--plugin=mine/my_adapters.py",
    "--task=classification",
    "--model.encoder=wave",
    "--model.encoder.num_self_attention_layers_per_block=1",
    "--model.decoder.num_output_query_channels=16",
    "--model.num_latents=4",
    "--model.num_latent_channels=16",
    "--data=noise",
    "--data.num_workers=1",
    "--trainer.max_steps=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]
CHECKPOINT = "logs/classification/version_0/checkpoints/last.ckpt"

SPAWN_SCRIPT = """
import multiprocessing, os
from perceiver_registry import registry

os.environ["PERCEIVER_PLUGIN_FILES"] = os.path.abspath("mine/light.py")
registry()
import light
with multiprocessing.get_context("spawn").Pool(1) as pool:
    print(type(pool.apply(light.Example, ("abc",))), pool.apply(len, (light.Example("abc"),)))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> FreshEnvironment:
    """Environment without an installed plugin, with plugin files in the folder "mine"."""
    fresh = FreshEnvironment(tmp_path_factory.mktemp("local") / "environment")
    folder = fresh.folder / "mine"
    folder.mkdir()
    (folder / "my_adapters.py").write_text(MY_ADAPTERS)
    (folder / "light.py").write_text(LIGHT.format(name="light"))
    (folder / "claims.py").write_text(LIGHT.format(name="digits"))
    (folder / "plain.txt").write_text("")
    (folder / "my-adapters.py").write_text("")
    (folder / "colorsys.py").write_text("")
    (folder / "broken.py").write_text("x = 1\nthis is no Python\n")
    (folder / "raising.py").write_text("raise ValueError('no\\nluck')")
    (folder / "leaving.py").write_text("import sys; sys.exit()")
    (folder / "empty.py").write_text("x = 1\n")
    (folder / "newer.py").write_text("PERCEIVER_INTERFACE = '9.0'\n" + LIGHT.format(name="x"))
    (folder / "other").mkdir()
    (folder / "other" / "light.py").write_text(LIGHT.format(name="other"))
    return fresh


@pytest.fixture(scope="module")
def results(fresh: FreshEnvironment) -> dict[str, Result]:
    """Results of the commands that import torch, run in one process."""
    return fresh.commands(
        {
            "fit": FIT,
            "validate": ["validate", "--plugin=./mine/my_adapters.py", f"--ckpt_path={CHECKPOINT}", *FIT[-3:]],
            "without": ["validate", f"--ckpt_path={CHECKPOINT}"],
            "describe": ["describe", "my_adapters.py:wave", "--plugin=mine/my_adapters.py", "--format=json"],
            "print": [*FIT, "--model.encoder=my_adapters.py:wave", "--print_config"],
        }
    )


def listed(result: Result) -> dict[str, tuple[str, str]]:
    assert result.code == 0, result.err
    return {row["name"]: (row["distribution"], row["version"]) for row in json.loads(result.out)}


def test_local_plugin_is_listed(fresh):
    shown = fresh.perceiver("list-data", "--plugin=./mine/light.py", "--format=json")
    assert listed(shown)["light"] == ("light.py", "local file")
    assert "digits" in listed(shown)
    assert "light" not in listed(fresh.perceiver("list-data", "--format=json"))


def test_local_plugin_without_other_plugins(fresh):
    shown = fresh.perceiver("list-data", "--plugin=mine/light.py", "--plugins=none", "--format=json")
    assert set(listed(shown)) == {"light"}
    (row,) = json.loads(fresh.perceiver("plugins", "light", "--plugin=mine/light.py", "--format=json").out)
    assert (row["name"], row["distribution"], row["status"]) == ("light", "light.py", "ok")
    assert row["provides"] == {"data": ["light"]}


def test_several_local_plugins(fresh):
    shown = fresh.perceiver("list-data", "--plugin=mine/light.py", "--plugin=mine/claims.py", "--format=json")
    assert "light" in listed(shown)
    assert [row["distribution"] for row in json.loads(shown.out) if row["name"] == "digits"] == [
        "claims.py",
        "perceiver-zoo",
    ]


def test_local_plugin_trains_with_workers_and_validates(results):
    assert results["fit"].code == 0, results["fit"].err
    assert "my adapters" not in results["fit"].out
    assert "last.ckpt --plugin=mine/my_adapters.py ...\n" in results["fit"].out  # how to predict with it
    assert "last.ckpt --plugin=mine/my_adapters.py --trainer.max_steps=N\n" in results["fit"].out
    assert results["validate"].code == 0, results["validate"].err
    assert "val_loss" in results["validate"].out


def test_local_plugin_is_qualified_by_its_file(results):
    (described,) = json.loads(results["describe"].out)
    assert (described["distribution"], described["version"]) == ("my_adapters.py", "local file")
    assert any(field["field"] == "frame_length" for field in described["fields"])
    assert "adapter: wave\n" in results["print"].out


def test_checkpoint_without_its_local_plugin_names_the_flag(results):
    assert results["without"].code == 2
    (line,) = results["without"].err.splitlines()
    assert line == (
        f"perceiver: {CHECKPOINT}: needs the input adapter 'wave' of my_adapters.py, a file that is not installed: "
        "give it with --plugin=PATH/my_adapters.py"
    )


def test_classes_are_unpickled_in_spawned_processes(fresh):
    done = fresh.python("-c", SPAWN_SCRIPT)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "<class 'light.Example'> 3"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("missing.py", "no such file"),
        (".", "no such file"),
        ("plain.txt", "must be a Python file whose name can be imported, such as my_adapters.py"),
        ("my-adapters.py", "must be a Python file whose name can be imported"),
        ("colorsys.py", "a module 'colorsys' already exists: "),
        ("broken.py", "cannot be imported: SyntaxError: invalid syntax (broken.py, line 2)"),
        ("raising.py", "cannot be imported: ValueError: no luck"),
        ("leaving.py", "cannot be imported: SystemExit"),
        ("empty.py", "it registers nothing: no function in it is marked with @hookimpl"),
        ("newer.py", f"it was written for interface 9.0, but this is {INTERFACE_VERSION}: upgrade perceiver-zoo"),
    ],
)
def test_failing_file_is_an_error(fresh, capsys, file, reason):
    path = fresh.folder / "mine" / file
    assert main(["list-data", f"--plugin={path}"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith(f"perceiver: --plugin={path}: {reason}")


def test_debug_shows_the_traceback_of_a_failing_file(fresh, capsys):
    assert main(["list-data", f"--plugin={fresh.folder / 'mine' / 'raising.py'}", "--debug"]) == 2
    shown = capsys.readouterr()
    assert 'raising.py", line 1' in shown.err
    assert "Traceback" in shown.err


def test_two_files_with_one_module_name_are_reported(fresh):
    shown = fresh.perceiver("list-data", "--plugin=mine/light.py", "--plugin=mine/other/light.py")
    assert shown.code == 2
    (line,) = shown.err.splitlines()
    assert "a module 'light' already exists" in line
    assert str(Path("other") / "light.py") in line


def test_plugin_for_the_previous_interface_is_deprecated(tmp_path, capsys):
    file = tmp_path / "for_the_previous.py"
    file.write_text("PERCEIVER_INTERFACE = '1.2'\n" + LIGHT.format(name="of-the-previous"))
    assert main(["list-data", f"--plugin={file}"]) == 0
    shown = capsys.readouterr()
    assert "of-the-previous" in shown.out
    (line,) = shown.err.splitlines()
    assert line.startswith(
        "perceiver: plugin 'for_the_previous' of for_the_previous.py (local file) is written for inter"
    )
