"""Optional dependencies: look-up of the extra that installs a missing package."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING

from perceiver_registry.hooks import PROJECT
from perceiver_registry.plugins import is_same_distribution

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Distributions whose import name differs, as the metadata of a missing distribution cannot be read."""


@dataclass(frozen=True)
class MissingRequirement:
    """A requirement of an installed distribution that is not installed itself.

    Attributes:
        name: name of the missing distribution.
        requirement: argument for ``pip install``, such as ``perceiver-zoo[text]``.
    """

    name: str
    requirement: str

    def __str__(self) -> str:
        return f"needs {self.name}, which is not installed (pip install {shlex.quote(self.requirement)})"


def missing_requirement(
    error: BaseException, distribution: str | None = None, extras: Collection[str] = ()
) -> MissingRequirement | None:
    """Find the requirement whose absence caused an import error.

    Args:
        error: the error.
        distribution: name of the distribution that raised it, whose requirements are preferred.
        extras: names of extras that are preferred, such as that of the plugin that raised it.

    Returns:
        None if the error is not about a missing package, or if no distribution with plugins requires it.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = error.name.partition(".")[0]
    return None if _is_installed(package) else find_requirement(package, distribution, extras)


def find_requirement(
    package: str, distribution: str | None = None, extras: Collection[str] = ()
) -> MissingRequirement | None:
    """Find the requirement that installs a package, among those of all distributions with plugins.

    Args:
        package: import name of the package, or name of its distribution.
        distribution: name of the distribution whose requirements are preferred.
        extras: names of extras that are preferred. Among others, the one with the fewest requirements is chosen.
    """
    name = DISTRIBUTIONS.get(package, package)
    found = []
    for each in _distributions_with_plugins():
        own_name = each.metadata["Name"]
        is_other = distribution is not None and not is_same_distribution(own_name, distribution)
        for extra, requirements in _requirements(each):
            text = next((text for key, text in requirements.items() if is_same_distribution(key, name)), None)
            if text is not None:
                rank = (is_other, bool(extra) and extra not in extras, len(requirements) if extra else 0, extra)
                found.append((rank, f"{own_name}[{extra}]" if extra else text))
    return MissingRequirement(name.replace("_", "-"), min(found)[1]) if found else None


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # ValueError: a module without a spec
        return False


def _distributions_with_plugins() -> Iterator[Distribution]:
    for each in distributions():
        try:
            if any(point.group == PROJECT for point in each.entry_points) and each.metadata["Name"]:
                yield each
        except Exception:  # metadata of any installed distribution may be damaged
            continue


def _requirements(distribution: Distribution) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the extras of a distribution, first "" (the base), and pip's arguments by name for what each adds."""
    parsed = list(_parse_requirements(distribution.requires or ()))
    base = _matching(parsed, "")
    yield "", base
    for extra in distribution.metadata.get_all("Provides-Extra") or ():
        yield extra, {name: text for name, text in _matching(parsed, extra).items() if name not in base}


def _parse_requirements(lines: Iterable[str]) -> Iterator[Requirement]:
    """Parse requirements and skip invalid ones, which the metadata of an installed distribution may contain."""
    from packaging import requirements

    for line in lines:
        with contextlib.suppress(requirements.InvalidRequirement):
            yield requirements.Requirement(line)


def _matching(requirements: Iterable[Requirement], extra: str) -> dict[str, str]:
    """Return pip's arguments by name for the requirements of an extra and of the base."""
    return {
        each.name: f"{each.name}{each.specifier}"
        for each in requirements
        if each.marker is None or each.marker.evaluate({"extra": extra})
    }
