"""docs/your-own-architecture.md: the page's architecture trains, resumes, predicts and exports by its commands."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from perceiver_cli.main import main
from perceiver_core import Model
from perceiver_registry import LoadedModel, read_model, registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-architecture.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^\*\*`([^`]+)`\*\*\n\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILES = dict(BLOCK.findall(PAGE))
"""Content of each file on the page."""

QUICK = (
    "--data.batch_size=64",
    "--model.num_hidden_channels=16",
    "--model.decoder.dropout=0.25",
    "--lr_scheduler=none",
    "--trainer.limit_val_batches=1",
    "--trainer.val_check_interval=3",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_model_summary=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
)
CHECKPOINTS = "logs/image-classification/version_{}/checkpoints/{}.ckpt"

pytestmark = pytest.mark.slow


def command(name: str, best: str = "best") -> list[str]:
    """Return the arguments of the page's command, with the path of the best checkpoint."""
    lines = {line.strip() for line in BLOCK.sub("", PAGE).splitlines() if line.strip().startswith(f"perceiver {name}")}
    (line,) = lines
    return [word.replace("=best", f"={best}") for word in shlex.split(line)[1:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Folder with the files of the page, as the current folder."""
    folder = tmp_path_factory.mktemp("architecture")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    Image.fromarray((load_digits().images[0] * 15).astype(np.uint8)).save(folder / "digit.png")
    with contextlib.chdir(folder):
        yield folder
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def run(folder) -> Callable[..., str]:
    """Return a function that runs a command in this process and returns its output, or its error line."""

    def run(*argv: str, code: int = 0) -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = main(list(argv))
        assert found == code, err.getvalue()
        return err.getvalue() if code else out.getvalue()

    return run


@pytest.fixture(scope="module")
def fit(run) -> Callable[..., None]:
    """Return a function that trains with the page's command."""
    return lambda *flags: run(*command("fit"), *QUICK, *flags)


@pytest.fixture(scope="module")
def trained(fit) -> str:
    """Checkpoint of a run of six steps."""
    fit("--trainer.max_steps=6")
    return CHECKPOINTS.format(0, "last")


def load(path: str) -> dict:
    return torch.load(path, weights_only=True)


def test_page_is_short():
    code = [line for text in FILES.values() for line in text.splitlines() if line.strip()]
    assert len(code) <= 70  # about fifty without docstrings


def test_listing_names_package_and_version(run):
    rows = json.loads(run(*command("list-architectures"), "--format=json"))
    assert {(row["name"], row["distribution"], row["version"]) for row in rows} >= {
        ("mean-pool", "mean_pool.py", "local file")
    }
    assert "num_hidden_channels" in run(*command("describe"))


def test_checkpoint_is_plain_data_and_names_the_architecture(trained):
    description = load(trained)["perceiver"]
    assert description["model"]["architecture"] == "mean-pool"
    assert {"kind": "architecture", "name": "mean-pool", "distribution": "mean_pool.py", "version": "local file"} in (
        description["plugins"]
    )
    json.dumps(description)


def test_resumed_run_is_bit_equal(fit, run, trained):
    fit("--trainer.max_steps=3")
    run("fit", "--plugin=./mean_pool.py", f"--ckpt_path={CHECKPOINTS.format(1, 'last')}", "--trainer.max_steps=6")
    expected, found = load(trained), load(CHECKPOINTS.format(1, "last"))
    assert found["global_step"] == expected["global_step"] == 6
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name
    states = [torch.utils._pytree.tree_leaves(content["optimizer_states"]) for content in (found, expected)]
    for one, other in zip(*states, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.fixture
def loaded(trained, monkeypatch) -> LoadedModel:
    """Model of the checkpoint, read in Python."""
    monkeypatch.setenv("PERCEIVER_PLUGIN_FILES", os.path.abspath("mean_pool.py"))
    return read_model(trained)


def test_prediction_needs_the_checkpoint_alone(run, trained, loaded):
    model, description = loaded
    assert isinstance(model, Model)
    assert type(model).__name__ == "MeanPool"
    reader = registry().get("input", description.adapters()[0]).resolve("reader")(description.data, model.input_adapter)
    with torch.no_grad():
        expected = model(reader.collate([reader.read("digit.png")])).softmax(dim=-1)[0]
    (prediction,) = json.loads(run(*command("predict", trained), "--format=json", "--trainer.accelerator=cpu"))
    assert prediction["label"] == str(int(expected.argmax()))
    assert prediction["probability"] == pytest.approx(float(expected.max()), abs=1e-5)


def test_exported_program_equals_the_model(run, trained, loaded):
    assert "torch-export" in run(*command("export", trained))
    program = torch.export.load("digits.pt2").module()
    batch = loaded.model.input_adapter.example_batch(5, torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(program(batch)["logits"], loaded.model(batch))


def test_missing_plugin_is_one_line(run, trained):
    error = run("predict", f"--ckpt_path={trained}", "digit.png", code=2)
    assert error == (
        f"perceiver: {trained}: needs the architecture 'mean-pool' of mean_pool.py, a file that is not installed: give "
        "it with --plugin=PATH/mean_pool.py\n"
    )


def test_options_on_the_page_are_refused(run):
    refused = re.search(r"`(--model\S+)` and `(--model\S+)` are errors", PAGE)
    for flag in refused.groups():
        error = run(*command("fit"), flag, code=2)
        name = flag.partition("=")[0]
        assert error == f"perceiver: {name}: has no effect with --model.architecture=mean-pool (leave it out)\n"


def test_contract_on_the_page(folder):
    code = re.search(r"^```python\n(import mean_pool\n.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    exec(code[1], {})
