"""``plugins``: installed and local plugins, and why one failed."""

from __future__ import annotations

import fnmatch
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from perceiver_cli.listing import create_parser
from perceiver_cli.tables import print_table
from perceiver_registry import LoadedPlugin, registry
from perceiver_registry.discovery import find_packages_without_plugins
from perceiver_registry.escaping import escape_line
from perceiver_registry.hooks import PROJECT
from perceiver_registry.plugins import OWN_DISTRIBUTION
from perceiver_registry.registry import NOUNS

HINT = (
    f"requires {OWN_DISTRIBUTION}, but registers nothing (name the module with its hooks under "
    f"[project.entry-points.{PROJECT}] in its pyproject.toml, and install it again)"
)
"""Hint for authors of packages without an entry point."""


def plugins(command: str, argv: Sequence[str]) -> None:
    """List the plugins.

    Args:
        command: "plugins".
        argv: arguments after the subcommand.

    Raises:
        UserError: if a flag is unknown.
    """
    parser = create_parser(command)
    parser.add_argument(
        "pattern", nargs="?", default="*", help="only plugins or distributions that match a pattern, such as 'text*'"
    )
    try:
        options = parser.parse_args(argv)
    except SystemExit:  # --help
        return
    found = [loaded for loaded in registry().plugins if _matches(loaded, options.pattern)]
    if options.format == "json":
        print(json.dumps([_facts(loaded) for loaded in found], indent=2))
    elif found:
        print_table(_row(loaded) for loaded in found)
    else:
        print("none installed" if options.pattern == "*" else f"no plugin matches {options.pattern!r}")
    for name in fnmatch.filter(find_packages_without_plugins(), options.pattern):
        print(escape_line(f"perceiver: {name} {HINT}"), file=sys.stderr)


def _matches(loaded: LoadedPlugin, pattern: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for name in (loaded.plugin.name, loaded.plugin.distribution))


def _facts(loaded: LoadedPlugin) -> dict[str, Any]:
    return {
        "name": loaded.plugin.name,
        "distribution": loaded.plugin.distribution,
        "version": loaded.plugin.version,
        "interface": loaded.interface,
        "status": loaded.status,
        "milliseconds": round(1000 * loaded.seconds, 1),
        "provides": {
            kind: names for kind in NOUNS if (names := [spec.name for spec in loaded.specs if spec.kind == kind])
        },
        "error": str(loaded.error) if loaded.error else None,
    }


def _row(loaded: LoadedPlugin) -> dict[str, str]:
    facts = _facts(loaded)
    counts = Counter(spec.kind for spec in loaded.specs)
    provides = ", ".join(f"{count} {NOUNS[kind]}{'s' * (count > 1)}" for kind, count in counts.items())
    return {
        "plugin": facts["name"],
        "distribution": facts["distribution"],
        "version": facts["version"],
        "interface": facts["interface"] or "",
        "status": facts["status"],
        "ms": "" if loaded.disabled else f"{facts['milliseconds']:.1f}",
        "provides": facts["error"] or provides,
    }
