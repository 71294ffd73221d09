"""Export of models as ``torch.export`` programs (.pt2)."""

from __future__ import annotations

import zipfile
from typing import Any

import torch
from torch.export import ExportedProgram

from perceiver_plugins.serving.checking import Run
from perceiver_plugins.serving.exporting import KEY, Backend
from perceiver_plugins.serving.tracing import Traced, suppress_logging
from perceiver_registry import UserError
from perceiver_registry.errors import in_one_line

EXTRA_FILE = f"{KEY}.json"


class Programs(Backend):
    """Backend of ``torch.export`` programs from a batch to a dict of tensors, with the description as an extra file."""

    def build(self, traced: Traced) -> ExportedProgram:
        return traced.program

    def run(self, built: ExportedProgram) -> Run:
        return built.module()

    def save(self, built: ExportedProgram, target: str, description: str) -> None:
        with suppress_logging():
            torch.export.save(built, target, extra_files={EXTRA_FILE: description})

    def load(self, target: str) -> Run:
        return self.run(_load(target))

    def description(self, target: str) -> str:
        try:
            with zipfile.ZipFile(target) as archive:
                (name,) = [name for name in archive.namelist() if name.endswith(f"/{EXTRA_FILE}")]
                return archive.read(name).decode()
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{target}: not a program exported by perceiver: {in_one_line(error)}") from error


def _load(target: str) -> Any:
    with suppress_logging():
        return torch.export.load(target)
