"""Virtual environments into which tests install packages with pip."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import runpy
import site
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_all_start_methods, get_context, set_start_method
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """Exit code and output of a process."""

    code: int
    out: str
    err: str


FORKS = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
"""Context of processes that are forked from a server, which has imported what takes seconds: only other libraries, so
that the processes import this project from their own environment."""

FORKS.set_forkserver_preload(["pytorch_lightning", "datasets", "sklearn.datasets"])


def import_command(cwd: Path, variables: Mapping[str, str], packages: Path) -> Callable[[list[str]], int]:
    """Import the command in a fork of the server, and return its function.

    Args:
        cwd: working directory.
        variables: environment variables.
        packages: folder of packages that are imported before all others.
    """
    import torch

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    sys.path.insert(0, str(packages))
    sys.argv[1:] = []
    torch.set_num_threads(1)  # as in the tests' own process, so that sums are bit-equal
    if "fork" in get_all_start_methods():  # workers of a killed run end with it only if they are its children
        set_start_method("fork", force=True)
    from perceiver_cli.main import main

    return main


def run_command(cwd: Path, variables: Mapping[str, str], packages: Path, argv: list[str]) -> None:
    """Run a command in a fork of the server, which exits with its code."""
    sys.exit(import_command(cwd, variables, packages)(argv))


def run_commands(
    cwd: Path, variables: Mapping[str, str], packages: Path, code: str, commands: Mapping[str, list[str]]
) -> dict[str, Result]:
    """Run code and commands in a fork of the server, and return their results by name."""
    main = import_command(cwd, variables, packages)
    runs: dict[str, Callable[[], Any]] = {"code": partial(exec, code, {})}
    runs |= {name: partial(main, argv) for name, argv in commands.items()}
    results = {}
    for name, run in runs.items():
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            result = run()
        results[name] = Result(result, out.getvalue(), err.getvalue())
    return results


def run_module(cwd: Path, variables: Mapping[str, str], output: Path, argv: list[str]) -> float:
    """Run a module like ``python -m`` in a fork of the server, and return its CPU seconds.

    Args:
        cwd: working directory.
        variables: further environment variables.
        output: file of both standard streams.
        argv: name of the module, and its arguments.
    """
    import torch

    os.chdir(cwd)
    os.environ.update(variables)
    torch.set_num_threads(1)
    sys.argv = [*argv]
    with output.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            if end.code:
                raise
    return time.process_time()


def run_code(code: str, **variables: str) -> str:
    """Run Python code in a fork of the server, with further environment variables, and return its standard output."""
    with ProcessPoolExecutor(1, mp_context=FORKS) as executor:
        return executor.submit(execute, code, variables).result(timeout=600)


def execute(code: str, variables: Mapping[str, str]) -> str:
    """Run Python code in this process, and return its standard output."""
    os.environ.update(variables)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    return out.getvalue()


class FreshEnvironment:
    """A new virtual environment that sees what is installed beside the tests, and what is installed into it.

    Args:
        folder: where it is made.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=True)
        self.executable = folder / "bin" / "python"
        self.packages = next((folder / "lib").glob("python*/site-packages"))
        # The packages beside the tests come last on the path, those that are installed here before them.
        lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
        (self.packages / "beside_the_tests.pth").write_text("\n".join(lines) + "\n")

    def install(self, *sources: Path) -> None:
        """Installs wheels, or folders of projects, with pip, without what they depend on."""
        options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
        self._pip("install", *options, *map(str, sources))

    def uninstall(self, *names: str) -> None:
        """Takes distributions away."""
        self._pip("uninstall", "--yes", "--quiet", *names)

    def _pip(self, *argv: str) -> None:
        result = self._run(sys.executable, "-m", "pip", "--python", str(self.executable), *argv)
        assert result.code == 0, result.err

    def perceiver(self, *argv: str, cwd: Path | None = None, **variables: str) -> Result:
        """Runs the command in this environment."""
        return self._run(str(self.executable), "-m", "perceiver_cli", *argv, cwd=cwd, **variables)

    def commands(self, commands: Mapping[str, list[str]], cwd: Path | None = None, code: str = "") -> dict[str, Result]:
        """Runs several commands in one process, which has imported torch and Lightning before.

        Args:
            commands: their arguments, by any names; the results are returned by the same.
            cwd: the folder to run in.
            code: Python code that is run before, as if it were the command ``"code"``.
        """
        with ProcessPoolExecutor(1, mp_context=FORKS) as executor:
            arguments = (cwd or self.folder, self._variables(), self.packages, code, commands)
            return executor.submit(run_commands, *arguments).result(timeout=600)

    def python(self, *argv: str, cwd: Path | None = None, **variables: str) -> Result:
        """Runs this environment's Python."""
        return self._run(str(self.executable), *argv, cwd=cwd, **variables)

    def _run(self, *command: str, cwd: Path | None = None, **variables: str) -> Result:
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self._variables() | variables,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=600,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def _variables(self) -> dict[str, str]:
        """Return the environment variables of the environment's processes."""
        return {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "PYTHONPATH"))}


def write_wheel(
    folder: Path, name: str, files: Mapping[str, str], plugins: Mapping[str, str] | None = None, version: str = "1.0"
) -> Path:
    """Writes a wheel that pip installs.

    Args:
        folder: where to.
        name: name of the distribution.
        files: contents by path in site-packages.
        plugins: its entry points in the group ``perceiver``: modules by name.
        version: version of the distribution.
    """
    normal = name.replace("-", "_")
    info = f"{normal}-{version}.dist-info"
    points = "\n".join(["[perceiver]", *(f"{key} = {module}" for key, module in (plugins or {}).items())])
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points + "\n",
    }
    records = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        for path, text in contents.items()
    ]
    path = folder / f"{normal}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for inner, text in contents.items():
            wheel.writestr(inner, text)
        wheel.writestr(f"{info}/RECORD", "\n".join([*records, f"{info}/RECORD,,"]) + "\n")
    return path
