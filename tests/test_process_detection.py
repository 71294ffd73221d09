"""Detection of functions that start another program."""

from __future__ import annotations

import subprocess
import sys

from process_detection import starts_process


def run_python():
    return subprocess.run([sys.executable, "--version"], check=True)


def call_helper():
    return [run_python() for _ in range(1)]


def call_itself(depth):
    return depth and call_itself(depth - 1)


def test_functions_that_start_a_program_are_found():
    assert starts_process(run_python, {})
    assert starts_process(call_helper, {})


def test_other_functions_are_not():
    assert not starts_process(call_itself, {})
    assert not starts_process(starts_process, {})
    assert not starts_process("text", {})


def test_this_module_is_not_marked(request):
    assert request.node.get_closest_marker("cli") is None
