"""The arguments of a class, as its flags are made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from jsonargparse import ArgumentParser

OF_THE_RUN = ("config", "optimizer", "lr_scheduler")
"""Arguments of a Lightning module that are sections of their own on the command line."""


def fields_of(target: type) -> list[dict[str, str]]:
    """Name, type, default and documentation of each argument of a class, those of its base classes included."""
    parser = ArgumentParser(add_help=False)
    parser.add_class_arguments(target, "x", skip={*_present(target)}, fail_untyped=False, instantiate=False)
    return [
        {
            "field": action.dest.removeprefix("x."),
            "type": _type_name(getattr(action, "_typehint", None) or action.type),
            "default": repr(parser.get_defaults().get(action.dest)),
            "meaning": " ".join((action.help or "").split()),
        }
        for action in parser._actions
        if action.dest.startswith("x.")
    ]


def _present(target: type) -> Iterable[str]:
    import inspect

    return [name for name in OF_THE_RUN if name in inspect.signature(target).parameters]


def _type_name(annotation: Any) -> str:
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return re.sub(r"\btyping\.|\bNoneType\b", lambda match: "None" if match[0] == "NoneType" else "", name)
