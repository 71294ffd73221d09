"""Errors of jsonargparse about values, composed anew: no types of Python, no words of the library."""

from __future__ import annotations

from argparse import ArgumentError
from typing import Any

import pytest
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger

from perceiver_cli import allowed
from perceiver_cli.parser_errors import explain, problem_of, refused_path
from perceiver_registry.option_types import ConversionError, convert

INTERNALS = ("typing", "Namespace", "<class", "Union", "Optional", "Literal[", "NoneType", "Expected a", "Parser key")

REFUSED_4_53 = """Parser key "trainer.callbacks":
  Does not validate against any of the Union subtypes
  Subtypes: [list[pytorch_lightning.callbacks.callback.Callback], <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'torch.nn.modules.module.torch.load':
        Importing 'torch.serialization.load' is not allowed, denied by the '*' entry of the import path denylist. """


@pytest.fixture(autouse=True)
def _enforced():
    allowed.allow(())
    allowed.enforce()


def test_refused_path_is_parsed_from_the_message_of_4_53():
    assert refused_path(REFUSED_4_53) == "torch.serialization.load"
    assert refused_path("Expected a <class 'int'>. Got value: os.system") is None


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (type, "os.system"),
        (Logger | bool | None, "os.system"),
        (list[Callback] | Callback | None, [{"class_path": "os.system", "init_args": {"command": "true"}}]),
    ],
)
def test_refused_path_is_parsed_from_the_installed_version(hint, value):
    with pytest.raises(ConversionError) as caught:
        convert(hint, value)
    assert refused_path(caught.value.cause) == "os.system"


@pytest.mark.parametrize(
    ("hint", "value", "problem"),
    [
        (int, "five", ("", ": must be a whole number, got 'five'")),
        (int, "5", None),
        (int, None, None),
        (Logger | None, "CVSLogger", ("", ": must be a Logger or null, got 'CVSLogger' (did you mean 'CSVLogger'?)")),
        (Logger | None, "CSVLogger", (".save_dir", ": missing")),
        (Logger, {"class_path": "CSVLogger", "init_args": {"save_dir": "x", "flush_logs_every_n_steps": "y"}},
         (".flush_logs_every_n_steps", ": must be a whole number, got 'y'")),
        (list[Callback] | None, ["Timer", {"class_path": "EarlyStopping", "init_args": {"mode": "min"}}],
         (".monitor", ": missing")),
        (Callback, {"class_path": "Timer", "init_args": 3}, (".init_args", ": must be a mapping, got 3")),
        (Callback, "torch.nn.Linear", ("", ": must be a Callback, got 'torch.nn.Linear'")),
    ],
)  # fmt: skip
def test_problem_of_a_value(hint, value, problem):
    assert problem_of(hint, value) == problem


def explained(values: dict[str, Any], required: list[str], composed: list[str] | None = None) -> str:
    hints = {"data.path": str, "data.batch_size": int, "trainer.logger": Logger | None}
    error = ArgumentError(None, "Parser key \"x\": a sentence of another version with <class 'int'> in it")
    return str(explain(error, values, hints, required, composed or [], "--{}".format))


def test_first_wrong_value_is_explained():
    assert explained({"data.batch_size": "x"}, []) == "--data.batch_size: must be a whole number, got 'x'"
    assert explained({"trainer.logger": "CSVLogger"}, ["data.path"]) == "--trainer.logger.save_dir: missing"


def test_missing_flags_are_reported():
    assert explained({"data.batch_size": "3"}, ["data.path"]) == "--data.path: missing"
    assert explained({"data.path": None}, ["data.path", "data.name"]) == "--data.path and --data.name: missing"


def test_unexplained_error_has_a_generic_message():
    reason = "invalid value (see --help; --debug shows the traceback)"
    assert explained({"data.batch_size": 3}, []) == f"the configuration: {reason}"
    assert explained({"data.batch_size": 3}, [], ["trainer.logger"]) == f"--trainer.logger: {reason}"


@pytest.mark.parametrize(
    "flags",
    [
        ["--model.num_latents=five"],
        ["--model.num_latents=[1"],
        ["--trainer.limit_val_batches=few"],
        ["--trainer.callbacks=Foo"],
        ["--trainer.callbacks=[{class_path: EarlyStopping, init_args: 3}]"],
        ["--trainer.callbacks=3"],
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=[]"],
        ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir={}"],
        ["--trainer.logger.save_dir=x"],
        ["--trainer.strategy=DDPStrategy", "--trainer.strategy.timeout=soon"],
        ["--trainer.plugins=[Foo]"],
        ["--trainer.profiler=SimpleProfiler", "--trainer.profiler.dirpath=[1]"],
        ["--data.val_files={a: 1}"],
        ["--data.max_seq_len.x=1"],
        ["--optimizer.betas=0.9"],
        ["--seed_everything=null"],
        ["--lr_scheduler=OneCycleLR"],
        ["--inputs=x"],
    ],
)
def test_messages_contain_no_python_types(perceiver, small, flags):
    line = perceiver("fit", *small, *flags, "--print_config").error
    assert not [word for word in INTERNALS if word in line], line
    assert line.startswith("--"), line
