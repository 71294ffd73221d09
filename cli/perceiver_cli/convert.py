"""``convert``: from any format that is read to any that is written, verified by running both sides."""

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

SRC is a file, a folder or a hub id; its format is recognised. DST is a file, whose suffix
decides, or a folder: without --format, in the first format that can hold the model. What is
written runs beside the model on a random input; nothing is left if the two differ.
perceiver list-formats shows what is read and written.

  perceiver convert deepmind/language-perceiver language.ckpt
  perceiver convert best.ckpt my-model/ --format=zoo
  perceiver convert my-model/ weights.safetensors"""


def convert(command: str, argv: Sequence[str]) -> None:
    """Converts a model, and says what was read and written.

    Args:
        command: "convert".
        argv: what follows it on the command line.

    Raises:
        UserError: if there is no model at the source, if it cannot be written in the format, or if there is something
            at the destination.
    """
    parser = Parser(
        prog=f"perceiver {command}",
        description=DESCRIPTION.format(summary=SUMMARIES[command]),
        epilog=COMMON_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SRC", help="the model")
    parser.add_argument("target", metavar="DST", help="where to write it")
    parser.add_argument("--format", metavar="NAME", help="format of DST, where its suffix does not say it")
    parser.add_argument("--model", metavar="NAME", help="the named model that SRC holds the weights of")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of DST that are there already")
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
    print(f"difference {difference:.1e} of the largest output, at most")
