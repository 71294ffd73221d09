"""Checks of a plugin and its specs. The docstring of a check is its description."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from perceiver_core import Model
from perceiver_plugins.sdk.tasks.batches import problem_of_loss
from perceiver_registry.configs import create_config
from perceiver_registry.errors import UserError, near
from perceiver_registry.formats import Format
from perceiver_registry.hooks import PROJECT
from perceiver_registry.import_paths import resolve_import_path
from perceiver_registry.plugins import DECLARATION, INTERFACE_VERSION, SPEC_TYPES
from perceiver_registry.registry import NOUNS, registry
from perceiver_registry.specs import (
    ANY_TASK,
    DEFAULT_ARCHITECTURE,
    AdapterSpec,
    ArchitectureSpec,
    DataSpec,
    FormatSpec,
    ModelSpec,
    TaskSpec,
)
from perceiver_registry.testing.checks import Contract, expect, expect_none
from perceiver_registry.testing.spec_contract import problems_of_flags, problems_of_import_paths, problems_of_summary
from perceiver_registry.testing.subjects import BATCH_SIZE, PARTS, ArchitectureSubject, PluginSubject

CONTRACT = Contract()

HOOK_MARKER = f"{PROJECT}_impl"
"""Attribute that ``@hookimpl`` sets on functions."""

HEAVY = ("torch", "numpy", "pytorch_lightning", "transformers", "datasets", "timm", "torchvision")
"""Packages that are slow to import."""

PRINT_IMPORTED_MODULES = """
import importlib, sys
for name in sys.argv[1].split(","):
    module = importlib.import_module(name)
for name in sys.argv[2:]:
    list(getattr(module, name)())
print("imported:", *sys.modules)
"""
"""Script that imports modules, calls functions of the last one, and prints the names of all imported modules."""

LOADS = ("loads",)
"""Prerequisite of all other checks."""

FLAGS = ("data", "model", "task", "optimizer", "lr_scheduler", "trainer", "checkpoint", "seed_everything")
"""Sections of the command's flags, which `defaults` may set."""


@CONTRACT.check()
def loads(subject: PluginSubject) -> None:
    """The plugin's module can be imported, its hooks are marked with @hookimpl and return specs of the right type with
    unique names, and the interface version that it declares is compatible."""
    if subject.loaded.error is not None:
        raise subject.loaded.error
    for kind in NOUNS:
        counts = Counter(spec.name for spec in subject.specs(kind))
        expect_none(f"{NOUNS[kind]} {name!r} is registered twice" for name, times in counts.items() if times > 1)


@CONTRACT.check(needs=LOADS)
def declares_interface(subject: PluginSubject) -> None:
    """The plugin's module declares its interface version, `PERCEIVER_INTERFACE = "2.0"`."""
    declared = subject.loaded.interface
    expect(declared is not None, f"{subject.module_name} declares none (add {DECLARATION} = {INTERFACE_VERSION!r})")


@CONTRACT.check(needs=LOADS)
def hooks_are_marked(subject: PluginSubject) -> None:
    """Each function with the name of a hook is marked with @hookimpl; otherwise it is never called."""
    expect_none(
        f"{name} is not marked with @hookimpl"
        for name in _hooks(subject)
        if not hasattr(_hooks(subject)[name], HOOK_MARKER)
    )


def _hooks(subject: PluginSubject) -> dict[str, Any]:
    return {name: value for name, value in vars(subject.module).items() if name in SPEC_TYPES}


@CONTRACT.check(needs=LOADS)
def summaries_are_single_lines(subject: PluginSubject) -> None:
    """The summary of each task, data module, model and format is one line."""
    expect_none(
        problem
        for kind in ("task", "data", "model", "format")
        for spec in subject.specs(kind)
        for problem in problems_of_summary(spec)
    )


@CONTRACT.check(needs=LOADS)
def imports_are_light(subject: PluginSubject) -> None:
    """Importing the plugin's module and calling its hooks imports neither torch nor another slow package, so that
    listings and --help are fast."""
    imported = _imported_by([subject.module_name], *_hooks(subject))
    heavy = [name for name in HEAVY if name in imported]
    expect(not heavy, f"it imports {', '.join(heavy)} (import them in the modules that specs name)")


def _imported_by(modules: Collection[str], *functions: str) -> list[str]:
    """Return the modules that are imported in a new process.

    Args:
        modules: modules to import.
        functions: functions of the last module to call.
    """
    command = [sys.executable, "-c", PRINT_IMPORTED_MODULES, ",".join(modules), *functions]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    expect(done.returncode == 0, f"it cannot be imported in a new process: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout.rpartition("imported:")[2].split()


@CONTRACT.check(needs=LOADS)
def tasks_are_valid(subject: PluginSubject) -> None:
    """A task's module is a subclass of `perceiver_plugins.sdk.tasks.LitPerceiver` that implements `loss_sum` and
    `example_labels` if the task has data, and its predictor a class with the method `predict`."""
    from perceiver_plugins.sdk.tasks.lightning import LitPerceiver

    for spec in subject.specs("task"):
        expect_none(problems_of_import_paths(spec, "module", "predictor"))
        module = resolve_import_path(spec.module)
        is_module = inspect.isclass(module) and issubclass(module, LitPerceiver)
        expect(is_module, f"{spec.name}: module={spec.module!r} is not a LitPerceiver")
        for name in ("example_labels", "loss_sum"):
            implemented = spec.data is None or getattr(module, name) is not getattr(LitPerceiver, name)
            expect(implemented, f"{spec.name}: {module.__name__} does not implement {name}")
        if spec.predictor is not None:
            predicts = callable(getattr(resolve_import_path(spec.predictor), "predict", None))
            expect(predicts, f"{spec.name}: predictor={spec.predictor!r} has no method 'predict'")


@CONTRACT.check(needs=["tasks_are_valid"])
def task_defaults_are_valid(subject: PluginSubject) -> None:
    """A task's architecture and data module exist, the data module fits the task, and the defaults name existing
    adapters and fields of their configs, so that `--task=NAME` is a complete command."""
    expect_none(problem for spec in subject.specs("task") for problem in _problems_of_task(subject, spec))


def _problems_of_task(subject: PluginSubject, spec: TaskSpec) -> Iterator[str]:
    data = subject.find("data", spec.data) if spec.data else None
    if data is None and spec.data is not None:
        yield f"{spec.name}: data={spec.data!r} does not exist"
    elif data is not None and not data.serves(spec.name):
        yield f"{spec.name}: data={spec.data!r} fits {', '.join(data.tasks)}, not this task"
    if subject.find("architecture", spec.architecture) is None:
        yield f"{spec.name}: architecture={spec.architecture!r} does not exist"
    yield from _unknown_flags(spec)
    for kind, part in PARTS.items():
        chosen = spec.defaults.get(f"model.{part}")
        adapter = subject.find(kind, chosen) if chosen else None
        if chosen and adapter is None:
            yield f"{spec.name}: default model.{part}={chosen!r}: unknown {NOUNS[kind]}"
        elif adapter is not None:
            known = {field.name for field in fields(resolve_import_path(adapter.config))}
            prefix = f"model.{part}."
            for flag in spec.defaults:
                if flag.startswith(prefix) and flag.removeprefix(prefix) not in known:
                    yield f"{spec.name}: default {flag}: unknown field; {near(flag.removeprefix(prefix), known)}"


def _unknown_flags(spec: TaskSpec | DataSpec | ModelSpec) -> Iterator[str]:
    by_task = spec.task_defaults.values() if isinstance(spec, DataSpec) else ()
    for flag in (flag for defaults in (spec.defaults, *by_task) for flag in defaults):
        if flag.partition(".")[0] not in FLAGS:
            yield f"{spec.name}: default {flag!r}: unknown flag; flags begin with {', '.join(FLAGS)}"


@CONTRACT.check(needs=["task_defaults_are_valid"])
def tasks_train(subject: PluginSubject) -> None:
    """A task's module with small default adapters has a finite loss with a gradient on random inputs and the labels of
    `example_labels`. Adapters that are not installed are skipped."""
    trained = [spec for spec in subject.specs("task") if spec.data is not None]
    expect_none(problem for spec in trained for problem in _problems_of_training(subject, spec))


def create_task_module(subject: PluginSubject, spec: TaskSpec) -> Any:
    """Create a task's module with its architecture and small adapters, or return None if these are not installed."""
    adapters = [subject.find(kind, spec.defaults.get(f"model.{part}", "")) for kind, part in PARTS.items()]
    found = [subject.find("architecture", spec.architecture), *adapters]
    if None in found or any(not _is_registered(each) for each in found):
        return None
    return resolve_import_path(spec.module).create(ArchitectureSubject(*found).config(), task=spec.name)


def _problems_of_training(subject: PluginSubject, spec: TaskSpec) -> Iterator[str]:
    module = create_task_module(subject, spec)
    if module is None:
        return
    generator = torch.Generator().manual_seed(0)
    batch = dict(module.model.input_adapter.example_batch(BATCH_SIZE, generator))
    batch["labels"] = module.example_labels(batch, generator)
    sums = module.loss_sum(batch)
    if problem := problem_of_loss(sums):
        yield f"{spec.name}: {problem}"
        return
    loss = sums.mean
    if not loss.isfinite():
        yield f"{spec.name}: the loss of random examples is {loss}"
    else:
        loss.backward()
        if not any(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters()):
            yield f"{spec.name}: the loss has no gradient"


def _is_registered(spec: AdapterSpec | ArchitectureSpec) -> bool:
    """Return whether a spec is registered, since plugins can be checked without being installed."""
    return any(entry.spec == spec for entry in registry().entries(spec.kind))  # type: ignore[call-overload]


@CONTRACT.check(needs=LOADS)
def data_modules_are_valid(subject: PluginSubject) -> None:
    """A data module is a LightningDataModule whose arguments are typed and documented, since they are flags. Its tasks
    exist, and `yields` lists the entries of its batches unless it fits all tasks."""
    expect_none(problem for spec in subject.specs("data") for problem in _problems_of_data(subject, spec))


def _problems_of_data(subject: PluginSubject, spec: DataSpec) -> Iterator[str]:
    paths = {"module": spec.module, **{f"modules[{task!r}]": path for task, path in spec.modules.items()}}
    problems = [problem for name, path in paths.items() for problem in _problems_of_data_module(spec, name, path)]
    yield from problems
    if problems:
        return
    for field in ("modules", "task_defaults"):
        if unserved := sorted(getattr(spec, field).keys() - set(spec.tasks)):
            yield f"{spec.name}: {field}: {unserved[0]!r} is not one of its tasks"
    for task in spec.tasks:
        if task != ANY_TASK and subject.find("task", task) is None:
            yield f"{spec.name}: tasks: unknown task {task!r}"
    if not spec.tasks:
        yield f"{spec.name}: `tasks` is empty, so that no task can use it"
    if not spec.yields and ANY_TASK not in spec.tasks:
        yield f"{spec.name}: `yields` is empty (list the entries of its batches besides labels)"
    yield from _unknown_flags(spec)


def _problems_of_data_module(spec: DataSpec, name: str, path: str) -> Iterator[str]:
    from pytorch_lightning import LightningDataModule

    try:
        module = resolve_import_path(path)
    except Exception as error:
        yield f"{spec.name}: {name}={path!r} cannot be imported: {type(error).__name__}: {error}"
        return
    if not (inspect.isclass(module) and issubclass(module, LightningDataModule)):
        yield f"{spec.name}: {name}={path!r} is not a LightningDataModule"
        return
    yield from (f"{spec.name}: {problem}" for problem in problems_of_flags(module))


@CONTRACT.check(needs=LOADS)
def adapter_tasks_exist(subject: PluginSubject) -> None:
    """The `tasks` of an output adapter exist."""
    expect_none(
        f"{spec.name}: tasks: unknown task {task!r}"
        for spec in subject.specs("output")
        for task in spec.tasks
        if subject.find("task", task) is None
    )


@CONTRACT.check(needs=LOADS)
def adapter_data_exists(subject: PluginSubject) -> None:
    """The default `data` of an input adapter exists, and yields the entries that the adapter reads."""
    expect_none(
        f"{spec.name}: data={spec.data!r} {'does not exist' if data is None else 'does not fit the adapter'}"
        for spec in subject.specs("input")
        if spec.data is not None and ((data := subject.find("data", spec.data)) is None or not data.feeds(spec))
    )


@CONTRACT.check(needs=LOADS)
def formats_are_valid(subject: PluginSubject) -> None:
    """A format is a subclass of `perceiver_registry.Format` that can be created without arguments. It reads, writes or
    both, and implements the methods for that. Its suffixes begin with a dot."""
    expect_none(problem for spec in subject.specs("format") for problem in _problems_of_format(spec))


def _problems_of_format(spec: FormatSpec) -> Iterator[str]:
    if problems := list(problems_of_import_paths(spec, "format")):
        yield from problems
        return
    format_type = resolve_import_path(spec.format)
    if not (inspect.isclass(format_type) and issubclass(format_type, Format)):
        yield f"{spec.name}: format={spec.format!r} is not a Format"
        return
    if not (spec.reads or spec.writes):
        yield f"{spec.name}: it neither `reads` nor `writes`"
    needed = {"recognises": spec.reads, "read": spec.reads, "write": spec.writes, "compute": not spec.reads}
    for method, is_needed in needed.items():
        if is_needed and getattr(format_type, method) is getattr(Format, method):
            yield f"{spec.name}: {format_type.__name__} does not implement {method}"
    yield from (f"{spec.name}: suffix {each!r} does not begin with a dot" for each in spec.suffixes if each[:1] != ".")
    try:
        format_type()
    except Exception as error:
        yield f"{spec.name}: {format_type.__name__}() fails: {type(error).__name__}: {error}"


@CONTRACT.check(needs=["formats_are_valid"])
def formats_reject_empty_files(subject: PluginSubject) -> None:
    """A format recognises neither an empty folder nor an empty file with its suffix, and importing its module does not
    import torch, since every format inspects every source."""
    modules = [spec.format.partition(":")[0] for spec in subject.specs("format")]
    imported = _imported_by(modules) if modules else []
    heavy = [name for name in HEAVY if name in imported]
    expect(not heavy, f"a format's module imports {', '.join(heavy)} (import them in the methods)")
    for spec in subject.specs("format"):
        if not spec.reads:
            continue
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"empty{next(iter(spec.suffixes), '')}")
            file.touch()
            for source in (folder, str(file)):
                try:
                    recognised = resolve_import_path(spec.format)().recognises(source)
                except UserError:
                    continue
                expect(recognised is False, f"{spec.name}: recognises({source!r}) is {recognised!r}, must be False")


@CONTRACT.check(needs=LOADS)
def models_match_specs(subject: PluginSubject) -> None:
    """The task of a named model exists, its config names existing adapters and their fields, and the model has the
    number of parameters in the spec."""
    expect_none(problem for spec in subject.specs("model") for problem in _problems_of_model(subject, spec))


def _problems_of_model(subject: PluginSubject, spec: ModelSpec) -> Iterator[str]:
    if subject.find("task", spec.task) is None:
        yield f"{spec.name}: task={spec.task!r} does not exist"
    yield from _unknown_flags(spec)
    try:
        with torch.device("meta"):
            model = _build(subject, spec.config)
    except Exception as error:
        yield f"{spec.name}: its config builds no model: {type(error).__name__}: {error}"
        return
    counted = sum(parameter.numel() for parameter in model.parameters())
    if counted != spec.num_parameters:
        yield f"{spec.name}: num_parameters={spec.num_parameters:_}, but the model has {counted:_}"


def _build(subject: PluginSubject, config: Mapping[str, Any]) -> Model:
    """Build the model of a config by dotted field."""
    named = config.get("architecture", DEFAULT_ARCHITECTURE)
    architecture = subject.find("architecture", named)
    expect(architecture is not None, f"architecture={named!r}: unknown {NOUNS['architecture']}")
    model_type = resolve_import_path(architecture.config)
    parts: dict[str, Any] = {}
    adapters: list[Any] = []
    for kind, part in PARTS.items():
        spec = subject.find(kind, config[part])
        expect(spec is not None, f"{part}={config[part]!r}: unknown {NOUNS[kind]}")
        prefix = f"{part}."
        values = {name.removeprefix(prefix): value for name, value in config.items() if name.startswith(prefix)}
        parts[part] = create_config(resolve_import_path(spec.config), values, part, model_type.unused_fields(part))
        adapters.append(resolve_import_path(spec.adapter).from_config(parts[part], *adapters))
    own = {name: value for name, value in config.items() if name not in (*parts, "architecture") and "." not in name}
    model_config = create_config(model_type, own | parts, "model")
    model: Model = resolve_import_path(architecture.model)(model_config, *adapters)
    return model
