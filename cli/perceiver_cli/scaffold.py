"""``new-plugin``: a package of a plugin that installs, trains and passes its tests unchanged."""

from __future__ import annotations

import argparse
import contextlib
import keyword
import os
import re
import shlex
import shutil
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Self

from perceiver_cli.commands import SUMMARIES
from perceiver_cli.common import COMMON_HELP
from perceiver_cli.listing import Parser
from perceiver_registry import INTERFACE_VERSION, UserError, registry
from perceiver_registry.registry import NOUNS

TEMPLATES = Path(__file__).with_name("templates")
"""Templates of the package's files, with suffix :data:`SUFFIX` and the module's name as :data:`MODULE`."""

SUFFIX, MODULE = ".tmpl", "MODULE"

EXECUTABLE = ".ci/run"

TASK = "reconstruction"
"""Name of the part that ``--task`` adds, in file paths and registered names."""

MAX_NAME_LENGTH = 30
"""Characters of a name: a longer one makes lines that formatters break."""

DESCRIPTION = f"""\
{SUMMARIES["new-plugin"]}: an input adapter, an output
adapter, a data module, tests, a README and a CI script. The package installs, trains on
synthetic signals and passes its tests unchanged; its README lists what to change first. With
--task it also has a task, with loss, metric, queries, output adapter and predictor.

NAME may be my-audio, my_audio or "My Audio": the package and its registered names are then
my-audio, its module my_audio, and its classes MyAudioInputAdapter and so on."""

NEXT = """\
Created {folder}: a plugin that trains on synthetic signals. Its README.md lists what to change first.

  cd {folder}
  pip install -e '.[test]'
  pytest
  perceiver fit --task=classification --model.encoder={name} --data={name}"""


def new_plugin(command: str, argv: Sequence[str]) -> None:
    """Create a plugin's package, and print the next steps.

    Args:
        command: "new-plugin".
        argv: arguments after the subcommand.

    Raises:
        UserError: if the name is invalid or taken, or if the package cannot be written.
    """
    parser = Parser(
        prog=f"perceiver {command}",
        description=DESCRIPTION,
        epilog=COMMON_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="name of the plugin")
    parser.add_argument("--folder", metavar="DIR", help="new or empty folder of the package; default: ./NAME")
    parser.add_argument(
        "--task", action="store_true", help="add a task: reconstruction of signals, which finds unusual ones"
    )
    try:
        options = parser.parse_args(argv)
    except SystemExit:  # --help
        return
    names = Names.of(options.name)
    check_free(names, options.task)
    folder = Path(names.name if options.folder is None else options.folder).expanduser()
    write(folder, render(names, options.task))
    print(NEXT.format(folder=shlex.quote(str(folder)), name=names.name))
    if options.task:
        print(f"  perceiver fit --task={names.name}-{TASK}")


# Names


@dataclass(frozen=True)
class Names:
    """Names of a plugin.

    Attributes:
        name: its distribution, entry point and registered names (``my-audio``).
        module: its module (``my_audio``).
        prefix: prefix of its classes (``MyAudio``).
    """

    name: str
    module: str
    prefix: str

    @classmethod
    def of(cls, written: str) -> Self:
        """Derive the names from ``my-audio``, ``my_audio`` or ``My Audio``.

        Raises:
            UserError: if the name is invalid; the message suggests a valid one.
        """
        words = re.split("[-_. ]+", written)
        if not all(re.fullmatch("[A-Za-z0-9]+", word) for word in words):
            raise _unfit(written, "must consist of ASCII letters and digits, in words joined by hyphens")
        if not written[0].isalpha():
            raise _unfit(written, "must begin with a letter")
        if len(written) > MAX_NAME_LENGTH:
            raise _unfit(written, f"must have at most {MAX_NAME_LENGTH} characters")
        names = cls(
            name="-".join(words).lower(),
            module="_".join(words).lower(),
            prefix="".join(word[0].upper() + word[1:] for word in words),  # keeps capitals: EEG, not Eeg
        )
        if keyword.iskeyword(names.module):
            raise _unfit(written, "must not be a Python keyword")
        return names


def check_free(names: Names, task: bool = False) -> None:
    """Check that no installed package, plugin or registered object has one of the names.

    Args:
        names: the names of the plugin.
        task: the plugin has a task as well.

    Raises:
        UserError: if a name is taken; the message names its owner.
    """
    owner = next(_owners(names, task), None)
    if owner is not None:
        raise _unfit(names.name, f"already the name of {owner}")


def _owners(names: Names, task: bool) -> Iterator[str]:
    """Yield descriptions of the owners of the names."""
    registered = {names.name, f"{names.name}-{TASK}"} if task else {names.name}
    if names.name == "perceiver":  # its data module would have the name of its base class
        yield "this project"
    for loaded in registry().plugins:
        if loaded.plugin.name in registered:
            yield f"the {loaded.plugin}"
        yield from (
            f"the {NOUNS[spec.kind]} of the {loaded.plugin}" for spec in loaded.specs if spec.name in registered
        )
    with contextlib.suppress(PackageNotFoundError):
        yield f"the installed package {names.name} {distribution(names.name).version}"
    if _is_importable(names.module):
        yield f"the installed module {names.module}"


def _is_importable(module: str) -> bool:
    spec = find_spec(module)
    if spec is None:
        return False
    # A folder in the current one without __init__.py counts as a namespace package as well.
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    return spec.origin is not None or Path.cwd() / module not in folders


def _unfit(written: str, reason: str) -> UserError:
    return UserError(f"NAME {written!r}: {reason} (example: {_valid_name(written)!r})")


def _valid_name(written: str) -> str:
    """Return a valid name similar to an invalid one."""
    plain = unicodedata.normalize("NFKD", written).encode("ascii", "ignore").decode().lower()
    name = "-".join(re.findall("[a-z0-9]+", plain))
    if not name[:1].isalpha() or name == written.lower() or _is_taken(name):
        name = f"my-{name or 'signals'}"
    return name[:MAX_NAME_LENGTH].rstrip("-")


def _is_taken(name: str) -> bool:
    return next(_owners(Names(name, name.replace("-", "_"), prefix=""), task=False), None) is not None


# Files


def render(names: Names, task: bool = False) -> dict[str, str]:
    """Render the files of a plugin's package.

    Args:
        names: the names of the plugin.
        task: add a task of its own.

    Returns:
        Contents by path.
    """
    values = {
        "name": names.name,
        "module": names.module,
        "Prefix": names.prefix,
        "interface": INTERFACE_VERSION,
        "zoo": version("perceiver-zoo"),
        "task_entry_point": f'\n{names.name}-{TASK} = "{names.module}.{TASK}.plugin"' if task else "",
    }
    files = {}
    for template in sorted(TEMPLATES.rglob(f"*{SUFFIX}")):
        path = template.relative_to(TEMPLATES).as_posix().removesuffix(SUFFIX)
        if TASK in path and not task:
            continue
        path = path.replace(MODULE, names.module)
        files[path] = Template(template.read_text(encoding="utf-8")).substitute(values)
    return files


def write(folder: Path, contents: Mapping[str, str]) -> None:
    """Write all files of a package, or none.

    Args:
        folder: new or empty folder.
        contents: contents by path in the folder.

    Raises:
        UserError: if the folder is not empty, or if it cannot be written.
    """
    try:
        existed = folder.is_dir()
        if folder.exists() and (not existed or any(folder.iterdir())):
            raise UserError(f"--folder={folder}: already exists (give a new or empty folder)")
        # Keep an existing folder: it may be a shell's current folder, or on another file system.
        draft = (folder if existed else folder.absolute().parent) / f".new-plugin-{os.getpid()}"
        draft.mkdir()
        try:
            _write_files(draft, contents)
            if existed:
                for path in [*draft.iterdir()]:
                    path.rename(folder / path.name)
                draft.rmdir()
            else:
                draft.rename(folder)
        except BaseException:
            for path in [*folder.iterdir()] if existed else [draft]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise
    except OSError as error:
        raise UserError(f"--folder={folder}: cannot be written: {error.strerror}") from error


def _write_files(folder: Path, contents: Mapping[str, str]) -> None:
    for name, text in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        if name == EXECUTABLE:
            path.chmod(path.stat().st_mode | 0o111)
