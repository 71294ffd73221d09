"""What a command's exit code says, and the line that goes with it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence

from perceiver_cli.library_errors import explain
from perceiver_registry import UserError
from perceiver_registry.errors import RunError
from perceiver_registry.escaping import escape_line

OK, FAILED, WRONG_USE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class InterruptedRunError(Exception):
    """A person (Ctrl-C) or the system (SIGTERM) ended the run.

    Args:
        exit_code: :data:`INTERRUPTED` or :data:`TERMINATED`.
    """

    def __init__(self, exit_code: int):
        super().__init__()
        self.exit_code = exit_code


class IncompleteRunError(Exception):
    """Some of what was asked for could not be done; the rest is.

    Args:
        failures: what failed, one line each.
    """

    def __init__(self, failures: Sequence[str]):
        super().__init__()
        self.failures = failures


def guarded(action: Callable[[], None], debug: bool) -> int:
    """Runs ``action`` and returns the exit code, printing one line to standard error if it fails.

    Args:
        action: what to do.
        debug: show tracebacks of errors that are the user's or the machine's as well.
    """
    try:
        action()
        sys.stdout.flush()
    except UserError as error:
        return _failed(str(error), WRONG_USE, debug)
    except RunError as error:
        return _failed(str(error), FAILED, debug)
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED, debug)
    except InterruptedRunError as error:
        return _failed("interrupted", error.exit_code, debug)
    except IncompleteRunError as error:
        for failure in error.failures:
            print(f"perceiver: {escape_line(failure)}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader of the output has had enough
        sys.stderr.close()
        return OK
    except OSError as error:
        return _failed(f"the run failed: {_os_failure(error)} (--debug shows more)", FAILED, debug)
    except (RuntimeError, MemoryError, ValueError) as error:
        return _failed(f"the run failed: {type(error).__name__}: {_line(error)} (--debug shows more)", FAILED, debug)
    except Exception as error:
        line = explain(error)
        if line is not None:
            return _failed(line, WRONG_USE, debug)
        traceback.print_exc()
        return FAILED
    return OK


def _os_failure(error: OSError) -> str:
    """The system's error, after the file that it is about."""
    if error.filename is None or not error.strerror:
        return f"{type(error).__name__}: {_line(error)}"
    return f"{error.filename}: {error.strerror}"


def _failed(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"perceiver: {escape_line(line)}", file=sys.stderr)
    return code


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
