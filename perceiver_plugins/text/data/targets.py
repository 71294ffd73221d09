"""The choice of a data module by ``target``, as it was when one class served all targets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from perceiver_registry.errors import UserError


class TargetRedirect:
    """Mixin: a class creates the data module of another class where ``target`` is one of that class's. Deprecated.

    It has no ``__init__``, as jsonargparse takes the arguments of a class that defines ``__new__`` from there.

    Attributes:
        targets: what can be predicted of the data.
        other_targets: the class for other targets. Classes derived from this one do not inherit it.
        unused_options: options of that class that have no effect in this one, with their defaults.
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
            if value != other.unused_options[name]:  # callers such as LightningCLI pass defaults, too
                raise UserError(f"{name}: has no effect with target={target} (leave it out)")
        warnings.warn(
            f"{cls.__name__}(target={target!r}) is deprecated: use {other.__name__}", DeprecationWarning, stacklevel=2
        )
        return other(*args, **kwargs)
