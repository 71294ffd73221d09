"""Suggestions for unknown flags, arguments and commands. Imports nothing slow."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from perceiver_registry import registry
from perceiver_registry.errors import near

SYNONYMS = {
    "checkpoint": "ckpt_path",
    "epochs": "max_epochs",
    "gpus": "devices",
    "learning_rate": "lr",
    "output_dir": "default_root_dir",
    "resume": "ckpt_path",
    "seed": "seed_everything",
    "steps": "max_steps",
    "wd": "weight_decay",
    "workers": "num_workers",
}
"""Flags of this command by the names that other tools use, without their section."""

COMMANDS = {
    "train": "fit",
    "resume": "fit",
    "eval": "validate",
    "evaluate": "validate",
    "infer": "predict",
    "inference": "predict",
    "embeddings": "embed",
    "encode": "embed",
    "features": "embed",
    "vectors": "embed",
    "help": "--help",
    "version": "--version",
    "list": "list-tasks",
    "tasks": "list-tasks",
    "models": "list-models",
    "data": "list-data",
    "adapters": "list-adapters",
    "architectures": "list-architectures",
    "formats": "list-formats",
}
"""Subcommands by the names that other tools use."""

COMMON_FLAGS = ("--allow", "--debug", "--plugin", "--plugins")
"""Flags of all subcommands."""

CHOICES = {
    "task": "task",
    "data": "data",
    "model": "model",
    "input": "model.encoder",
    "output": "model.decoder",
    "architecture": "model.architecture",
}
"""Flags that select a registered object, by its kind."""

MAX_SUGGESTIONS = 3
"""Arbitrary: fits in a line."""


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Find the dotted names that are similar to a name, the most likely first.

    Hyphens count as underscores, and the section may be omitted: ``lr`` matches ``optimizer.lr``.
    """
    known = sorted(known)
    wanted = name.replace("-", "_").lower()
    leaf = wanted.rpartition(".")[2]
    by_leaf: dict[str, list[str]] = {}
    for each in known:
        by_leaf.setdefault(_key(each.rpartition(".")[2]), []).append(each)
    exact = [each for each in known if _key(each) == _key(wanted)]
    found = exact or [*by_leaf.get(_key(SYNONYMS.get(leaf, "")), []), *by_leaf.get(_key(leaf), [])]
    if not found:
        close = difflib.get_close_matches(wanted, known, n=MAX_SUGGESTIONS, cutoff=0.5)
        leaves = difflib.get_close_matches(_key(leaf), by_leaf, n=MAX_SUGGESTIONS, cutoff=0.75)
        found = [*close, *(each for near_leaf in leaves for each in by_leaf[near_leaf])]
    return list(dict.fromkeys(sorted(found, key=lambda each: _section(each) != _section(wanted))))[:MAX_SUGGESTIONS]


def _key(name: str) -> str:
    """Normalise a name for comparison: lower case, without dots and underscores."""
    return name.lower().replace(".", "").replace("_", "")


def _section(name: str) -> str:
    return name.rpartition(".")[0]


def suggest_name(name: str, known: Iterable[str], otherwise: str = "--help lists all") -> str:
    """Compose the suggestion for an unknown dotted name, such as a key of a config file.

    Args:
        name: the unknown name.
        known: the known names.
        otherwise: text to return if no name is similar.
    """
    found = nearest_names(name, known)
    return f"did you mean {' or '.join(map(repr, found))}?" if found else otherwise


def suggest_flag(flag: str, known: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """Compose the suggestion for an unknown flag.

    Args:
        flag: the unknown flag, with dashes and without a value.
        known: the known flags, with dashes.
        listed: flags to list if none is similar. None: all known flags.
    """
    names = [each.removeprefix("--") for each in (*known, *COMMON_FLAGS)]
    found = nearest_names(flag.lstrip("-"), names)
    if found:
        return f"did you mean {' or '.join(repr(f'--{each}') for each in found)}?"
    return near(flag, [], listed=names if listed is None else listed)


def suggest_argument(word: str, flags: Iterable[str]) -> str | None:
    """Suggest the flag that a positional argument was likely meant for, or None.

    Args:
        word: an argument that is not a flag.
        flags: the known flags, with dashes.
    """
    name, equals, value = word.partition("=")
    if equals:
        found = nearest_names(name, [flag.removeprefix("--") for flag in flags])
        return f"did you mean --{found[0]}={value}?" if found else None
    for kind, flag in CHOICES.items():
        if word in registry().names(kind):
            return f"did you mean --{flag}={word}?"
    suffix = Path(word).suffix
    if suffix == ".ckpt" or word in ("best", "last"):
        return f"did you mean --ckpt_path={word}?"
    if suffix in (".yaml", ".yml"):
        return f"did you mean --config={word}?"
    return None


def suggest_command(word: str, commands: Iterable[str]) -> str:
    """Compose the suggestion for an unknown subcommand."""
    if word.startswith("-"):
        return f"a command comes first: perceiver fit {word} ..."
    if word in registry().names("task"):
        return f"did you mean perceiver fit --task={word}?"
    name = word.lower().replace("_", "-")
    meant = COMMANDS.get(name, name if name in commands else None)
    return f"did you mean {meant!r}?" if meant else near(word, commands)
