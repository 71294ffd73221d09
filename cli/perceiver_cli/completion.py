"""Shell completion: what may follow on a command line, and the scripts that have bash and zsh ask.

shtab writes all flags into the script, but here names choose the flags, plugins' names as well. argcomplete would build
the parser, and for that import torch, at each press of the key. So the shell asks ``perceiver completion words``: names
come from the registry at once, and the flags that they choose from a cache, which the first question fills.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from perceiver_cli.commands import COMMANDS, RUN, SUMMARIES
from perceiver_cli.common import COMMON_HELP, CommonFlags, read_common_flags
from perceiver_registry import UserError, registry
from perceiver_registry.import_paths import resolve_import_path
from perceiver_registry.registry import NOUNS

Flags = dict[str, list[str]]
"""Flags, each with the values that it may have, as far as they are known. Those that take one end in "="."""

BASH = """\
_perceiver() {
    local line=${COMP_LINE:0:COMP_POINT} breaks=${COMP_WORDBREAKS//[^=:]/} words word cut=""
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]}
    # bash takes "--task" and "mlm" for words of their own, and replaces the last one alone.
    [[ -n $breaks ]] && cut=${word%"${word##*[$breaks]}"}
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("${word#"$cut"}")
    done < <("$1" completion words -- "${words[@]:1}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _perceiver perceiver
"""

ZSH = """\
_perceiver() {
    local -a found
    found=("${(@f)$("${words[1]}" completion words -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    if [[ -n $found ]]; then
        compadd -S '' -- ${(M)found:#*[=/]}
        compadd -- ${found:#*[=/]}
    else
        compset -P '*='
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u; }
compdef _perceiver perceiver
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH}

USAGE = """\
usage: perceiver completion bash|zsh

prints a script that completes commands, names, flags and values; in ~/.bashrc or ~/.zshrc:
  source <(perceiver completion bash)
"""

FILES = {"config": (".yaml", ".yml"), "ckpt_path": (".ckpt",), "plugin": (".py",)}
"""Flags that take files, and what the files' names end in. For other flags the shell completes files of any name."""


def completion(command: str, argv: Sequence[str]) -> None:
    """Prints the script of a shell or, asked by it, what may follow.

    Args:
        command: "completion".
        argv: the shell; or "words", "--", and the words after ``perceiver`` up to the cursor, the last of which may be
            empty.

    Raises:
        UserError: if there is no script for that shell.
    """
    if list(argv[:2]) == ["words", "--"]:
        # Whatever is wrong with a line that is being typed: the shell completes nothing, and says nothing.
        with contextlib.suppress(Exception, SystemExit), contextlib.redirect_stderr(io.StringIO()):
            print("".join(f"{word}\n" for word in complete(argv[2:])), end="")
    elif len(argv) == 1 and argv[0] in SCRIPTS:
        print(SCRIPTS[argv[0]], end="")
    elif {"-h", "--help"} & set(argv):
        print(f"{USAGE}\n{COMMON_HELP}")
    else:
        raise UserError(f"{' '.join(['completion', *argv])}: which shell? known: {', '.join(SCRIPTS)}")


def complete(words: Sequence[str]) -> list[str]:
    """What the last word may become.

    Args:
        words: those after ``perceiver`` up to the cursor; the last one is incomplete, and may be empty.
    """
    *before, word = words
    if not before:
        return _beginning_with(word, [*SUMMARIES, "--help", "--version"])
    common, _ = read_common_flags(before)
    with common.selecting():
        return _beginning_with(word, _candidates(before, word, common))


def _beginning_with(word: str, candidates: Iterable[str]) -> list[str]:
    return sorted({candidate for candidate in candidates if candidate.startswith(word)})


def _candidates(before: Sequence[str], word: str, common: CommonFlags) -> Iterable[str]:
    command, *given = before
    if word.startswith("-"):
        return _flag_candidates(command, given, word, common)
    if given and given[-1].startswith("-") and "=" not in given[-1]:
        return _values(command, given[:-1], common, given[-1], word)
    if command == "describe":
        return [name for kind in NOUNS for name in registry().names(kind)]
    if command == "completion":
        return SCRIPTS
    return [] if word or command == "predict" else _flags(command, given, common)


def _flag_candidates(command: str, given: Sequence[str], word: str, common: CommonFlags) -> Iterable[str]:
    flag, equals, value = word.partition("=")
    if not equals:
        return _flags(command, given, common)
    return [f"{flag}={each}" for each in _values(command, given, common, flag, value)]


# Values


def _values(command: str, given: Sequence[str], common: CommonFlags, flag: str, value: str) -> Iterable[str]:
    """Values of a flag of which ``value`` is the beginning."""
    name = flag.removeprefix("--").removesuffix("+")
    if name in FILES:
        named = ("best", "last") if name == "ckpt_path" else ()
        return [*named, *_files(value, FILES[name])]
    if name == "plugins":
        return ["none", *dict.fromkeys(loaded.plugin.name for loaded in registry().plugins)]
    if _runs(command):
        names = _registered(name, given, value)
        if names is not None:
            return names
    return _flags(command, given, common).get(f"{flag}=", ())


def _runs(command: str) -> bool:
    return any(commands[command].place == RUN for commands in COMMANDS.values() if command in commands)


def _registered(section: str, given: Sequence[str], value: str) -> list[str] | None:
    """The names that a section is chosen by, those alone that go with the task; None if none are registered for it."""
    from perceiver_cli.values import KINDS

    section = re.sub(r"\.(class_path|name|adapter)$", "", section)
    if section not in KINDS:
        return None
    kind: Any = KINDS[section]
    named = [word.removeprefix("--task=") for word in given if word.startswith("--task=")]
    task = registry().find("task", named[-1]) if named else None
    return [
        entry.full_name if ":" in value else registry().short_name(entry)
        for entry in registry().entries(kind)
        if task is None or _goes_with(entry.spec, task.spec.name)
    ]


def _goes_with(spec: Any, task: str) -> bool:
    """Whether what a spec stands for goes with a task, as far as the spec says."""
    if spec.kind == "data":
        return bool(spec.serves(task))
    if spec.kind == "model":
        return bool(spec.task == task)
    return spec.kind != "output" or not spec.tasks or task in spec.tasks


def _files(beginning: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Folders, and files of these suffixes, whose paths begin so."""
    folder, _, _ = beginning.rpartition("/")
    prefix = beginning[: len(folder) + 1] if "/" in beginning else ""
    for path in Path(prefix or ".").expanduser().iterdir():
        if path.is_dir():
            yield f"{prefix}{path.name}/"
        elif path.suffix in suffixes:
            yield f"{prefix}{path.name}"


# Flags


def _flags(command: str, given: Sequence[str], common: CommonFlags) -> Flags:
    if not _runs(command):
        return _flags_in(_help_of(command))
    return _flags_in(COMMON_HELP) | {"--help": [], "--print_config": []} | _chosen_flags(command, given, common)


def _help_of(command: str) -> str:
    place = next(commands[command].place for commands in COMMANDS.values() if command in commands)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        resolve_import_path(place)(command, ["--help"])
    return shown.getvalue()


def _flags_in(help_text: str) -> Flags:
    """The flags that a help text lists, with the choices that it shows in braces."""
    listed = re.findall(r"^\s+(?:-\w, )?(--[\w-]+)(?:[ =](?:\{(\S+)\}|([A-Z]\S*)))?", help_text, re.MULTILINE)
    return {
        f"{flag}{'=' if choices or metavar else ''}": choices.split(",") if choices else []
        for flag, choices, metavar in listed
    }


def _chosen_flags(command: str, given: Sequence[str], common: CommonFlags) -> Flags:
    """The flags that the names in ``given`` choose: from the cache or, where it does not have them, the real parser."""
    chosen = list(_choosing(given))
    read = [path for word in chosen if (path := Path(word.partition("=")[2]).expanduser()).is_file()]
    file = _cache_file([command, chosen, common.allowed, _installed(), [_state(path) for path in read]])
    flags = _read_cache(file)
    if flags is None:
        try:
            flags = _parsers_flags(command, chosen, common)
        except UserError:  # names that are not complete, or do not go together
            return _chosen_flags(command, [], common) if chosen else {}
        with contextlib.suppress(OSError):
            _write_cache(file, flags)
    return flags


def _choosing(given: Sequence[str]) -> Iterator[str]:
    """The words that decide which flags there are, each as ``--flag=value``."""
    from perceiver_cli.command_line import read_command_line
    from perceiver_cli.layers import PARAMS
    from perceiver_cli.sources import find_source
    from perceiver_cli.values import NAME_KEYS

    for flag in read_command_line(given).flags:
        value = flag.value or ""
        if flag.name == "ckpt_path":
            source = find_source(value)  # "last" and "best" name another file after each run
            if Path(source).exists():  # other sources would need a request to the hub
                yield f"--ckpt_path={source}"
        elif flag.name in (*NAME_KEYS, "config") or (flag.name in PARAMS and Path(value).expanduser().is_file()):
            yield f"--{flag.name}={value}"


def _parsers_flags(command: str, chosen: Sequence[str], common: CommonFlags) -> Flags:
    from perceiver_cli.allowed import allow
    from perceiver_cli.flags import build_parser, choices_of
    from perceiver_cli.predict_config import read_prediction
    from perceiver_cli.run_config import read_run

    allow(common.allowed)
    argv = [*chosen, "--help"]  # for which nothing need be complete
    run = read_prediction(argv) if command == "predict" else read_run(command, argv)
    return {f"{flag}=": values for flag, values in choices_of(build_parser(command, run), run).items()}


# Cache


def _cache_file(key: object) -> Path:
    folder = Path(os.environ.get("PERCEIVER_CACHE") or "~/.cache/perceiver").expanduser() / "completion"
    return folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"


def _installed() -> list[str]:
    """All installed distributions with their versions: the names of the folders with their metadata."""
    found = [sys.version, *(loaded.plugin.distribution for loaded in registry().plugins)]
    for folder in sys.path:
        with contextlib.suppress(OSError):
            found += sorted(name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info")))
    return found


def _state(path: str | Path) -> list[Any]:
    status = os.stat(path)
    return [str(path), status.st_mtime_ns, status.st_size]


def _write_cache(file: Path, flags: Flags) -> None:
    # What is installed to be edited changes without another version.
    packages = {
        path.replace(":", ".").partition(".")[0]
        for kind in NOUNS
        for entry in registry().entries(kind)  # type: ignore[call-overload]
        for path in entry.spec.import_paths
    }
    sources = [
        path
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in {*packages, "perceiver_cli", "perceiver_core", "perceiver_registry"}
        and (path := getattr(module, "__file__", None))
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({"flags": flags, "sources": [_state(path) for path in sources]}), encoding="utf-8")
    partial.replace(file)


def _read_cache(file: Path) -> Flags | None:
    """The flags in a file of the cache; None if there are none, or if the code that they come from has changed."""
    try:
        cached: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if all(_state(source[0]) == source for source in cached["sources"]):
            return dict(cached["flags"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None
