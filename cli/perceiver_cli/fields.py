"""The arguments of a class, as its flags are made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jsonargparse import ArgumentParser

from perceiver_registry.configs import config_types, model_fields

PARTS = ("encoder", "decoder")


def section_arguments() -> tuple[str, ...]:
    """Arguments of a task's Lightning module that are sections of their own on the command line, or its choice."""
    return ("config", "optimizer", "lr_scheduler", "task", *model_fields())


def fields_of_model(config: Mapping[str, Any]) -> list[dict[str, str]]:
    """The fields of a named model, by dotted name, with its values in the place of the defaults.

    Args:
        config: values by dotted field; ``encoder`` and ``decoder`` name the adapters.
    """
    rows = []
    for section, config_type in config_types(*(config[part] for part in PARTS)).items():
        prefix = section.partition(".")[2]
        for row in fields_of(config_type, skip=PARTS):
            name = f"{prefix}.{row['field']}".lstrip(".")
            rows.append(row | {"field": name, "default": repr(config[name]) if name in config else row["default"]})
    return rows


def fields_of(target: type, skip: Iterable[str] = ()) -> list[dict[str, str]]:
    """Name, type, default and documentation of each argument of a class, those of its base classes included.

    Args:
        target: the class.
        skip: names of arguments that are left out.
    """
    parser = ArgumentParser(add_help=False)
    parser.add_class_arguments(target, "x", skip={*skip}, fail_untyped=False, instantiate=False)
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


def _type_name(annotation: Any) -> str:
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return re.sub(r"\btyping\.|\bNoneType\b", lambda match: "None" if match[0] == "NoneType" else "", name)
