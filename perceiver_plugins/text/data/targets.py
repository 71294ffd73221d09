"""Deprecated choice of a data module's class by ``target``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from perceiver_registry.errors import UserError


class TargetRedirect:
    """Deprecated mixin: creating a class with the ``target`` of another class creates the other class.

    The mixin does not define ``__init__``: of a class with ``__new__``, jsonargparse would take the arguments from it.

    Attributes:
        targets: targets of the class.
        other_targets: the class for other targets, which subclasses do not inherit.
        unused_options: options of other classes that have no effect in this class, with their defaults.
    """

    targets: ClassVar[tuple[str, ...]] = ()
    other_targets: ClassVar[type[TargetRedirect] | None] = None
    unused_options: ClassVar[Mapping[str, Any]] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        target, other = kwargs.get("target"), vars(cls).get("other_targets")
        if target is None or other is None or target in cls.targets or target not in other.targets:
            return super().__new__(cls)
        unused = {name: kwargs.pop(name) for name in other.unused_options if name in kwargs}
        for name, value in unused.items():
            if value != other.unused_options[name]:  # callers such as LightningCLI pass defaults as well
                raise UserError(f"{name}: has no effect with target={target} (leave it out)")
        warnings.warn(
            f"{cls.__name__}(target={target!r}) is deprecated: use {other.__name__}", DeprecationWarning, stacklevel=2
        )
        return other(*args, **kwargs)
