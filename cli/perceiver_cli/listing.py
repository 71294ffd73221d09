"""``describe`` and the commands ``list-adapters``, ``list-architectures``, ``list-tasks`` and so on."""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from perceiver_cli.commands import SUMMARIES
from perceiver_cli.common import COMMON_HELP
from perceiver_cli.suggestions import suggest_flag
from perceiver_cli.tables import print_table
from perceiver_registry import DataSpec, Entry, ModelSpec, UnknownNameError, UserError, registry
from perceiver_registry.errors import near
from perceiver_registry.registry import NOUNS
from perceiver_registry.specs import ANY_TASK

KINDS = {
    "list-adapters": ("input", "output"),
    "list-architectures": ("architecture",),
    "list-tasks": ("task",),
    "list-data": ("data",),
    "list-models": ("model",),
    "list-formats": ("format",),
    "describe": tuple(NOUNS),
}
"""Kinds of specs that a command lists."""

LISTS = f"perceiver {', '.join(command for command in KINDS if command != 'describe')} list the names"


class Parser(argparse.ArgumentParser):
    """Argument parser that raises errors of one line."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        for flag in (word.partition("=")[0] for word in args or ()):
            if flag.startswith("-") and flag != "-" and flag not in self._option_string_actions:
                raise UserError(f"{flag}: unknown flag ({suggest_flag(flag, flags)})")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (perceiver {self.prog.split()[-1]} --help lists the options)")


def create_parser(command: str) -> Parser:
    """Create the parser of the options that all listing commands share."""
    parser = Parser(
        prog=f"perceiver {command}",
        description=SUMMARIES[command],
        epilog=COMMON_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--format", choices=("table", "json"), default="table", help="output format")
    return parser


def listing(command: str, argv: Sequence[str]) -> None:
    """Run a command that lists or describes what is installed.

    Args:
        command: one of :data:`KINDS`.
        argv: arguments after the subcommand.

    Raises:
        UserError: if a name or flag is unknown.
    """
    kinds = KINDS[command]
    parser = create_parser(command)
    if command == "describe":
        parser.add_argument(
            "name", help="name of an adapter, architecture, task, data module, model or format, or name of its class"
        )
    else:
        parser.add_argument("pattern", nargs="?", default="*", help="only names that match a pattern, such as 'text*'")
    if len(kinds) > 1:
        parser.add_argument("--kind", choices=kinds, help="only specs of this kind")
    if command in ("list-data", "list-models"):
        parser.add_argument("--task", help="only specs for this task")
    try:
        options = parser.parse_args(argv)
    except SystemExit:  # --help
        return
    if len(kinds) > 1 and options.kind:
        kinds = (options.kind,)
    if command == "describe":
        _describe(options.name, kinds, options.format)
    else:
        _list(kinds, options.pattern, getattr(options, "task", None), options.format)


def _list(kinds: Iterable[str], pattern: str, task: str | None, form: str) -> None:
    if task is not None:
        task = registry().get("task", task).name
    rows = [_facts(entry) for kind in kinds for entry in registry().entries(kind) if _matches(entry, pattern, task)]  # type: ignore[call-overload]
    if form == "json":
        print(json.dumps(rows, indent=2))
    elif rows:
        print_table({key: str(value) for key, value in row.items()} for row in rows)
    else:
        print("none installed" if pattern == "*" else f"no name matches {pattern!r}")


def _matches(entry: Entry[Any], pattern: str, task: str | None) -> bool:
    is_like = any(fnmatch.fnmatch(name, pattern) for name in (entry.name, entry.full_name))
    return is_like and (task is None or not _tasks(entry).isdisjoint((task, ANY_TASK)))


def _tasks(entry: Entry[Any]) -> set[str]:
    return set(entry.spec.tasks) if entry.kind == "data" else {entry.spec.task}


def _facts(entry: Entry[Any]) -> dict[str, Any]:
    """Return the columns of an entry in listings."""
    facts = {"name": entry.name, "kind": entry.kind, "summary": entry.spec.summary}
    if entry.kind in ("data", "model"):
        facts["tasks"] = ", ".join(sorted(_tasks(entry)))
    if entry.kind == "model":
        facts["parameters"] = entry.spec.num_parameters
        facts["weights"] = entry.spec.params or ""
    if entry.kind == "format":
        facts["form"] = ", ".join(entry.spec.suffixes) or "folder"
        facts["ways"] = ", ".join(way for way in ("reads", "writes") if getattr(entry.spec, way))
    return facts | {"distribution": entry.plugin.distribution, "version": entry.plugin.version}


def _describe(name: str, kinds: Iterable[str], form: str) -> None:
    found = [entry for kind in kinds for entry in registry().matches(kind, name)]
    if not found:
        names = {known for kind in kinds for known in registry().names(kind)}
        hint = f"{near(name, names, LISTS)}{registry().not_loaded(name)}"
        raise UnknownNameError(f"describe: unknown name {name!r} ({hint})")
    descriptions = [_facts(entry) | {"details": _details(entry), "fields": _fields(entry)} for entry in found]
    if form == "json":
        print(json.dumps(descriptions, indent=2, default=str))
        return
    for number, description in enumerate(descriptions):
        if number:
            print()
        _print_description(description)


def _print_description(description: Mapping[str, Any]) -> None:
    print(f"{NOUNS[description['kind']]} {description['name']}: {description['summary']}")
    print(f"  from {description['distribution']} {description['version']}")
    for key, value in description["details"].items():
        if isinstance(value, Mapping):
            print(f"  {key}:", *(f"{name}: {each}" for name, each in value.items()), sep="\n    ")
        else:
            print(f"  {key}: {value}")
    for tasks, fields in itertools.groupby(description["fields"], key=lambda field: field.get("tasks")):
        print(f"\nonly with --task={', '.join(tasks)}:" if tasks else "")
        print_table({key: value for key, value in field.items() if key != "tasks"} for field in fields)


def _details(entry: Entry[Any]) -> Mapping[str, Any]:
    """Return the fields of a spec besides its name and summary."""
    shown = (
        "adapter",
        "model",
        "config",
        "module",
        "modules",
        "data",
        "yields",
        "reads",
        "tasks",
        "defaults",
        "task_defaults",
        "links",
        "reader",
        "size_rule",
        "predictor",
        "architecture",
        "format",
        "num_parameters",
        "task",
    )
    details = {key: getattr(entry.spec, key) for key in shown if getattr(entry.spec, key, None)}
    if entry.kind == "model":
        del details["config"]  # shown as fields
        details |= _inputs_and_outputs(entry)
        details["weights"] = entry.spec.params or "not published"
    return {key: _plain(value) for key, value in details.items()}


def _inputs_and_outputs(entry: Entry[ModelSpec]) -> Iterator[tuple[str, str]]:
    """Yield descriptions of a named model's inputs and outputs."""
    for title, kind, part in (("inputs", "input", "encoder"), ("outputs", "output", "decoder")):
        adapter = registry().find(kind, entry.spec.config[part], entry.plugin)
        if adapter is not None:
            reads = f" ({', '.join(adapter.spec.reads)})" if adapter.spec.reads else ""
            yield title, f"{adapter.name}: {adapter.spec.summary}{reads}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return ", ".join(value) if isinstance(value, tuple) else value


def _fields(entry: Entry[Any]) -> list[dict[str, Any]]:
    """Return the options of an entry's class, with types, defaults and documentation."""
    from perceiver_cli.fields import PARTS, fields_of, fields_of_model, section_arguments

    if entry.kind in ("format", "migration"):
        return []
    if entry.kind == "model":
        return fields_of_model(entry.spec.config)
    if entry.kind == "task":
        return fields_of(entry.resolve("module"), skip=section_arguments())
    if entry.kind == "data":
        return _fields_of_data(entry)
    return fields_of(entry.resolve("config"), skip=PARTS if entry.kind == "architecture" else ())


def _fields_of_data(entry: Entry[DataSpec]) -> list[dict[str, Any]]:
    """Return the fields of a data module: those of all its tasks, then those of some, with "tasks"."""
    from perceiver_cli.fields import fields_of

    modules: dict[type, list[str]] = {}
    for task in entry.spec.tasks:
        module = entry.resolve("modules", task) if task in entry.spec.modules else entry.resolve("module")
        modules.setdefault(module, []).append(task)
    tasks_of: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for module, tasks in modules.items():
        for field in fields_of(module):
            tasks_of.setdefault(tuple(field.items()), []).extend(tasks)
    count = len(entry.spec.tasks)
    shared = [dict(field) for field, tasks in tasks_of.items() if len(tasks) == count]
    return shared + [{**dict(field), "tasks": tasks} for field, tasks in tasks_of.items() if len(tasks) < count]
