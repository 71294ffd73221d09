"""Shell completion in bash and zsh."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from environments import FreshEnvironment, write_wheel

from perceiver_cli.commands import SUMMARIES

BIN = Path(sys.executable).parent

SHELLS = [
    "bash",
    pytest.param("zsh", marks=pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed here")),
]

ASK_BASH = """
{breaks}
source <(perceiver completion bash)
compopt() {{ echo "compopt $*"; }}
COMP_LINE={line} COMP_POINT={point}
COMP_WORDS=({words}) COMP_CWORD={last}
_perceiver perceiver {current} {previous}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

PLUGIN = """
from perceiver_registry import AdapterSpec, hookimpl

PERCEIVER_INTERFACE = "2.0"

@hookimpl
def perceiver_adapters():
    return [AdapterSpec("wave", "input", "waves:Wave", "waves:WaveConfig", "waves")]
"""

SLOW = """
import json, sys
from perceiver_cli.main import main
code = main(["completion", "words", "--", *sys.argv[1:]])
print(json.dumps(sorted({"torch", "pytorch_lightning", "transformers", "jsonargparse"} & set(sys.modules))))
"""


@pytest.fixture(scope="module")
def variables(environment) -> dict[str, str]:
    """Environment of the shells, with this environment's ``perceiver`` and the tests' cache."""
    return environment | {
        "PATH": f"{BIN}:{environment['PATH']}",
        "HOME": environment["PERCEIVER_CACHE"],
        "TERM": "dumb",
    }


def bash_words(line: str, breaks: str) -> list[str]:
    """Split a line into words as bash does."""
    words: list[str] = []
    for word in line.split(" "):
        words.append("")
        for character in word:
            if character in breaks:
                words += [character, ""]
            else:
                words[-1] += character
    return [word for number, word in enumerate(words) if word or number == len(words) - 1]


@pytest.fixture
def bash(variables, tmp_path):
    """Return the candidates of the bash function for a line with the cursor at its end."""

    def bash(line: str, breaks: str = "=:", **more: str) -> list[str]:
        words = bash_words(line, breaks)
        script = ASK_BASH.format(
            breaks="" if breaks == "=:" else f"COMP_WORDBREAKS=${{COMP_WORDBREAKS//[=:]/}}{breaks}",
            line=shlex.quote(line),
            point=len(line),
            words=" ".join(map(shlex.quote, words)),
            last=len(words) - 1,
            current=shlex.quote(words[-1]),
            previous=shlex.quote(words[-2]),
        )
        command = ["bash", "--norc", "--noprofile", "-c", script]
        done = subprocess.run(command, cwd=tmp_path, env=variables | more, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [each for each in done.stdout.splitlines() if each]

    return bash


@pytest.fixture
def words(perceiver):
    """Return the candidates for a line, computed in this process."""

    def words(line: str) -> list[str]:
        result = perceiver("completion", "words", "--", *line.split(" ")[1:])
        assert result.code == 0
        assert result.err == ""
        return result.out.splitlines()

    return words


@pytest.fixture
def plugin_files(tmp_path) -> str:
    """Flags that load two plugins, which register one name."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(PLUGIN)
    return "--plugin=one.py --plugin=two.py"


# bash


def test_bash_completes_commands_and_names(bash):
    assert bash("perceiver li") == [
        *("list-adapters", "list-architectures", "list-data", "list-formats", "list-models", "list-tasks")
    ]
    assert set(SUMMARIES) <= set(bash("perceiver "))
    assert bash("perceiver describe text-f") == ["text-files"]
    assert bash("perceiver completion b") == ["bash"]
    assert bash("perceiver list-adapters --format=j") == ["json"]


@pytest.mark.parametrize(("breaks", "prefix"), [("=:", ""), (":", "--task="), ("", "--task=")])
def test_bash_completes_after_word_breaks(bash, breaks, prefix):
    """COMP_WORDBREAKS is a setting of the user's bash."""
    assert bash("perceiver fit --task=ml", breaks) == [f"{prefix}mlm"]


def test_bash_adds_no_space_after_incomplete_words(bash, tmp_path):
    (tmp_path / "recipes").mkdir()
    assert bash("perceiver fit --config=rec") == ["compopt -o nospace", "recipes/"]
    assert bash("perceiver new-plugin --fol") == ["compopt -o nospace", "--folder="]


def test_bash_completes_flags_of_chosen_names(bash, words):
    assert words("perceiver fit --task=mlm --model.encoder.vo")  # which fills the cache
    found = bash("perceiver fit --task=mlm --model.encoder.vo")
    assert found == ["compopt -o nospace", "--model.encoder.vocab_size="]
    assert bash("perceiver fit --task=mlm --model.init=") == ["local", "normal"]


def test_bash_completes_ambiguous_names(bash, plugin_files):
    line = f"perceiver fit {plugin_files} --model.encoder="
    assert {"one.py:wave", "two.py:wave", "text"} <= set(bash(line))
    assert bash(f"{line}one.py:") == ["wave"]
    assert bash(f"{line}one.py:w", breaks="=") == ["one.py:wave"]


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_key_completes(shell, variables, tmp_path, words):
    """Complete a unique name, a flag and a file in a shell on a terminal."""
    assert words("perceiver fit --task=mlm --data=text-files --data.train_f")  # which fills the cache
    (tmp_path / "my texts.txt").touch()
    options = ["--norc", "--noprofile", "-i"] if shell == "bash" else ["-f", "-i"]
    steps = [
        (f"PS1='> '; source <(perceiver completion {shell})\r", "> "),
        ("perceiver fit --task=ml\t", "lm "),
        ("--data=text-f\t", "iles "),
        ("--data.train_f\t", "iles="),
        ("my\t", "texts.txt "),
        ("--task.pat\t", "ience="),
        (
            "3\x01echo \r",
            "\nperceiver fit --task=mlm --data=text-files --data.train_files=my texts.txt --task.patience=3",
        ),
    ]
    in_terminal([shell, *options], steps, tmp_path, variables)


def in_terminal(command: list[str], steps: list[tuple[str, str]], cwd: Path, variables: dict[str, str]) -> None:
    """Type into a program, and wait for the expected output after each step."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(cwd)
        os.execvpe(command[0], command, variables)
    try:
        for typed, expected in steps:
            os.write(terminal, typed.encode())
            shown = ""
            while expected not in shown:
                assert select.select([terminal], [], [], 60)[0], f"{typed!r}: {shown!r}"
                shown += os.read(terminal, 65536).decode(errors="replace")
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)


# Whatever is typed


def test_values_of_flags(words, tmp_path):
    for name in ("b.ckpt", "c.yaml", "c.yml", "d.py", "e.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.yaml").touch()
    assert words("perceiver fit --config=") == ["--config=c.yaml", "--config=c.yml", "--config=folder/"]
    assert words("perceiver fit --config=folder/") == ["--config=folder/inner.yaml"]
    assert words(f"perceiver fit --config={tmp_path}/c.ya") == [f"--config={tmp_path}/c.yaml"]
    assert words("perceiver fit --config c") == ["c.yaml", "c.yml"]
    assert words("perceiver predict --ckpt_path=") == [
        f"--ckpt_path={name}" for name in ("b.ckpt", "best", "folder/", "last")
    ]
    assert words("perceiver fit --plugin=d") == ["--plugin=d.py"]
    assert words("perceiver fit --plugins=te") == ["--plugins=text"]
    assert words("perceiver fit --task ml") == ["mlm"]
    assert words("perceiver fit --task=regression --data=d") == ["--data=diabetes"]
    assert words("perceiver fit --task=mlm --data=d") == []
    assert "--model.decoder=text" not in words("perceiver fit --task=regression --model.decoder=")
    assert words("perceiver fit --model.encoder.class_path=tab") == ["--model.encoder.class_path=table"]
    formats = ("csv", "json", "jsonl", "parquet", "table")
    assert words("perceiver predict --format=") == [f"--format={name}" for name in formats]
    assert words("perceiver fit --task=mlm --optimizer=Lam") == ["--optimizer=Lamb"]
    assert words("perceiver fit --task=mlm --lr_scheduler=Cosine") == [
        f"--lr_scheduler=Cosine{name}" for name in ("AnnealingLR", "AnnealingWarmRestarts", "WithWarmup")
    ]
    assert words("perceiver fit --task=mlm --model.encoder.freeze=") == [
        "--model.encoder.freeze=false",
        "--model.encoder.freeze=true",
    ]
    # Left to the shell, which completes names of files.
    for line in ("fit --task=mlm --data=text-files --data.train_files=", "predict photo", "fit --task=mlm --input"):
        assert words(f"perceiver {line}") == []


def test_flags_of_chosen_classes_are_completed(words, trained, tmp_path):
    tables = ["--task=regression", "--model.encoder=table"]
    assert words("perceiver fit --task=mlm --data.text_c") == []
    assert words("perceiver fit --task=mlm --data=text-files --data.text_c") == ["--data.text_column="]
    assert words(f"perceiver fit {' '.join(tables)} --model.encoder.vocab") == []
    assert words("perceiver fit --task mlm --optimizer SGD --optimizer.mom") == ["--optimizer.momentum="]
    assert words("perceiver embed --po") == ["--pool="]
    assert words("perceiver embed --pool=") == ["--pool=mean", "--pool=none"]
    assert words("perceiver predict --top") == []
    assert words(f"perceiver predict --ckpt_path={trained.best} --top") == ["--top_k="]
    (tmp_path / "c.yaml").write_text("task: mlm\nmodel: {encoder: text}\n")
    assert "--model.encoder.vocab_size=" in words("perceiver fit --config=c.yaml --model.encoder.v")
    (tmp_path / "c.yaml").write_text("task: regression\nmodel: {encoder: table}\n# another one\n")
    assert words("perceiver fit --config=c.yaml --model.encoder.v") == []


@pytest.mark.parametrize(
    "line",
    ["nothing --x", "fit --task=nothing --data.", "fit --config=missing.yaml --data.", "fit --ckpt_path=last --data."],
)
def test_completion_of_wrong_lines_is_silent(words, line):
    assert words(f"perceiver {line}") in ([], ["--data="])


def test_only_known_shells_have_scripts(perceiver):
    assert perceiver("completion").error == "completion: name of a shell expected (known: bash, zsh)"
    assert perceiver("completion", "fish").error == "completion fish: name of a shell expected (known: bash, zsh)"
    assert "source <(perceiver completion bash)" in perceiver("completion", "--help").out


def test_names_of_an_installed_plugin_are_completed(tmp_path):
    fresh = FreshEnvironment(tmp_path / "fresh")
    fresh.install(write_wheel(tmp_path, "strange-audio", {"strange_audio.py": PLUGIN}, {"audio": "strange_audio"}))
    for word, completed in (("wa", "wave"), ("strange-audio:w", "strange-audio:wave")):
        asked = fresh.perceiver("completion", "words", "--", "fit", f"--model.encoder={word}")
        assert asked.out == f"--model.encoder={completed}\n"


# Speed


def test_cached_completion_imports_nothing_slow(environment, tmp_path, words):
    assert words("perceiver fit --task=mlm --model.num_l")  # which fills the cache
    lines = ("fit --ta", "fit --task=ml", "fit --task=mlm --data=", "fit --task=mlm --model.num_l", "list-data --f")
    for line in lines:
        command = [sys.executable, "-c", SLOW, *line.split()]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        *_, slow = done.stdout.splitlines()
        if line != "fit --ta":  # no task: its flags may not be in the cache
            assert json.loads(slow) == [], line


def test_cache_is_invalidated_by_changes(words, tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    line = "perceiver fit --task=mlm --model.num_l"
    expected = words(line)
    (file,) = (tmp_path / "cache" / "completion").glob("*.json")
    cached = json.loads(file.read_text())
    cached["flags"]["--model.num_lies="] = []
    file.write_text(json.dumps(cached))
    assert words(line) == sorted([*expected, "--model.num_lies="]), "the cache is not used"

    cached["sources"][0][1] -= 1  # as if a source had been edited since
    file.write_text(json.dumps(cached))
    assert words(line) == expected
    cached["flags"]["--model.num_lies="] = []
    file.write_text(json.dumps(cached)[:-10])
    assert words(line) == expected, "a damaged cache must be ignored"

    (tmp_path / "site" / "another-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert words(line) == expected
    assert len(list((tmp_path / "cache" / "completion").glob("*.json"))) == 2, "what is installed has changed"


def test_completion_works_without_a_writable_cache(words, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "file"))
    assert words("perceiver fit --task=mlm --model.num_latents") == ["--model.num_latents="]
