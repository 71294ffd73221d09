"""``export``: a model as a file for serving, checked against the original in several sizes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perceiver_cli.commands import SUMMARIES
from perceiver_cli.common import COMMON_HELP
from perceiver_cli.library_warnings import without_library_warnings
from perceiver_cli.listing import Parser
from perceiver_cli.sources import find_source
from perceiver_cli.tables import print_table
from perceiver_registry import Entry, FormatSpec, UnknownNameError, UserError, registry, write_model
from perceiver_registry.errors import near
from perceiver_registry.formats import check_free, open_source

DESCRIPTION = """\
{summary}.

The model may be in any format that is read. The file holds the model in evaluation mode,
and what serving must know beside it: names of classes, tokenizer, how images are normalised.
Sizes, such as the number of examples and the length of texts, stay open where the model
allows it. It runs beside the original in several of them; nothing is left if they differ.

  perceiver export --ckpt_path=best --format=onnx
  perceiver export --ckpt_path=deepmind/language-perceiver --output=language.pt2"""


def export(command: str, argv: Sequence[str]) -> None:
    """Exports a model, and says what goes into the file and comes out of it.

    Args:
        command: "export".
        argv: what follows it on the command line.

    Raises:
        UserError: if there is no model at ``--ckpt_path``, if it cannot be exported in the format, or if there is
            something at the output's place.
    """
    parser = Parser(
        prog=f"perceiver {command}",
        description=DESCRIPTION.format(summary=SUMMARIES[command]),
        epilog=COMMON_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    formats = [registry().short_name(entry) for entry in _formats()]
    parser.add_argument(
        "--ckpt_path", required=True, help='the model: a checkpoint, a folder, a hub id; or "best" or "last"'
    )
    parser.add_argument("--format", metavar="NAME", help=f"{' or '.join(formats)}; none: as the output's suffix says")
    parser.add_argument("--output", metavar="FILE", help="where to write; none: beside the checkpoint, under its name")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    try:
        options = parser.parse_args(argv)
    except SystemExit:  # --help
        return
    entry = _format(options.format, options.output)
    source = find_source(options.ckpt_path)
    target = options.output or str(_beside(source, entry))
    check_free(target, options.overwrite)
    with without_library_warnings():
        _export(source, target, entry, options.overwrite)


def _export(source: str, target: str, entry: Entry[FormatSpec], overwrite: bool) -> None:
    opened = open_source(source)
    loaded = opened.read()
    difference = write_model(loaded, target, entry.full_name, overwrite=overwrite)
    written = entry.resolve("format")().signature(target)
    print(f"read  {source} ({opened.entry.name})")
    print(f"wrote {target} ({entry.name}, {_size(target)})\n")
    print_table(
        {"": kind, "name": port["name"], "type": port["type"], "shape": _shape(port["shape"])}
        for kind in ("inputs", "outputs")
        for port in written.get(kind, ())
    )
    limits = [_limits(name, *each) for name, each in written.get("sizes", {}).items() if each != [1, None]]
    if limits:
        print(f"\nwhere {', '.join(limits)}")
    checked = written.get("checked", [])
    largest = max([difference, *(check["difference"] for check in checked)])
    print(f"\nlargest difference to the original, relative to the largest output: {largest:.1e}")
    tried = [_said(check["sizes"]) for check in checked if check["sizes"]]
    if tried:
        print(f"compared with {'; '.join(tried)}")


def _formats() -> list[Entry[FormatSpec]]:
    """The formats for serving: those that are written, and not read."""
    return [entry for entry in registry().entries("format") if entry.spec.writes and not entry.spec.reads]


def _format(name: str | None, output: str | None) -> Entry[FormatSpec]:
    """The format of that name or, where none is given, the one whose files are named like the output.

    Raises:
        UserError: if there is none.
    """
    known = {registry().short_name(entry): entry for entry in _formats()}
    if name is not None:
        entry = registry().find("format", name)
        if entry is None or entry not in known.values():
            reason = "" if entry is None else ": it is written by perceiver convert"
            raise UnknownNameError(f"--format={name}: no format for serving{reason}; {near(name, known)}")
        return entry
    if output is None:
        raise UserError(f"--format is missing: {' or '.join(known)}")
    for entry in known.values():
        if entry.spec.suffixes and output.endswith(entry.spec.suffixes):
            return entry
    raise UserError(f"--output={output}: its suffix says no format; add --format={' or --format='.join(known)}")


def _beside(source: str, entry: Entry[FormatSpec]) -> Path:
    """Where to write what is made of a model: beside the file or folder, or here if the model is at the hub."""
    place = Path(source)
    suffix = next(iter(entry.spec.suffixes), "")
    if not place.exists():
        return Path(place.name + suffix)
    return place.absolute().with_name((place.stem if place.is_file() else place.absolute().name) + suffix)


def _size(target: str) -> str:
    path = Path(target)
    files = [path, *path.parent.glob(f"{path.name}.*")] if path.is_file() else path.rglob("*")
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"


def _shape(sizes: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, sizes))})"


def _limits(name: str, lowest: int, highest: int | None) -> str:
    return f"{name} is {lowest} or more" if highest is None else f"{name} is {lowest} to {highest}"


def _said(sizes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
