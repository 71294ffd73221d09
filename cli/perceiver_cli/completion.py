"""Shell completion: candidates for the last word of a command line, and scripts for bash and zsh.

shtab writes all flags into the script, but here the flags depend on the chosen names and on the installed plugins.
argcomplete would build the parser, and import torch for it, at each press of the Tab key. Instead the scripts call
``perceiver completion words``: names come from the registry, and the flags that they add from a cache.
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

from perceiver_cli.commands import COMMANDS, INPUT_COMMANDS, RUN, SUMMARIES
from perceiver_cli.common import COMMON_HELP, CommonFlags, read_common_flags
from perceiver_registry import UserError, registry
from perceiver_registry.import_paths import resolve_import_path
from perceiver_registry.registry import NOUNS

Flags = dict[str, list[str]]
"""Flags with their known values. A flag that takes a value ends in "="."""

BASH = """\
_perceiver() {
    local line=${COMP_LINE:0:COMP_POINT} breaks=${COMP_WORDBREAKS//[^=:]/} words word cut=""
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]}
    # bash splits "--task=mlm" at "=" and replaces the last part only.
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

Print a script that completes commands, names, flags and values. In ~/.bashrc or ~/.zshrc:
  source <(perceiver completion bash)
"""

FILES = {"config": (".yaml", ".yml"), "ckpt_path": (".ckpt",), "plugin": (".py",)}
"""Flags that take files, with the suffixes to complete. For other flags the shell completes any file."""


def completion(command: str, argv: Sequence[str]) -> None:
    """Print the script of a shell or, when called by such a script, the candidates for the last word.

    Args:
        command: "completion".
        argv: name of the shell; or "words", "--", and the words after ``perceiver`` up to the cursor.

    Raises:
        UserError: if the shell is unknown.
    """
    if list(argv[:2]) == ["words", "--"]:
        # An incomplete line may be wrong in any way: complete nothing, and print no error.
        with contextlib.suppress(Exception, SystemExit), contextlib.redirect_stderr(io.StringIO()):
            print("".join(f"{word}\n" for word in complete(argv[2:])), end="")
    elif len(argv) == 1 and argv[0] in SCRIPTS:
        print(SCRIPTS[argv[0]], end="")
    elif {"-h", "--help"} & set(argv):
        print(f"{USAGE}\n{COMMON_HELP}")
    else:
        raise UserError(f"{' '.join(['completion', *argv])}: name of a shell expected (known: {', '.join(SCRIPTS)})")


def complete(words: Sequence[str]) -> list[str]:
    """Return the candidates for the last word.

    Args:
        words: words after ``perceiver`` up to the cursor; the last one is incomplete, and may be empty.
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
    return [] if word or command in INPUT_COMMANDS else _flags(command, given, common)


def _flag_candidates(command: str, given: Sequence[str], word: str, common: CommonFlags) -> Iterable[str]:
    flag, equals, value = word.partition("=")
    if not equals:
        return _flags(command, given, common)
    return [f"{flag}={each}" for each in _values(command, given, common, flag, value)]


# Values


def _values(command: str, given: Sequence[str], common: CommonFlags, flag: str, value: str) -> Iterable[str]:
    """Return the known values of a flag that start with ``value``, and possibly others."""
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
    return any(commands[command].import_path == RUN for commands in COMMANDS.values() if command in commands)


def _registered(section: str, given: Sequence[str], value: str) -> list[str] | None:
    """Return the registered names of a section that fit the task; None if the section has no registered names."""
    from perceiver_cli.values import ARCHITECTURE, KINDS

    section = re.sub(r"\.(class_path|name|adapter)$", "", section)
    kinds: Any = {**KINDS, ARCHITECTURE: "architecture"}
    if section not in kinds:
        return None
    kind = kinds[section]
    named = [word.removeprefix("--task=") for word in given if word.startswith("--task=")]
    task = registry().find("task", named[-1]) if named else None
    return [
        entry.full_name if ":" in value else registry().short_name(entry)
        for entry in registry().entries(kind)
        if task is None or _fits_task(entry.spec, task.spec.name)
    ]


def _fits_task(spec: Any, task: str) -> bool:
    """Return whether the spec of an adapter, data module or model declares support for a task."""
    if spec.kind == "data":
        return bool(spec.serves(task))
    if spec.kind == "model":
        return bool(spec.task == task)
    return spec.kind != "output" or not spec.tasks or task in spec.tasks


def _files(beginning: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Yield folders, and files of these suffixes, in the folder that a path starts with."""
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
    import_path = next(commands[command].import_path for commands in COMMANDS.values() if command in commands)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        resolve_import_path(import_path)(command, ["--help"])
    return shown.getvalue()


def _flags_in(help_text: str) -> Flags:
    """Return the flags in a help text, with the choices that it shows in braces."""
    listed = re.findall(r"^\s+(?:-\w, )?(--[\w-]+)(?:[ =](?:\{(\S+)\}|([A-Z]\S*)))?", help_text, re.MULTILINE)
    return {
        f"{flag}{'=' if choices or metavar else ''}": choices.split(",") if choices else []
        for flag, choices, metavar in listed
    }


def _chosen_flags(command: str, given: Sequence[str], common: CommonFlags) -> Flags:
    """Return the flags that the names in ``given`` add, from the cache or else from the real parser."""
    chosen = list(_choosing(given))
    read = [path for word in chosen if (path := Path(word.partition("=")[2]).expanduser()).is_file()]
    file = _cache_file([command, chosen, common.allowed, _installed(), [_state(path) for path in read]])
    flags = _read_cache(file)
    if flags is None:
        try:
            flags = _parsers_flags(command, chosen, common)
        except UserError:  # incomplete names, or names that do not fit together
            return _chosen_flags(command, [], common) if chosen else {}
        with contextlib.suppress(OSError):
            _write_cache(file, flags)
    return flags


def _choosing(given: Sequence[str]) -> Iterator[str]:
    """Yield the flags that decide which other flags exist, each as ``--flag=value``."""
    from perceiver_cli.command_line import read_command_line
    from perceiver_cli.layers import PARAMS
    from perceiver_cli.sources import find_source
    from perceiver_cli.values import ARCHITECTURE, NAME_KEYS

    for flag in read_command_line(given).flags:
        value = flag.value or ""
        if flag.name == "ckpt_path":
            source = find_source(value)  # "last" and "best" name another file after each run
            if Path(source).exists():  # other sources would need a request to the hub
                yield f"--ckpt_path={source}"
        elif flag.name in (*NAME_KEYS, ARCHITECTURE, "config") or (
            flag.name in PARAMS and Path(value).expanduser().is_file()
        ):
            yield f"--{flag.name}={value}"


def _parsers_flags(command: str, chosen: Sequence[str], common: CommonFlags) -> Flags:
    from perceiver_cli.allowed import allow
    from perceiver_cli.flags import build_parser, choices_of
    from perceiver_cli.predict_config import read_prediction
    from perceiver_cli.run_config import read_run

    allow(common.allowed)
    argv = [*chosen, "--help"]  # does not require a complete command line
    run = read_prediction(command, argv) if command in INPUT_COMMANDS else read_run(command, argv)
    return {f"{flag}=": values for flag, values in choices_of(build_parser(command, run), run).items()}


# Cache


def _cache_file(key: object) -> Path:
    folder = Path(os.environ.get("PERCEIVER_CACHE") or "~/.cache/perceiver").expanduser() / "completion"
    return folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"


def _installed() -> list[str]:
    """Return the names of the metadata folders of all installed distributions, which contain their versions."""
    found = [sys.version, *(loaded.plugin.distribution for loaded in registry().plugins)]
    for folder in sys.path:
        with contextlib.suppress(OSError):
            found += sorted(name for name in os.listdir(folder or ".") if name.endswith((".dist-info", ".egg-info")))
    return found


def _state(path: str | Path) -> list[Any]:
    status = os.stat(path)
    return [str(path), status.st_mtime_ns, status.st_size]


def _write_cache(file: Path, flags: Flags) -> None:
    # Editable installs change without a new version.
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
    """Read the flags in a cache file; None if it is missing or damaged, or if its source code has changed."""
    try:
        cached: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if all(_state(source[0]) == source for source in cached["sources"]):
            return dict(cached["flags"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None
