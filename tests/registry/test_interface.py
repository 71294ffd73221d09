"""The public interface is the recorded one: a change of it is made on purpose, with a new version.

``python tests/registry/test_interface.py`` records it.
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
"""The public names of each module; none: those of its ``__all__``."""


def public_names() -> Iterator[tuple[str, Any]]:
    for place, names in PUBLIC.items():
        module = importlib.import_module(place)
        for name in names or module.__all__:
            yield f"{place}.{name}", getattr(module, name)


def lines_of(place: str, thing: Any) -> Iterator[str]:
    """A line for a public thing and, of a class, one for each public name in it."""
    if inspect.isclass(thing) and issubclass(thing, Exception):
        yield f"{place}({thing.__base__.__name__})"
    elif callable(thing) and (inspect.isclass(thing) or inspect.isroutine(thing)):
        yield f"{place}{inspect.signature(thing)}"
    else:
        yield place
    if not inspect.isclass(thing):
        return
    lightning = next((base for base in (LightningModule, LightningDataModule) if issubclass(thing, base)), None)
    for name, value in sorted(vars(thing).items()):
        is_field = name in getattr(thing, "__dataclass_fields__", {})  # which the signature has
        if name.startswith("_") or is_field or (lightning is not None and hasattr(lightning, name)):
            continue
        function = getattr(value, "__func__", value)
        yield f"{place}.{name}{inspect.signature(function) if inspect.isfunction(function) else ''}"


def interface() -> list[str]:
    """The public interface, a name a line, after its version."""
    names = sorted(line for place, thing in public_names() for line in lines_of(place, thing))
    return [f"interface {INTERFACE_VERSION}", *names]


def test_the_interface_is_the_recorded_one():
    recorded, found = RECORD.read_text().splitlines(), interface()
    gone = [f"- {line}" for line in recorded if line not in found]
    new = [f"+ {line}" for line in found if line not in recorded]
    if gone or new:
        changes = "\n".join([*gone, *new])
        pytest.fail(
            f"The public interface has changed:\n{changes}\nIf that is meant, raise INTERFACE_VERSION (what is gone or "
            "takes other arguments: the major version; what is new: the minor one; see docs/interface.md), and record "
            "it with: python tests/registry/test_interface.py",
            pytrace=False,
        )


def test_the_record_notices_changes():
    (line,) = lines_of("faults.decode", faults.Chords.forward)
    assert line == "faults.decode(self, decoded)"
    lines = [*lines_of("faults.Frames", faults.Frames)]
    assert lines[0] == "faults.Frames(num_bins: 'int', max_frames: 'int')"
    assert {"faults.Frames.position_layout(self)", "faults.Frames.from_config(cls, config)"} <= set(lines)
    fields = [*lines_of("faults.ChordsDecoderConfig", faults.ChordsDecoderConfig)]
    assert "num_chords: 'int' = 4" in fields[0]
    assert "dropout: 'float' = 0.0" in fields[0]


# The document


def test_the_document_says_the_version():
    assert f"`{INTERFACE_VERSION}`" in DOCUMENT.read_text()
    assert f'PERCEIVER_INTERFACE = "{INTERFACE_VERSION}"' in DOCUMENT.read_text()


def test_the_document_names_the_public_modules_and_their_names():
    section = DOCUMENT.read_text().partition("## What is public")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(perceiver[\w.]+)` \| (.*) \|$", section, flags=re.MULTILINE)
    named = {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}
    assert named.keys() == PUBLIC.keys()
    for module, names in PUBLIC.items():
        assert named[module] == set(names) or (not names and "__all__" in named[module])


def test_the_document_names_every_check():
    section = DOCUMENT.read_text().partition("## The contract")[2]
    adapters = [*adapter_checks(faults.FRAMES), *adapter_checks(faults.CHORDS)]
    expected = {check.name for check in (*adapters, *plugin_checks("checkpoints"))}
    assert set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", section.partition("| about")[2])) == expected


if __name__ == "__main__":
    RECORD.write_text("\n".join(interface()) + "\n")
