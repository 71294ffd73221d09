"""Cached folders of prepared data: created atomically, verified on use, created again if damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from pytorch_lightning.utilities import rank_zero_warn

from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.remote import refuse_remote

MANIFEST = "manifest.json"
"""File with the size and SHA-256 checksum of each other file, and notes on the preparation."""


def cache_root(cache_dir: str | None) -> Path:
    """Return the folder for prepared data: ``cache_dir``, ``$PERCEIVER_CACHE`` or ``~/.cache/perceiver``.

    Raises:
        UserError: if it is a remote path.
    """
    refuse_remote("cache_dir", cache_dir or os.environ.get("PERCEIVER_CACHE"))
    return Path(cache_dir or os.environ.get("PERCEIVER_CACHE") or "~/.cache/perceiver").expanduser().absolute()


def make_folder(folder: Path, make: Callable[[Path, Path], Sequence[str]]) -> None:
    """Create a folder of prepared data unless it exists and is intact, and report its notes.

    The data is written to a temporary folder, which is renamed at the end. Other processes wait for a lock. Temporary
    folders of killed processes are removed.

    Args:
        folder: The folder.
        make: Function of a folder for temporary files and the folder to fill. Returns notes for users of the data, one
            line each.

    Raises:
        DataError: If the cache cannot be written.
    """
    if reuse_folder(folder):
        return
    with _locked(folder):
        if reuse_folder(folder):
            return
        if folder.exists():
            rank_zero_warn(f"{folder}: the prepared data is damaged ({find_damage(folder)}) and is prepared again")
        # With the lock held, these are of processes that were killed.
        for stale in folder.parent.glob(f".{folder.name}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        work = folder.with_name(f".{folder.name}.tmp-{uuid.uuid4().hex[:8]}")
        result = work / "result"
        try:
            result.mkdir(parents=True)
            notes = make(work, result)
            _write_manifest(result, notes)
            if folder.exists():
                os.replace(folder, work / "damaged")
            os.replace(result, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    _report(notes)


def reuse_folder(folder: Path) -> bool:
    """Return whether a prepared folder exists and is intact. If so, report its notes."""
    if not folder.exists() or find_damage(folder):
        return False
    _report(_read_manifest(folder)["notes"])
    return True


def find_damage(folder: Path) -> str:
    """Describe the first difference between a prepared folder and its manifest; "" without any."""
    try:
        files: dict[str, list[Any]] = _read_manifest(folder)["files"]
        found = _files_in(folder)
        if different := set(files).symmetric_difference(found):
            name = min(different)
            return f"{name} is missing" if name in files else f"{name} is not part of it"
        for name, (size, checksum) in files.items():
            if (actual := found[name].stat().st_size) != size:
                return f"{name} has {actual:,} bytes instead of {size:,}"
            if file_checksum(found[name]) != checksum:
                return f"{name} has another checksum"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is missing or unreadable"
    return ""


def file_checksum(path: Path) -> str:
    """Compute the SHA-256 checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files_in(folder: Path) -> dict[str, Path]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    found.pop(MANIFEST, None)
    return found


def _write_manifest(folder: Path, notes: Sequence[str]) -> None:
    files = {name: [path.stat().st_size, file_checksum(path)] for name, path in sorted(_files_in(folder).items())}
    content = {"files": files, "notes": list(notes)}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def _report(notes: Sequence[str]) -> None:
    for note in notes:
        rank_zero_warn(note)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DataError(
            f"{folder.parent}: the cache cannot be written ({error.strerror}); set cache_dir to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
