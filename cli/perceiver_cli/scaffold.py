"""``new-plugin``: makes the package of a plugin that installs, trains and passes its own tests as it is."""

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
"""The package's files, which end in :data:`SUFFIX` here; in paths, :data:`MODULE` stands for its module."""

SUFFIX, MODULE = ".tmpl", "MODULE"

EXECUTABLE = ".ci/run"

TASK = "reconstruction"
"""Part of the package that ``--task`` adds: in the paths of its files and in the names that it registers."""

LONGEST = 30
"""Characters of a name: with more, lines of the package would be longer than formatters leave them."""

DESCRIPTION = f"""\
{SUMMARIES["new-plugin"]}: an input adapter, an output adapter, a data module, tests, a README
and a CI script. It installs, trains and passes its own tests as it is, on made-up signals; its
README says what to change first. With --task, there is a task of its own as well, with its
loss, metric, queries, output adapter and predictor.

NAME may be written my-audio, my_audio or "My Audio": the package and what it registers are then
called my-audio, its module my_audio, and its classes MyAudioInputAdapter and so on."""

NEXT = """\
Made {folder}: a plugin that trains on made-up signals as it is. What to change first stands in its README.md.

  cd {folder}
  pip install -e '.[test]'
  pytest
  perceiver fit --task=classification --model.encoder={name} --data={name}"""


def new_plugin(command: str, argv: Sequence[str]) -> None:
    """Makes a plugin's package, and says what to do with it.

    Args:
        command: the subcommand's name.
        argv: what follows it on the command line.

    Raises:
        UserError: if the name will not do or is taken, or if the package cannot be written where it shall be.
    """
    parser = Parser(
        prog=f"perceiver {command}",
        description=DESCRIPTION,
        epilog=COMMON_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="what the plugin is called")
    parser.add_argument("--folder", metavar="DIR", help="where it is made: a new or empty folder (./NAME)")
    parser.add_argument("--task", action="store_true", help="add a task: it reconstructs signals, to find unusual ones")
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
    """What a plugin is called.

    Attributes:
        name: its distribution, its entry point, and all that it registers (``my-audio``).
        module: its module (``my_audio``).
        prefix: what the names of its classes begin with (``MyAudio``).
    """

    name: str
    module: str
    prefix: str

    @classmethod
    def of(cls, written: str) -> Self:
        """The names that a person means who writes ``my-audio``, ``my_audio`` or ``My Audio``.

        Raises:
            UserError: if no plugin can be called so; the message says what would be right.
        """
        words = re.split("[-_. ]+", written)
        if not all(re.fullmatch("[A-Za-z0-9]+", word) for word in words):
            raise _unfit(written, "a name is made of ASCII letters and digits, in words joined by hyphens")
        if not written[0].isalpha():
            raise _unfit(written, "a name begins with a letter")
        if len(written) > LONGEST:
            raise _unfit(written, f"a name has {LONGEST} characters at most")
        names = cls(
            name="-".join(words).lower(),
            module="_".join(words).lower(),
            prefix="".join(word[0].upper() + word[1:] for word in words),  # capitals stay: EEG, not Eeg
        )
        if keyword.iskeyword(names.module):
            raise _unfit(written, "a keyword of Python is no name")
        return names


def check_free(names: Names, task: bool = False) -> None:
    """Check that nothing that is installed has one of the names.

    Args:
        names: the names of the plugin.
        task: whether it has a task as well.

    Raises:
        UserError: if something has; the message says what.
    """
    owner = next(_owners(names, task), None)
    if owner is not None:
        raise _unfit(names.name, f"this is the name of {owner} already")


def _owners(names: Names, task: bool) -> Iterator[str]:
    """Yield what has one of the names."""
    registered = {names.name, f"{names.name}-{TASK}"} if task else {names.name}
    if names.name == "perceiver":  # its data module would be called like its base class
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
    # A folder beside which the command is run, but for an __init__.py, is taken for a package as well.
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    return spec.origin is not None or Path.cwd() / module not in folders


def _unfit(written: str, reason: str) -> UserError:
    return UserError(f"NAME {written!r}: {reason}; {_alike(written)!r} would do")


def _alike(written: str) -> str:
    """The name that is nearest to one that will not do."""
    plain = unicodedata.normalize("NFKD", written).encode("ascii", "ignore").decode().lower()
    name = "-".join(re.findall("[a-z0-9]+", plain))
    if not name[:1].isalpha() or name == written.lower():
        name = f"my-{name or 'signals'}"
    return name[:LONGEST].rstrip("-")


# Files


def render(names: Names, task: bool = False) -> dict[str, str]:
    """Render the files of a plugin's package.

    Args:
        names: the names of the plugin.
        task: add a task of its own.

    Returns:
        The files' contents by path.
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
    """Writes all files, or none.

    Args:
        folder: where to; it is made, or there and empty.
        contents: the files' contents, by path in the folder.

    Raises:
        UserError: if there is something at ``folder``, or if nothing can be written there.
    """
    try:
        existed = folder.is_dir()
        if folder.exists() and (not existed or any(folder.iterdir())):
            raise UserError(f"--folder={folder}: there is something already; a new or empty folder is expected")
        # Within an empty folder, not in its place: a person may stand in it, or it may be another file system.
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
