"""Virtual environments into which tests install packages with pip."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import site
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """Exit code and output of a process."""

    code: int
    out: str
    err: str


IN_ONE_PROCESS = """
import contextlib, io, json, sys
from perceiver_cli.main import main

commands, code = json.loads(sys.argv[1]), sys.argv[2]
sys.argv[1:] = []
results = {}
for name, run in {"code": lambda: exec(code, {}), **{n: lambda a=a: main(a) for n, a in commands.items()}}.items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        result = run()
    results[name] = [result, out.getvalue(), err.getvalue()]
print(json.dumps(results))
"""


class FreshEnvironment:
    """A new virtual environment that sees what is installed beside the tests, and what is installed into it.

    Args:
        folder: where it is made.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=True)
        self.executable = folder / "bin" / "python"
        packages = next((folder / "lib").glob("python*/site-packages"))
        # The packages beside the tests come last on the path, those that are installed here before them.
        lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
        (packages / "beside_the_tests.pth").write_text("\n".join(lines) + "\n")

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
        """Runs several commands in one process of this environment, which imports torch once.

        Args:
            commands: their arguments, by any names; the results are returned by the same.
            cwd: the folder to run in.
            code: Python code that is run before, as if it were the command ``"code"``.
        """
        done = self.python("-c", IN_ONE_PROCESS, json.dumps(dict(commands)), code, cwd=cwd)
        assert done.code == 0, done.err
        return {name: Result(*result) for name, result in json.loads(done.out.splitlines()[-1]).items()}

    def python(self, *argv: str, cwd: Path | None = None, **variables: str) -> Result:
        """Runs this environment's Python."""
        return self._run(str(self.executable), *argv, cwd=cwd, **variables)

    def _run(self, *command: str, cwd: Path | None = None, **variables: str) -> Result:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "PYTHONPATH"))}
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=600,
        )
        return Result(done.returncode, done.stdout, done.stderr)


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
