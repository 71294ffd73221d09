"""``export``: models as files for serving, checked against the original with several input sizes."""

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

The model may be in any readable format. The file contains the model in evaluation mode and
the metadata that serving needs: class names, tokenizer, image normalisation. Batch size and
text length are dynamic dimensions if the model allows it. The exported model is compared
with the original on several sizes; if their outputs differ, nothing is written.

  perceiver export --ckpt_path=best --format=onnx
  perceiver export --ckpt_path=deepmind/language-perceiver --output=language.pt2"""


def export(command: str, argv: Sequence[str]) -> None:
    """Export a model, and print the inputs and outputs of the file.

    Args:
        command: "export".
        argv: arguments after the subcommand.

    Raises:
        UserError: if ``--ckpt_path`` has no model, if the format cannot represent it, or if the output exists.
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
        "--ckpt_path",
        required=True,
        help="checkpoint, folder or hub id of the model; best, last: checkpoint of the newest run",
    )
    parser.add_argument("--format", metavar="NAME", help=f"{' or '.join(formats)}; default: by the suffix of --output")
    parser.add_argument("--output", metavar="FILE", help="file to write; default: next to the model, with its name")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    try:
        options = parser.parse_args(argv)
    except SystemExit:  # --help
        return
    entry = find_serving_format(options.format, options.output)
    source = find_source(options.ckpt_path)
    target = options.output or str(_default_target(source, entry))
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
    print(f"\nlargest difference from the original, relative to the largest output: {largest:.1e}")
    tried = [_described(check["sizes"]) for check in checked if check["sizes"]]
    if tried:
        print(f"compared with {'; '.join(tried)}")


def _formats() -> list[Entry[FormatSpec]]:
    """Return the formats for serving, which are written but not read."""
    return [entry for entry in registry().entries("format") if entry.spec.writes and not entry.spec.reads]


def find_serving_format(name: str | None, output: str | None) -> Entry[FormatSpec]:
    """Find a format for serving by its name or, without one, by the suffix of the output.

    Args:
        name: name of the format, or None.
        output: the file to write, or None.

    Raises:
        UserError: if no format matches.
    """
    known = {registry().short_name(entry): entry for entry in _formats()}
    if name is not None:
        entry = registry().find("format", name)
        if entry is None or entry not in known.values():
            reason = "" if entry is None else "perceiver convert writes it; "
            raise UnknownNameError(f"--format={name}: not a format for serving ({reason}{near(name, known)})")
        return entry
    if output is None:
        raise UserError(f"--format: missing (one of: {', '.join(known)})")
    for entry in known.values():
        if entry.spec.suffixes and output.endswith(entry.spec.suffixes):
            return entry
    raise UserError(f"--output={output}: unknown suffix (add --format={' or --format='.join(known)})")


def _default_target(source: str, entry: Entry[FormatSpec]) -> Path:
    """Return the output next to the source's file or folder; in the current folder for a model at the hub."""
    path = Path(source)
    suffix = next(iter(entry.spec.suffixes), "")
    if not path.exists():
        return Path(path.name + suffix)
    return path.absolute().with_name((path.stem if path.is_file() else path.absolute().name) + suffix)


def _size(target: str) -> str:
    path = Path(target)
    files = [path, *path.parent.glob(f"{path.name}.*")] if path.is_file() else path.rglob("*")
    return f"{sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"


def _shape(sizes: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, sizes))})"


def _limits(name: str, lowest: int, highest: int | None) -> str:
    return f"{name} is {lowest} or more" if highest is None else f"{name} is {lowest} to {highest}"


def _described(sizes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
