"""Name conflicts of installed distributions: existing runs, configurations and checkpoints keep their meaning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from environments import FreshEnvironment, Result, write_wheel

PLUGIN = """
from perceiver_registry import AdapterSpec, DataSpec, ModelSpec, TaskSpec, hookimpl

PERCEIVER_INTERFACE = "2.0"

@hookimpl
def perceiver_adapters():
    return [
        AdapterSpec(name, "input", "{package}.adapters:Wave", "{package}.adapters:WaveConfig", "waves of {package}")
        for name in {names}
    ]

@hookimpl
def perceiver_tasks():
    return [
        TaskSpec(
            "hear",
            "perceiver_plugins.classification.lightning:LitClassifier",
            "tell what is to be heard",
            data="random",
            defaults={{
                "model.encoder": "wave",
                "model.encoder.num_self_attention_layers_per_block": 1,
                "model.decoder": "classification",
                "model.decoder.num_classes": 3,
                "model.decoder.num_output_query_channels": 16,
                "model.num_latents": 4,
                "model.num_latent_channels": 16,
                "optimizer": "SGD",
                "optimizer.lr": 0.1,
            }},
        )
    ]
"""
ADAPTERS = """
from dataclasses import dataclass

import torch
from torch import nn

from perceiver_core import AdaptedInput, EncoderConfig, InputAdapter


@dataclass
class WaveConfig(EncoderConfig):
    frame_length: int = {length}


class Wave(InputAdapter):
    def __init__(self, frame_length):
        super().__init__(12)
        self.linear = nn.Linear(frame_length, 12)

    @classmethod
    def from_config(cls, config):
        return cls(config.frame_length)

    def example_batch(self, batch_size, generator):
        return {{"wave": torch.randn(batch_size, 4 * self.linear.in_features, generator=generator)}}

    def forward(self, batch):
        return AdaptedInput(self.linear(batch["wave"].unflatten(1, (-1, self.linear.in_features))))
"""

NAMES = """
import json, torch
from perceiver_registry import config_from_dict, config_to_dict, read_checkpoint
from perceiver_plugins.classification import LitClassifier

path = "logs/hear/version_0/checkpoints/last.ckpt"
described = torch.load(path, weights_only=True)["perceiver"]
read = read_checkpoint(path)["perceiver"]
config = config_from_dict(read["model"])
loaded = LitClassifier.load_from_checkpoint(path, weights_only=True)
print(json.dumps({
    "written": [described["task"], described["model"]["encoder"]["adapter"], described["run"]["data"]["name"]],
    "plugins": [[used["kind"], used["name"], used["distribution"]] for used in described["plugins"]],
    "read": [read["task"], read["model"]["encoder"]["adapter"], read["run"]["data"]["name"]],
    "again": config_to_dict(config)["encoder"]["adapter"],
    "full": config_to_dict(config, full_names=True)["decoder"]["adapter"],
    "same": config_from_dict(config_to_dict(config)) == config == loaded.config,
    "type": type(config.encoder).__module__,
    "task": loaded.task,
}))
"""

CHECKPOINT = "logs/hear/version_0/checkpoints/last.ckpt"

TRAIN = [
    "--trainer.max_steps=1",
    "--trainer.limit_val_batches=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


def wheel(folder: Path, name: str, names: list[str], length: int) -> Path:
    package = name.replace("-", "_")
    files = {
        f"{package}/__init__.py": "",
        f"{package}/plugin.py": PLUGIN.format(package=package, names=names),
        f"{package}/adapters.py": ADAPTERS.format(length=length),
    }
    return write_wheel(folder, name, files, plugins={package: f"{package}.plugin"})


def error(result: Result) -> str:
    """Return the single line on standard error of a usage error."""
    assert result.code == 2, result
    (line,) = result.err.splitlines()
    return line.removeprefix("perceiver: ")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    return {
        "strange-audio": wheel(folder, "strange-audio", ["wave"], 5),
        "noisy-audio": wheel(folder, "noisy-audio", ["wave", "text", "image-patches"], 7),
    }


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> FreshEnvironment:
    return FreshEnvironment(tmp_path_factory.mktemp("claimed") / "environment")


@pytest.fixture(scope="module")
def before(environment: FreshEnvironment, wheels: dict[str, Path]) -> dict[str, Result]:
    """Results of commands in an environment with one of the distributions."""
    environment.install(wheels["strange-audio"])
    commands = {"fit": ["fit", "--task=hear", *TRAIN], "print": ["fit", "--task=classification", "--print_config"]}
    return environment.commands(commands)


OPTIONS = ["fit", "--task=classification", "--data=random", "--print_config"]
COMMANDS_AFTER = {
    "list": ["list-adapters", "wave", "--format=json"],
    "list one": ["list-adapters", "noisy-audio:w*", "--format=json"],
    "describe": ["describe", "wave", "--format=json"],
    "describe one": ["describe", "strange-audio:wave", "--format=json"],
    "print": ["fit", "--task=classification", "--print_config"],
    "flag": [*OPTIONS, "--model.encoder=wave"],
    "file": [*OPTIONS, "--config=bare.yaml"],
    "task": ["fit", "--task=hear"],
    "full flag": [*OPTIONS, "--model.encoder=strange-audio:wave"],
    "full file": [*OPTIONS, "--config=full.yaml"],
    "noisy task": ["fit", "--task=noisy-audio:hear", "--print_config"],
    "strange task": ["fit", "--task=strange-audio:hear", "--print_config"],
    "resume": ["fit", f"--ckpt_path={CHECKPOINT}", *TRAIN[1:], "--trainer.max_steps=2"],
    "validate": ["validate", f"--ckpt_path={CHECKPOINT}", *TRAIN[1:]],
    "newest": ["validate", "--ckpt_path=last", "--task=strange-audio:hear", *TRAIN[1:]],
}


@pytest.fixture(scope="module")
def after(environment: FreshEnvironment, before, wheels: dict[str, Path]) -> dict[str, Result]:
    """Results of commands in the same environment with both distributions."""
    assert before["fit"].code == 0, before["fit"].err
    environment.install(wheels["noisy-audio"])
    (environment.folder / "bare.yaml").write_text("model: {encoder: wave}\n")
    (environment.folder / "full.yaml").write_text("model: {encoder: {adapter: noisy-audio:wave}}\n")
    return environment.commands(COMMANDS_AFTER, code=NAMES)


def test_lists_show_both_entries(after):
    rows = json.loads(after["list"].out)
    assert [(row["name"], row["distribution"]) for row in rows] == [("wave", "noisy-audio"), ("wave", "strange-audio")]
    (row,) = json.loads(after["list one"].out)
    assert row["distribution"] == "noisy-audio"


def test_describe_shows_both_entries_or_the_selected_one(after):
    both = json.loads(after["describe"].out)
    assert [row["distribution"] for row in both] == ["noisy-audio", "strange-audio"]
    (described,) = json.loads(after["describe one"].out)
    assert [each["default"] for each in described["fields"] if each["field"] == "frame_length"] == ["5"]


def test_runs_of_other_tasks_are_unchanged(before, after):
    """The second distribution also claims the name of that task's default encoder."""
    printed, now = before["print"].out, after["print"]
    assert "adapter: image-patches\n" in printed
    assert (now.code, now.err) == (0, "")
    assert now.out == printed.replace("adapter: image-patches", "adapter: perceiver-zoo:image-patches")


def test_ambiguous_name_is_an_error(after):
    both = "input adapter 'wave' is in noisy-audio 1.0 and strange-audio 1.0; write noisy-audio:wave or "
    assert error(after["flag"]) == error(after["file"]) == f"{both}strange-audio:wave"
    assert "task 'hear' is in noisy-audio 1.0 and strange-audio 1.0; write" in error(after["task"])


def test_name_with_distribution_selects_one_entry(after):
    for result, name, length in (("full flag", "strange-audio:wave", 5), ("full file", "noisy-audio:wave", 7)):
        assert f"adapter: {name}\n" in after[result].out
        assert f"frame_length: {length}\n" in after[result].out


def test_defaults_of_a_task_refer_to_its_own_distribution(after):
    for name in ("noisy", "strange"):
        assert f"adapter: {name}-audio:wave\n" in after[f"{name} task"].out
        assert f"name: {name}-audio:hear\n" in after[f"{name} task"].out


def test_checkpoint_names_refer_to_its_distributions(after):
    found = json.loads(after["code"].out)
    assert found["written"] == ["hear", "wave", "random"]
    assert ["input", "wave", "strange-audio"] in found["plugins"]
    assert ["data", "random", "perceiver-zoo"] in found["plugins"]
    assert found["read"] == ["strange-audio:hear", "strange-audio:wave", "random"]
    assert found["again"] == "strange-audio:wave"
    assert found["full"] == "perceiver-zoo:classification"
    assert found["same"]
    assert found["type"] == "strange_audio.adapters"
    assert found["task"] == "strange-audio:hear"


def test_checkpoint_is_validated_and_resumed(after):
    assert after["resume"].code == 0, after["resume"].err
    assert "Trained for 2 steps" in after["resume"].out
    for command in ("validate", "newest"):
        assert after[command].code == 0, after[command].err
        assert "val_loss" in after[command].out


def test_checkpoint_of_an_uninstalled_distribution_is_rejected_despite_equal_names(environment, after):
    environment.uninstall("strange-audio")
    refused = environment.commands({"validate": ["validate", f"--ckpt_path={CHECKPOINT}"]})["validate"]
    needs = f"{CHECKPOINT}: needs the task 'hear' of strange-audio 1.0"
    assert error(refused) == f"{needs}: pip install strange-audio==1.0"
