"""``convert``: conversion between model formats, verified by running both models."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from perceiver_cli.commands import SUMMARIES
from perceiver_cli.common import COMMON_HELP
from perceiver_cli.library_warnings import without_library_warnings
from perceiver_cli.listing import Parser
from perceiver_cli.sources import find_source
from perceiver_registry import write_model
from perceiver_registry.formats import check_free, format_for, open_source

DESCRIPTION = """\
{summary}.

SRC is a file, a folder or a hub id, whose format is detected, or "best" or "last" for the
newest run's checkpoint. DST is a file, whose suffix selects the format, or a folder. The
converted model is run on a random input and compared with the original; if their outputs
differ, nothing is written. perceiver list-formats shows all formats.

  perceiver convert deepmind/language-perceiver language.ckpt
  perceiver convert best my-model/ --format=zoo
  perceiver convert my-model/ weights.safetensors"""


def convert(command: str, argv: Sequence[str]) -> None:
    """Convert a model, and print what was read and written.

    Args:
        command: "convert".
        argv: arguments after the subcommand.

    Raises:
        UserError: if the source has no model, if the format cannot represent it, or if the destination exists.
    """
    parser = Parser(
        prog=f"perceiver {command}",
        description=DESCRIPTION.format(summary=SUMMARIES[command]),
        epilog=COMMON_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source", metavar="SRC", help="file, folder or hub id of the model; best, last: checkpoint of the newest run"
    )
    parser.add_argument("target", metavar="DST", help="file or folder to write")
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="format of DST; default: by its suffix or, for a folder, the first that can represent the model",
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="named model that the weights in SRC belong to; for weights without a description",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files of DST")
    try:
        options = parser.parse_args(argv)
    except SystemExit:  # --help
        return
    check_free(options.target, options.overwrite)
    source = find_source(options.source, label="")
    with without_library_warnings():
        _convert(source, options)


def _convert(source: str, options: argparse.Namespace) -> None:
    opened = open_source(source)
    if options.model is None:
        loaded = opened.read()
    else:
        from perceiver_registry.zoo import load_weights

        loaded = load_weights(options.model, source)
    target = format_for(loaded, options.target, options.format)
    difference = write_model(loaded, options.target, target.full_name, overwrite=options.overwrite)
    model = loaded.model
    adapters = " to ".join(loaded.description.adapters())
    print(f"read       {source} ({opened.entry.name}): {adapters}, for {loaded.description.task}")
    print(f"parameters {sum(parameter.numel() for parameter in model.parameters()):,}")
    print(f"wrote      {options.target} ({target.name})")
    print(f"difference {difference:.1e} at most, relative to the largest output")
