"""Arguments of classes, as flags and as rows of ``perceiver describe``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jsonargparse import ArgumentParser

from perceiver_registry.configs import config_types, model_fields

PARTS = ("encoder", "decoder")


def section_arguments() -> tuple[str, ...]:
    """Return the arguments of a task's Lightning module that have their own section, or that select the task."""
    return ("config", "optimizer", "lr_scheduler", "task", *model_fields())


def fields_of_model(config: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the fields of a named model by dotted name, with its values as defaults.

    Args:
        config: values by dotted field; ``encoder`` and ``decoder`` name the adapters.
    """
    rows = []
    types = config_types(config["encoder"], config["decoder"], config.get("architecture"))
    for section, config_type in types.items():
        prefix = section.partition(".")[2]
        for row in fields_of(config_type, skip=types["model"].unused_fields(prefix) if prefix else PARTS):
            name = f"{prefix}.{row['field']}".lstrip(".")
            rows.append(row | {"field": name, "default": repr(config[name]) if name in config else row["default"]})
    return rows


def fields_of(target: type, skip: Iterable[str] = ()) -> list[dict[str, str]]:
    """Return name, type, default and documentation of the arguments of a class and its base classes.

    Args:
        target: the class.
        skip: names of arguments to leave out.
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
