"""Allowlist of import paths in config files, checkpoints and flags.

Config files and checkpoints may come from untrusted sources. A value that names a class or a function has it imported
and called, so only the import paths listed here are accepted; others are refused before they are imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from perceiver_registry import UserError, registry
from perceiver_registry.registry import NOUNS

FRAMEWORKS = (
    "torch.bfloat16",
    "torch.device",
    "torch.distributed.algorithms",
    "torch.distributed.fsdp",
    "torch.dtype",
    "torch.float16",
    "torch.float32",
    "torch.float64",
    "torch.nn",
    "torch.optim",
    "torch.profiler",
    "torchvision.ops",
    "torchvision.transforms",
    "timm.layers",
    "timm.loss",
    "timm.optim",
    "timm.scheduler",
    "pytorch_lightning.accelerators",
    "pytorch_lightning.callbacks",
    "pytorch_lightning.loggers",
    "pytorch_lightning.plugins",
    "pytorch_lightning.profilers",
    "pytorch_lightning.strategies",
    "lightning_fabric.accelerators",
    "lightning_fabric.loggers",
    "lightning_fabric.plugins",
    "lightning_fabric.strategies",
)
"""Modules and objects for the trainer's arguments and for adapters.

Whole packages are not allowed: ``torch.hub.load`` runs untrusted code; ``torch.load``, ``torchvision.datasets`` and the
weights of ``torchvision.models`` and ``timm.models`` read pickles; ``torch.utils.cpp_extension`` compiles; the
command-line interfaces of torch.distributed and Lightning start processes. Objects that these modules import
(``torch.nn.modules.module.torch.load``) are judged by the module that defines them.
"""

GOVERNED = {entry.partition(".")[0] for entry in FRAMEWORKS} | {"lightning", "transformers", "datasets", "numpy"}
"""Packages of which a plugin's spec allows the named class only, not the whole package."""

_by_user: tuple[str, ...] = ()
_opened: set[str] = set()


def allow(packages: Sequence[str]) -> None:
    """Allow import paths in further packages, besides those that are always allowed.

    Args:
        packages: names of packages or modules. They replace those of an earlier call.

    Raises:
        UserError: if a name is not an import path, or is jsonargparse, whose settings could allow everything.
    """
    global _by_user
    for package in packages:
        if not all(part.isidentifier() for part in package.split(".")) or package.partition(".")[0] == "jsonargparse":
            raise UserError(f"--allow={package}: not the import name of a package (example: my_package)")
    _by_user = tuple(packages)


def as_flag() -> str:
    """Return the ``--allow`` flag of this command after a space; an empty string without one."""
    return f" --allow={','.join(_by_user)}" if _by_user else ""


def enforce() -> None:
    """Make jsonargparse refuse values with other import paths."""
    # Imported here: listings call allow() and must not wait for jsonargparse.
    from jsonargparse import set_parsing_settings

    allowed = {*FRAMEWORKS, *_of_plugins(), *_by_user}
    # Settings last for the process: deny again what an earlier command allowed.
    set_parsing_settings(
        import_path_denylist=["*", *sorted(_opened - allowed)],
        import_path_allowlist=sorted(allowed),
        instantiate_subclass_spec_in_any=False,
    )
    _opened.update(allowed)


def refusal(path: str) -> str:
    """Compose the error message about an import path that is not allowed."""
    package = path.partition(".")[0]
    line = f"{path} is refused: only classes of plugins, torch, torchvision, timm and Lightning can be named"
    if package in sys.stdlib_module_names or package in GOVERNED:
        return f"{line}, except those that run programs or read arbitrary files"
    return f"{line} (--allow={package} if you trust it)"


def _of_plugins() -> Iterator[str]:
    for kind in NOUNS:
        for entry in registry().entries(kind):  # type: ignore[call-overload]
            for path in entry.spec.import_paths:
                package = path.replace(":", ".").partition(".")[0]
                governed = package in GOVERNED or package in sys.stdlib_module_names
                yield path.replace(":", ".") if governed else package
