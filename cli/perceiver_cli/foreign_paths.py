"""Filter for paths in checkpoints: an untrusted file may name folders of its own run only."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from perceiver_registry import UserError

RUNS = "logs"
"""Folder of runs in the current folder, unless another one is configured."""


def without_foreign_paths(trainer: Any, checkpoint: Path) -> dict[str, Any]:
    """Return the trainer options in a checkpoint without paths outside the current folder and the run's folder.

    Each omitted path is reported on standard error; output goes to the default folder instead.

    Args:
        trainer: the options, as plain data.
        checkpoint: the checkpoint file.

    Raises:
        UserError: if the options are not a mapping.
    """
    if not isinstance(trainer, Mapping):
        raise UserError(f"{checkpoint}: its trainer configuration is damaged (use another checkpoint)")
    left_out: list[str] = []
    kept = _filtered(trainer, "trainer", _own_folders(checkpoint), left_out)
    for option in left_out:
        print(
            f"perceiver: {checkpoint}: --{option}: ignored, as it is outside the current folder "
            "(give the flag to use it)",
            file=sys.stderr,
        )
    return kept


class OwnFolders:
    """Folders that a checkpoint may name.

    Args:
        inside: folders allowed with all their content.
        exactly: folders allowed without their content.
    """

    def __init__(self, inside: Iterable[Path], exactly: Collection[Path] = ()):
        self.inside = [folder.resolve() for folder in inside]
        self.exactly = {folder.resolve() for folder in exactly}

    def __contains__(self, text: str) -> bool:
        """Return whether a string is allowed: not a path, or a path in these folders with links resolved."""
        if "://" in text or "::" in text:
            return False
        try:
            path = Path(os.path.expandvars(text)).expanduser()
            if not path.is_absolute() and ".." not in path.parts:
                return True
            path = path.resolve()
        except (OSError, RuntimeError, ValueError):  # home of an unknown user, loop of links, null byte
            return False
        return path in self.exactly or any(path.is_relative_to(folder) for folder in self.inside)


def _own_folders(checkpoint: Path) -> OwnFolders:
    """Return the current folder, and the folders of the run that contains a checkpoint."""
    path = checkpoint.resolve()
    if path.parent.name != "checkpoints":
        return OwnFolders([Path.cwd(), path.parent])
    return OwnFolders([Path.cwd(), path.parents[1]], path.parents[2:5])


def _filtered(value: Any, name: str, own: OwnFolders, left_out: list[str]) -> Any:
    """Copy plain data without foreign paths, whose names are added to ``left_out``."""
    if isinstance(value, Mapping):
        return _filtered_mapping(value, name, own, left_out)
    if isinstance(value, list | tuple):
        foreign = [child for child in value if isinstance(child, str) and not _is_own(child, own)]
        left_out.extend(f"{name}={child}" for child in foreign)
        return [_filtered(child, name, own, left_out) for child in value if child not in foreign]
    return value


def _filtered_mapping(value: Mapping[str, Any], name: str, own: OwnFolders, left_out: list[str]) -> dict[str, Any]:
    kept = {}
    for key, child in value.items():
        child_name = f"{name}.{key}".replace(".init_args", "")
        if not isinstance(child, str) or _is_own(child, own):
            kept[key] = _filtered(child, child_name, own, left_out)
            continue
        left_out.append(f"{child_name}={child}")
        if key == "save_dir":  # required by loggers
            kept[key] = RUNS
    return kept


def _is_own(text: str, own: OwnFolders) -> bool:
    # Lightning formats checkpoint names: {step:/>9} would begin with a slash.
    has_path_as_fill = any(sign in part.partition("}")[0] for part in text.split(":")[1:] for sign in "/\\~")
    return text in own and not ("{" in text and has_path_as_fill)
