"""Griffe extension for the API reference: Sphinx roles in Markdown, and constructors that are ``__new__``."""

from __future__ import annotations

import re
from typing import Any

from griffe import Class, Extension, Object

ROLE = re.compile(r":(?:class|func|meth|attr|data|mod|exc):`(~?)([\w.]+)`")
"""A role such as ``:class:`~package.module.Name```; the tilde abbreviates the text to the last name."""

LITERAL_BLOCK = re.compile(r"::\n\n(?= +\S)")
"""The start of a literal block of reStructuredText; Markdown takes its indented lines for code as they are."""

TABLE = re.compile(r"^=+ +=+\n(.+)\n=+ +=+\n((?:.+\n)+?)=+ +=+$", re.MULTILINE)
"""A simple table of two columns."""


class PerceiverDocstrings(Extension):
    """Replace roles by code and literal blocks by Markdown's; take the arguments of a class from ``__new__``."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        if "__new__" in cls.members and "__init__" not in cls.members:
            cls.set_member("__init__", cls.members["__new__"])


def to_markdown(docstring: str) -> str:
    """Translate roles, literal blocks and tables of reStructuredText to Markdown."""
    text = ROLE.sub(lambda role: f"`{display_name(*role.groups())}`", docstring)
    text = LITERAL_BLOCK.sub(":\n\n", text)
    return TABLE.sub(lambda found: render_table(found[1], found[2].splitlines()), text)


def render_table(header: str, lines: list[str]) -> str:
    """Render a table of two columns, which two spaces separate."""
    rows = [re.split(r" {2,}", line.strip(), maxsplit=1) for line in (header, *lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---", "---"], *rows[1:]])


def display_name(tilde: str, name: str) -> str:
    """Return the text of a role."""
    return name.rpartition(".")[2] if tilde else name
