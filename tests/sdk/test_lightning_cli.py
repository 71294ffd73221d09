"""User scripts on ``LightningCLI``, without the ``perceiver`` command."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from perceiver_plugins.text import LitLanguageModel, TextDecoderConfig, TextEncoderConfig, TextFilesDataModule

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*not resumable.*", "ignore:.*LeafSpec.*"
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "lightning-cli.md"

DEFAULTS = {
    "model.num_latents": 5,
    "model.num_latent_channels": 16,
    "model.encoder.num_input_channels": 8,
    "model.encoder.num_self_attention_layers_per_block": 1,
}


class TextCLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for part in ("encoder", "decoder"):
            for name in ("vocab_size", "max_seq_len"):
                parser.link_arguments(f"data.{name}", f"model.{part}.{name}", apply_on="instantiate")
        parser.set_defaults(DEFAULTS)


class ClassCLI(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("vocab_size", "max_seq_len"):
            parser.link_arguments(f"data.{name}", f"model.encoder.{name}", apply_on="instantiate")
        parser.link_arguments("data.num_classes", "model.decoder.num_classes", apply_on="instantiate")
        parser.set_defaults(DEFAULTS | {"data.target": "class"})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LightningCLI]:
    """Function that runs a script's command line on small files of text or labelled text."""
    monkeypatch.setattr("sys.argv", ["script.py"])

    def run(*arguments: str, script=TextCLI, model=LitLanguageModel, text: str = "words " * 60, suffix: str = "txt"):
        files = [tmp_path / f"{split}.{suffix}" for split in ("train", "val")]
        flags = [f"--data.{file.stem}_files={file}" for file in files if file.write_text(text)]
        flags += ["--data.batch_size=2", "--data.max_seq_len=24", f"--data.cache_dir={tmp_path / 'cache'}"]
        trainer = {"max_steps": 1, "accelerator": "cpu", "logger": "false", "limit_val_batches": 1}
        trainer |= {"enable_progress_bar": "false", "default_root_dir": tmp_path / "run"}
        flags += [f"--trainer.{name}={value}" for name, value in trainer.items()]
        return script(model, TextFilesDataModule, save_config_callback=None, args=["fit", *flags, *arguments])

    return run


@pytest.mark.slow
def test_script_trains_with_links_and_defaults(run, tmp_path):
    flags = ["--model.encoder.dropout=0.25", "--model.num_latents=6", "--model.num_samples=0", "--model.ema_decay=0.9"]
    cli = run(*flags)
    module, config = cli.model, cli.model.config
    assert cli.trainer.global_step == 1
    assert config.encoder == TextEncoderConfig(
        vocab_size=262, max_seq_len=24, dropout=0.25, num_input_channels=8, num_self_attention_layers_per_block=1
    )
    assert config.decoder == TextDecoderConfig(vocab_size=262, max_seq_len=24)
    assert (config.num_latents, config.num_latent_channels) == (6, 16)
    assert (module.num_samples, module.ema_decay) == (0, 0.9)
    cli.trainer.save_checkpoint(tmp_path / "m.ckpt")
    loaded = LitLanguageModel.load_from_checkpoint(tmp_path / "m.ckpt", weights_only=True)
    assert loaded.config == config
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_script_prints_its_config(run, capsys):
    with pytest.raises(SystemExit):
        run("--print_config")
    printed = yaml.safe_load(capsys.readouterr().out)["model"]
    assert printed["num_latents"] == 5
    assert printed["encoder"]["num_input_channels"] == 8
    assert printed["optimizer"] is None
    assert "vocab_size" not in printed["encoder"]  # linked to the data


@pytest.mark.slow
def test_script_selects_an_optimizer(run):
    module = run('--model.optimizer={"name": "SGD", "lr": 0.5}', "--model.lr_scheduler=null").model
    assert isinstance(module.trainer.optimizers[0], torch.optim.SGD)
    module = run("--optimizer=torch.optim.Adam", "--optimizer.lr=0.25").model
    assert isinstance(module.trainer.optimizers[0], torch.optim.Adam)


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], ModuleType]:
    """Function that imports a documented script."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    monkeypatch.syspath_prepend(tmp_path)

    def imported(number: int) -> ModuleType:
        (tmp_path / f"documented_script_{number}.py").write_text(blocks[number])
        return importlib.import_module(f"documented_script_{number}")

    return imported


@pytest.mark.slow
def test_documented_script_trains(run, imported):
    cli = run(script=imported(0).LanguageModelCLI)
    assert cli.trainer.global_step == 1
    assert cli.model.config.num_latents == 64
    assert cli.model.config.encoder.max_seq_len == 24


@pytest.mark.slow
def test_subclass_selects_the_adapters(run, imported, tmp_path):
    module_type = imported(1).LitTextClassifier
    texts = "text,label\n" + "good words,yes\nbad words,no\n" * 4
    cli = run(script=ClassCLI, model=module_type, text=texts, suffix="csv")
    assert cli.trainer.global_step == 1
    assert cli.model.num_classes == 2
    cli.trainer.save_checkpoint(tmp_path / "m.ckpt")
    loaded = module_type.load_from_checkpoint(tmp_path / "m.ckpt", weights_only=True)
    assert loaded.config == cli.model.config
