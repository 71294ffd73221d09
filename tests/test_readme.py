"""What the README shows works as it stands."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import transformers
import yaml
from PIL import Image

from perceiver_cli.main import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands(start: str) -> list[list[str]]:
    """The README's command lines that begin with ``start``, as lists of arguments."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(start)]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A small published model, in the hub's layout."""
    folder = tmp_path_factory.mktemp("published")
    config = transformers.PerceiverConfig(
        d_model=16, d_latents=16, num_latents=4, num_self_attends_per_block=1, num_self_attention_heads=2,
        num_cross_attention_heads=2, max_position_embeddings=128, v_channels=16, qk_channels=16,
    )  # fmt: skip
    transformers.PerceiverForMaskedLM(config).save_pretrained(folder)
    transformers.PerceiverTokenizer().save_pretrained(folder)
    return folder


def test_python_examples_run(tmp_path, monkeypatch, published):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    namespace: dict[str, object] = {}
    examples = [block for block in blocks("python") if not block.startswith("# my_adapters.py")]
    assert len(examples) == 5
    for example in examples:
        exec(example.replace("deepmind/language-perceiver", str(published)), namespace)
    assert namespace["model"].config.num_latents == 4
    assert type(namespace["theirs"]) is transformers.PerceiverForMaskedLM


def users_files(folder: Path) -> None:
    """The files that the README's user has."""
    (own,) = (block for block in blocks("python") if block.startswith("# my_adapters.py"))
    (folder / "my_adapters.py").write_text(own)
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("some text")
    with gzip.open(folder / "reviews.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"review": f"good {i}", "stars": i % 5}) + "\n" for i in range(40))
    (folder / "patients.csv").write_text("age,bmi,progression\n" + "\n".join(f"{i},{i % 7},{2 * i}" for i in range(30)))
    for i in range(10):
        path = folder / "photos" / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (i, 2 * i, 3 * i)).save(path)


ALONE = [command for command in commands("perceiver fit") if "--plugin=./my_adapters.py" not in command]


@pytest.mark.parametrize("arguments", ALONE, ids=" ".join)
def test_fit_commands_parse(arguments, tmp_path, monkeypatch, capsys, published):
    monkeypatch.chdir(tmp_path)
    if any(argument.startswith(("--config", "--ckpt_path")) for argument in arguments):
        pytest.skip("needs an earlier run; the tests of the command line make one")
    users_files(tmp_path)
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    for number, argument in enumerate(arguments):
        flag, _, source = argument.partition("=")
        if flag == "--model.encoder.params":
            if source.endswith(".ckpt"):
                pytest.skip("needs an earlier run; the tests of the command line make one")
            arguments = [*arguments[:number], f"{flag}={published}", *arguments[number + 1 :]]
    if "--help" in arguments:
        assert main(arguments[1:]) == 0
        assert "--model.num_latents" in capsys.readouterr().out
    else:
        assert main([*arguments[1:], "--print_config"]) == 0
        task = next(a.partition("=")[2] for a in arguments if a.startswith("--task="))
        assert yaml.safe_load(capsys.readouterr().out)["task"]["name"] == task


def test_the_adapter_in_a_file_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    users_files(tmp_path)
    (command,) = (command for command in commands("perceiver fit") if "--plugin=./my_adapters.py" in command)
    small = ["--model.num_latents=4", "--trainer.max_steps=2", "--trainer.enable_progress_bar=false"]
    assert main([*command[1:], *small, "--trainer.accelerator=cpu"]) == 0
    assert "Trained for 2 steps." in capsys.readouterr().out


def test_the_entry_point_is_that_of_a_new_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (command,) = commands("perceiver new-plugin")
    assert main(command[1:]) == 0
    made = tomllib.loads((tmp_path / command[2] / "pyproject.toml").read_text())
    shown = tomllib.loads(blocks("toml")[0])
    assert made["project"]["entry-points"] == shown["project"]["entry-points"]
