"""Escaping of control characters in terminal output.

Names of files, columns and classes, texts and error messages are untrusted. All output for users passes through
:func:`escape_controls`, or :func:`escape_line` if it must stay on one line.
"""

from __future__ import annotations

import codecs
import re

_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1
_BIDI = "\u202a-\u202e\u2066-\u2069"  # embeddings, overrides and isolates; marks (U+200E, U+200F) reorder nothing else
_SURROGATES = "\ud800-\udfff"  # bytes of file names that are not UTF-8: no encoding writes them
_UNSAFE = re.compile(f"[{_CONTROLS}{_BIDI}{_SURROGATES}]")
_UNSAFE_IN_LINE = re.compile(f"[\n\u2028\u2029{_CONTROLS}{_BIDI}{_SURROGATES}]")


def escape_controls(text: str) -> str:
    r"""Replace control characters, bidirectional overrides and lone surrogates by escapes such as ``\u001b``.

    Line feeds, tabs, letters, combining marks and right-to-left text are kept. The escapes are those of JSON, so that
    the content of JSON does not change.
    """
    return _UNSAFE.sub(_escape, text)


def escape_line(text: str) -> str:
    """Replace the characters of :func:`escape_controls` and line ends by escapes."""
    return _UNSAFE_IN_LINE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


ENCODING_ERRORS = "perceiver.escape"
"""Name of an encoding error handler that replaces characters the encoding lacks by the same escapes."""


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return re.sub("....", r"\\u\g<0>", units), error.end


codecs.register_error(ENCODING_ERRORS, _escape_unencodable)
