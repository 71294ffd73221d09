"""Standard output and error in any encoding."""

from __future__ import annotations

import codecs
import io
import sys

ESCAPE = "perceiver.escape"
"""Name of the error handler for characters that a stream's encoding does not have."""


def escape_unencodable() -> None:
    """Let standard output and error write characters that their encoding lacks as escapes, instead of failing.

    The escapes are those of JSON, so that JSON stays valid.
    """
    codecs.register_error(ESCAPE, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escapes = (f"\\u{int.from_bytes(units[i : i + 2]):04x}" for i in range(0, len(units), 2))
    return "".join(escapes), error.end
