"""Words of a command line as flags, and the layers of a configuration with their sources."""

from __future__ import annotations

import pytest

from perceiver_cli.command_line import Flag, read_command_line, refuse_single_dashes
from perceiver_cli.config_files import read_config_file
from perceiver_cli.layers import ConfigLayer, layer_with, merge_layers
from perceiver_registry import UserError


@pytest.mark.parametrize(
    ("argv", "flags", "words"),
    [
        (["--a.b=1", "--c", "2"], [("a.b", "1"), ("c", "2")], []),
        (["--a", "-1", "--b", "-"], [("a", "-1"), ("b", "-")], []),
        (["--a", "--b"], [("a", None), ("b", None)], []),
        (["--a=", "x=y", "--b=c=d"], [("a", ""), ("b", "c=d")], ["x=y"]),
        (["one", "--overwrite", "two", "-h", "three"], [("overwrite", None), ("help", None)], ["one", "two", "three"]),
        (["-lr=0.1", "-5", "-"], [("-lr", "0.1")], ["-5", "-"]),
        (["--a", "--", "--b", "-c"], [("a", None)], ["--b", "-c"]),
        (
            ["-a text", "--trainer.callbacks+=X"],
            [("trainer.callbacks+", "X")],
            ["-a text"],
        ),
        (["--data.class_path=X", "--data.init_args.y=1"], [("data", "X"), ("data.y", "1")], []),
        (
            ["--model.encoder.adapter=text", "--optimizer.name", "SGD"],
            [("model.encoder", "text"), ("optimizer", "SGD")],
            [],
        ),
        (["--trainer.strategy=ddp"], [("trainer.strategy", "ddp")], []),
        (["--trainer.strategy=DDPStrategy"], [("trainer.strategy.class_path", "DDPStrategy")], []),
        (["--a=two\nlines"], [("a", "two\nlines")], []),
    ],
)
def test_words_are_flags_with_values(argv, flags, words):
    line = read_command_line(argv)
    assert line.flags == tuple(Flag(*flag) for flag in flags)
    assert line.words == tuple(words)


def test_last_flag_wins():
    line = read_command_line(["--a=1", "--b=2", "--a=3"])
    assert (line.text("a"), line.texts("a"), line.text("c")) == ("3", ["1", "3"], None)
    assert [flag.word for flag in line.without(["a"]).flags] == ["--b=2"]
    assert line.has("b")
    assert not line.has("c")


def test_flag_without_value_is_reported():
    with pytest.raises(UserError, match=r"^--config: value missing \(write --config=VALUE\)$"):
        read_command_line(["--config", "--task=mlm"]).text("config")
    with pytest.raises(UserError, match=r"^--print_config: takes no value$"):
        read_command_line(["--print_config=yes"])


def test_flags_begin_with_two_dashes():
    with pytest.raises(UserError, match=r"^-task=mlm: flags begin with two dashes \(did you mean --task=mlm\?\)$"):
        refuse_single_dashes(read_command_line(["-task=mlm"]), ["task"])
    refuse_single_dashes(read_command_line(["-lr=1"]), ["task"])


FILE = """\
seed_everything: 1
data:
  class_path: TextFilesDataModule
  init_args:
    batch_size: 2
    label_names:
      - a
trainer:
  callbacks:
    - class_path: EarlyStopping
"""


def test_options_are_located_in_config_files(tmp_path):
    (tmp_path / "c.yaml").write_text(FILE)
    layer = read_config_file("--config=c.yaml", str(tmp_path / "c.yaml"))
    assert layer.values["data"] == {"name": "TextFilesDataModule", "batch_size": 2, "label_names": ["a"]}
    for name, line in {
        "seed_everything": 1,
        "data": 2,
        "data.batch_size": 5,
        "data.label_names": 6,
        "trainer.callbacks": 9,
        "trainer.callbacks.monitor": 9,
        "trainer.max_steps": 8,
    }.items():
        assert layer.locate(name) == f"--config=c.yaml, line {line}: {name}"
    assert layer.locate("optimizer") == "--config=c.yaml: optimizer"


def test_trainer_options_in_a_separate_file(tmp_path):
    (tmp_path / "trainer.yaml").write_text("max_steps: 3\n")
    (tmp_path / "c.yaml").write_text(f"trainer: {tmp_path}/trainer.yaml\n")
    layer = read_config_file("--config=c.yaml", str(tmp_path / "c.yaml"))
    assert layer.values == {"trainer": {"max_steps": 3}}
    assert layer.locate("trainer.max_steps") == "--config=c.yaml, line 1: trainer.max_steps"


def test_highest_layer_with_an_option_is_its_source():
    layers = [
        ConfigLayer("task 'mlm'", {"data": {"batch_size": 1}, "trainer": {"max_steps": 1}}),
        ConfigLayer("last.ckpt", {"data": {"batch_size": 2}}),
        ConfigLayer("--config=c.yaml", {"data": {"seed": 3}}, {"data": 1, "data.seed": 2}),
    ]
    assert layer_with(layers, "data.batch_size").locate("data.batch_size") == "last.ckpt: --data.batch_size"
    assert layer_with(layers, "data.seed").locate("data.seed") == "--config=c.yaml, line 2: data.seed"
    assert layer_with(layers, "trainer.max_steps").source == "task 'mlm'"
    assert layer_with(layers, "optimizer.lr").locate("optimizer.lr") == "--optimizer.lr"
    assert merge_layers(layers) == {"data": {"batch_size": 2, "seed": 3}, "trainer": {"max_steps": 1}}
