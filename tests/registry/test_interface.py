"""Comparison of the public interface with the recorded one, so that changes are deliberate and get a new version.

``python tests/registry/test_interface.py`` updates the record.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
from pytorch_lightning import LightningDataModule, LightningModule

from perceiver_registry import INTERFACE_VERSION
from perceiver_registry.plugins import SPEC_TYPES
from perceiver_registry.testing import adapter_checks, plugin_checks

RECORD = Path(__file__).with_name("interface.txt")
DOCUMENT = Path(__file__).parents[2] / "docs" / "interface.md"

PUBLIC: dict[str, tuple[str, ...]] = {
    "perceiver_core": (),
    "perceiver_core.config": ("require", "require_divisible", "require_positive"),
    "perceiver_plugins.sdk": (),
    "perceiver_plugins.sdk.data": (),
    "perceiver_plugins.sdk.prediction": (),
    "perceiver_plugins.sdk.tasks": (),
    "perceiver_registry": (),
    "perceiver_registry.hooks": tuple(SPEC_TYPES),
    "perceiver_registry.testing": (),
}
"""Public names of each module. Empty: those of its ``__all__``."""


def public_names() -> Iterator[tuple[str, Any]]:
    """Yield the import path and value of each public name."""
    for path, names in PUBLIC.items():
        module = importlib.import_module(path)
        for name in names or module.__all__:
            yield f"{path}.{name}", getattr(module, name)


def signature_lines(path: str, value: Any) -> Iterator[str]:
    """Yield a line with the signature of a public name and, for classes, one line per public member."""
    yield f"{path}{signature(value)}"
    if inspect.isclass(value):
        yield from (f"{path}.{name}{member_signature(member)}" for name, member in public_members(value))


def signature(value: Any) -> str:
    """Return the signature of a class or function, the base class of an exception, or an empty string."""
    if inspect.isclass(value) and issubclass(value, Exception):
        return f"({value.__base__.__name__})"
    return str(inspect.signature(value)) if inspect.isclass(value) or inspect.isroutine(value) else ""


def member_signature(member: Any) -> str:
    """Return the signature of a method, with ``self`` or ``cls``, or an empty string for other members."""
    function = getattr(member, "__func__", member)
    return str(inspect.signature(function)) if inspect.isfunction(function) else ""


def public_members(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public members that a class defines, without dataclass fields, which are in its signature."""
    inherited = next((base for base in (LightningModule, LightningDataModule) if issubclass(cls, base)), object)
    fields = getattr(cls, "__dataclass_fields__", {})
    for name, member in sorted(vars(cls).items()):
        if not (name.startswith("_") or name in fields or hasattr(inherited, name)):
            yield name, member


def interface() -> list[str]:
    """Return the lines of the record: the version, then one line per public name."""
    names = sorted(line for path, value in public_names() for line in signature_lines(path, value))
    return [f"interface {INTERFACE_VERSION}", *names]


def test_interface_matches_the_record():
    recorded, found = RECORD.read_text().splitlines(), interface()
    removed = [f"- {line}" for line in recorded if line not in found]
    added = [f"+ {line}" for line in found if line not in recorded]
    if removed or added:
        changes = "\n".join([*removed, *added])
        pytest.fail(
            f"The public interface has changed:\n{changes}\nIf this is intended, increase INTERFACE_VERSION (the major "
            "version for removed names and changed signatures, the minor version for new names; see "
            "docs/interface.md) and update the record: python tests/registry/test_interface.py",
            pytrace=False,
        )


def test_signature_lines_contain_arguments_and_fields():
    (line,) = signature_lines("faults.decode", faults.Chords.forward)
    assert line == "faults.decode(self, decoded)"
    lines = [*signature_lines("faults.Frames", faults.Frames)]
    assert lines[0] == "faults.Frames(num_bins: 'int', max_frames: 'int')"
    assert {"faults.Frames.position_layout(self)", "faults.Frames.from_config(cls, config)"} <= set(lines)
    fields = [*signature_lines("faults.ChordsDecoderConfig", faults.ChordsDecoderConfig)]
    assert "num_chords: 'int' = 4" in fields[0]
    assert "dropout: 'float' = 0.0" in fields[0]


# The document


def test_document_contains_the_version():
    assert f"`{INTERFACE_VERSION}`" in DOCUMENT.read_text()
    assert f'PERCEIVER_INTERFACE = "{INTERFACE_VERSION}"' in DOCUMENT.read_text()


def test_document_lists_public_modules_and_names():
    section = DOCUMENT.read_text().partition("## Public names")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(perceiver[\w.]+)` \| (.*) \|$", section, flags=re.MULTILINE)
    named = {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}
    assert named.keys() == PUBLIC.keys()
    for module, names in PUBLIC.items():
        assert named[module] == set(names) or (not names and "__all__" in named[module])


def test_document_lists_every_check():
    section = DOCUMENT.read_text().partition("## The contract")[2]
    adapters = [*adapter_checks(faults.FRAMES), *adapter_checks(faults.CHORDS)]
    expected = {check.name for check in (*adapters, *plugin_checks("checkpoints"))}
    assert set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", section.partition("| about")[2])) == expected


if __name__ == "__main__":
    RECORD.write_text("\n".join(interface()) + "\n")
