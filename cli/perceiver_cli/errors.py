"""Exit codes, and the error line printed with them."""

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
    """The run was ended by Ctrl-C or SIGTERM.

    Args:
        exit_code: :data:`INTERRUPTED` or :data:`TERMINATED`.
    """

    def __init__(self, exit_code: int):
        super().__init__()
        self.exit_code = exit_code


class IncompleteRunError(Exception):
    """Some of the inputs failed; the others are done.

    Args:
        failures: error messages of one line.
    """

    def __init__(self, failures: Sequence[str]):
        super().__init__()
        self.failures = failures


def guarded(action: Callable[[], None], debug: bool) -> int:
    """Run a function and return the exit code; print an error as one line to standard error.

    Args:
        action: the function.
        debug: print the traceback as well.
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
    except BrokenPipeError:  # the reader of the output has closed it
        sys.stderr.close()
        return OK
    except OSError as error:
        return _failed(f"the run failed: {_os_failure(error)} (--debug shows more)", FAILED, debug)
    except (RuntimeError, MemoryError, ValueError) as error:
        return _failed(f"the run failed: {_line(error)} (--debug shows more)", FAILED, debug)
    except Exception as error:
        line = explain(error)
        if line is not None:
            return _failed(line, WRONG_USE, debug)
        traceback.print_exc()
        return FAILED
    return OK


def _os_failure(error: OSError) -> str:
    """Describe an error of the operating system, with its file first."""
    if error.filename is None or not error.strerror:
        return _line(error)
    return f"{error.filename}: {error.strerror}"


def _failed(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"perceiver: {escape_line(line)}", file=sys.stderr)
    return code


def _line(error: BaseException) -> str:
    """Return an error's message in one line; its type if it has none."""
    return " ".join(str(error).split())[:400] or type(error).__name__
