"""What values may name: the classes that config files, checkpoints and flags can have imported.

Config files and checkpoints are data that may come from anybody. A value of theirs that names a class or a function
has it imported and called, so that what may be named is listed here; all else is refused before it is imported.
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
"""What the trainer's arguments and adapters are made of.

Not the whole packages: ``torch.hub.load`` runs a stranger's code; ``torch.load``, ``torchvision.datasets``, weights of
``torchvision.models`` and ``timm.models`` read pickles; ``torch.utils.cpp_extension`` compiles; the command-line
interfaces of torch.distributed and Lightning start processes. What these parts import from elsewhere
(``torch.nn.modules.module.torch.load``) goes by the place where it is defined.
"""

GOVERNED = {entry.partition(".")[0] for entry in FRAMEWORKS} | {"lightning", "transformers", "datasets", "numpy"}
"""Packages of which a plugin's spec opens no more than the very class that it names."""

_by_user: tuple[str, ...] = ()
_opened: set[str] = set()


def allow(packages: Sequence[str]) -> None:
    """Lets values name what these packages hold, besides what is always allowed.

    Args:
        packages: names of packages or modules. They take the place of those of an earlier call.

    Raises:
        UserError: if one of them is no such name, or jsonargparse, with which all could be allowed.
    """
    global _by_user
    for package in packages:
        if not all(part.isidentifier() for part in package.split(".")) or package.partition(".")[0] == "jsonargparse":
            raise UserError(f"--allow={package}: the name that a package is imported by is expected (my_package)")
    _by_user = tuple(packages)


def as_flag() -> str:
    """What to add to a command that goes on with this one, a space before it; nothing if nothing is allowed."""
    return f" --allow={','.join(_by_user)}" if _by_user else ""


def enforce() -> None:
    """Makes jsonargparse refuse all values that name what is not allowed."""
    # Here, not above: listings ask allow() and must not wait for jsonargparse.
    from jsonargparse import set_parsing_settings

    allowed = {*FRAMEWORKS, *_of_plugins(), *_by_user}
    # Settings last as long as the process: what an earlier command allowed is denied again.
    set_parsing_settings(
        import_path_denylist=["*", *sorted(_opened - allowed)],
        import_path_allowlist=sorted(allowed),
        instantiate_subclass_spec_in_any=False,
    )
    _opened.update(allowed)


def refusal(path: str) -> str:
    """Why a value that names ``path`` is refused, and what would be right.

    Args:
        path: the dotted path that is not allowed.
    """
    package = path.partition(".")[0]
    line = f"{path} is refused: only classes of plugins, torch, torchvision, timm and Lightning can be named"
    if package in sys.stdlib_module_names or package in GOVERNED:
        return f"{line}, and not what runs programs or reads any file"
    return f"{line}; if you trust it, --allow={package}"


def _of_plugins() -> Iterator[str]:
    for kind in NOUNS:
        for entry in registry().entries(kind):  # type: ignore[call-overload]
            for path in entry.spec.import_paths:
                package = path.replace(":", ".").partition(".")[0]
                governed = package in GOVERNED or package in sys.stdlib_module_names
                yield path.replace(":", ".") if governed else package
