"""MkDocs hook that generates pages from the registry, docstrings and files of results.

The flag reference is that of ``perceiver list-*`` and ``perceiver describe``; the API reference lists the public names
of each module; the zoo's tables come from the named models and ``recipes/results.yaml``; the plugin directory comes
from ``docs/plugins.yaml``. The home page is README.md.
"""

from __future__ import annotations

import ast
import contextlib
import html
import importlib
import inspect
import io
import json
import posixpath
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from perceiver_cli.main import main

sys.path.insert(0, str(Path(__file__).parent))
from griffe_extension import to_markdown

ROOT = Path(__file__).parents[1]

COPIES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "recipes/RESULTS.md": "results/recipes.md",
    "benchmarks/RESULTS.md": "results/benchmarks.md",
}
"""Pages of the site by their files in the repository."""

HOME_OPTIONS = "---\nhide: [navigation]\n---\n\n"

API_MODULES = (
    "perceiver_core",
    "perceiver_zoo",
    "perceiver_registry",
    "perceiver_registry.testing",
    "perceiver_plugins.sdk",
    "perceiver_plugins.sdk.data",
    "perceiver_plugins.sdk.prediction",
    "perceiver_plugins.sdk.tasks",
)
"""Modules whose public names are documented. docs/interface.md promises those that plugins use."""

COMMANDS = ("fit", "validate", "test", "predict", "embed", "convert", "export", "describe", "new-plugin", "completion")

LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
"""A Markdown link to a file: opening, path and anchor."""

MARKDOWN_SPECIAL = re.compile(r"(`+.+?`+)|([*_<\[\]|])")
"""Code, and characters that mean something in Markdown outside of code."""


# Events of MkDocs


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages and the copied ones."""
    for source, page in COPIES.items():
        content = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=HOME_OPTIONS + content if page == "index.md" else content))
    for picture in sorted((ROOT / "benchmarks" / "results").glob("*.png")):
        files.append(File.generated(config, f"results/results/{picture.name}", abs_src_path=str(picture)))
    for page, content in generate_pages().items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in generated tables and point links at pages of the site or files of the repository."""
    if page.file.src_uri == "plugins.md":
        markdown = markdown.replace("<!-- plugin directory -->", plugin_directory())
    return rewrite_links(markdown, page.file.src_uri, str(config.repo_url))


def rewrite_links(markdown: str, page: str, repository: str) -> str:
    """Point relative links between files of the repository at pages of the site, or else at the repository.

    Args:
        markdown: text of the page.
        page: path of the page within the site.
        repository: URL of the repository.
    """
    sources = {target: source for source, target in COPIES.items()}
    source = sources.get(page, f"docs/{page}")

    def rewrite(link: re.Match[str]) -> str:
        opening, path, anchor = link[1], link[2], link[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if target in COPIES:
            return f"{opening}{posixpath.relpath(COPIES[target], posixpath.dirname(page) or '.')}{anchor}"
        if target.startswith("docs/") and target.endswith(".md"):
            return f"{opening}{posixpath.relpath(target.removeprefix('docs/'), posixpath.dirname(page) or '.')}{anchor}"
        if (ROOT / target).exists() and not target.endswith(".png"):
            kind = "tree" if (ROOT / target).is_dir() else "blob"
            return f"{opening}{repository.rstrip('/')}/{kind}/main/{target}{anchor}"
        return link[0]

    return LINK.sub(rewrite, markdown)


# Pages


def generate_pages() -> dict[str, str]:
    """Generate the text of all generated pages, by path."""
    reference = {
        "tasks": ("Tasks", "list-tasks", "task", lambda fact: "--task."),
        "inputs": ("Input adapters", "list-adapters", "input", lambda fact: "--model.encoder."),
        "outputs": ("Output adapters", "list-adapters", "output", lambda fact: "--model.decoder."),
        "architectures": ("Architectures", "list-architectures", "architecture", lambda fact: "--model."),
        "data": ("Data modules", "list-data", "data", lambda fact: "--data."),
        "models": ("Models", "list-models", "model", lambda fact: "--model."),
        "formats": ("Formats", "list-formats", "format", lambda fact: ""),
    }
    pages = {f"reference/{page}.md": reference_page(*arguments) for page, arguments in reference.items()}
    pages["reference/commands.md"] = commands_page()
    pages["reference/index.md"] = reference_index(reference)
    pages["zoo.md"] = zoo_page()
    return pages | {f"reference/api/{module}.md": api_page(module) for module in API_MODULES}


def run(*arguments: str) -> str:
    """Run ``perceiver`` and return its standard output."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main(list(arguments))
    if code != 0:
        raise RuntimeError(f"perceiver {' '.join(arguments)}: exit code {code}")
    return output.getvalue()


def list_entries(command: str, kind: str) -> list[dict[str, Any]]:
    """List the installed entries of a kind."""
    return [entry for entry in json.loads(run(command, "--format=json")) if entry["kind"] == kind]


def reference_index(reference: Mapping[str, Sequence[Any]]) -> str:
    """Generate the start page of the reference."""
    lists = {title: (page, command) for page, (title, command, *_) in reference.items()}
    rows = [[f"[{title}]({page}.md)", f"`perceiver {command}`"] for title, (page, command) in lists.items()]
    modules = [[f"[`{module}`](api/{module}.md)", summary_of(module)] for module in API_MODULES]
    return "\n\n".join(
        (
            "# Reference",
            "All pages of the reference are generated from the registry and from docstrings. The commands print the "
            "same for what is installed, plugins included; `perceiver describe NAME` prints one entry.",
            table(("page", "command"), rows),
            "[Commands](commands.md) lists the options of each command.",
            "## API",
            table(("module", "contents"), modules),
        )
    )


def reference_page(title: str, command: str, kind: str, prefix: Callable[[Any], str]) -> str:
    """Generate the reference of all entries of a kind: their options with type, default and meaning."""
    entries = list_entries(command, kind)
    summary = [[f"[`{entry['name']}`](#{entry['name']})", plain(entry["summary"])] for entry in entries]
    sections = [f"# {title}", f"`perceiver {command}` lists them.", table(("name", "summary"), summary)]
    for entry in entries:
        (described,) = json.loads(run("describe", entry["name"], f"--kind={kind}", "--format=json"))
        sections += entry_section(described, prefix(entry))
    return "\n\n".join(sections)


def entry_section(entry: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Generate the section of one entry."""
    yield f"## {entry['name']} {{ #{entry['name']} }}"
    yield f"{capitalise(plain(entry['summary']))}."
    details = {key: value for key, value in entry["details"].items() if not isinstance(value, dict)}
    yield "\n".join(f"- {key.replace('_', ' ')}: {detail(key, value)}" for key, value in details.items())
    for key, values in entry["details"].items():
        if isinstance(values, dict):
            lines = "\n".join(f"    {flag}: {value}" for flag, value in values.items())
            yield f'??? note "{capitalise(key)}"\n\n    ```yaml\n{lines}\n    ```'
    for field in entry["fields"]:
        yield (
            f"`{prefix}{field['field']}`&ensp;{code(plain_type(field['type']))}, default {code(field['default'])}\n"
            f":   {capitalise(plain(field['meaning']))}"
        )


def detail(key: str, value: object) -> str:
    """Render a fact about an entry."""
    if isinstance(value, int):
        return f"{value:,}"
    if key in ("inputs", "outputs", "weights"):
        return plain(str(value))
    return ", ".join(code(each) for each in str(value).split(", "))


def commands_page() -> str:
    """Generate the reference of commands from their help."""
    sections = ["# Commands", f"```text\n{run('--help').strip()}\n```"]
    for command in COMMANDS:
        options = ["--task=mlm"] if command == "fit" else []
        shown = " ".join(["perceiver", command, *options, "--help"])
        sections += [f"## {command}", f"`{shown}` prints:", f"```text\n{run(command, *options, '--help').strip()}\n```"]
    return "\n\n".join(sections)


def zoo_page() -> str:
    """Generate the tables of named models and of recipes with their results."""
    models = [
        [
            f"[`{model['name']}`](reference/models.md#{model['name']})",
            plain(model["summary"]),
            model["tasks"],
            f"{model['parameters']:,}",
            f"`{model['weights']}`" if model["weights"] else "",
        ]
        for model in list_entries("list-models", "model")
    ]
    results = yaml.safe_load((ROOT / "recipes" / "results.yaml").read_text(encoding="utf-8"))
    rows = [
        [plain(row["data"]), f"`{row['command']}`", row["parameters"], f"{plain(row['metric'])} {row['value']}"]
        for row in results["results"]
    ]
    return "\n\n".join(
        (
            "# Model zoo",
            "A named model is a complete configuration: `perceiver fit --task=TASK --model=NAME` trains it, "
            "`--model.params=ID` starts from its published weights, and "
            '`perceiver_registry.create_model("NAME")` builds it in Python.',
            table(("name", "summary", "task", "parameters", "weights"), models),
            "## Results",
            f"Measured with {plain(results['machine'])}. [Recipes](results/recipes.md) has the whole record, "
            "[Benchmarks](results/benchmarks.md) compares speed and memory with other implementations.",
            table(("data", "command", "parameters", "result"), rows),
        )
    )


def api_page(name: str) -> str:
    """Generate the reference of a module's public names."""
    module = importlib.import_module(name)
    sections = [f"# {name}", to_markdown(inspect.getdoc(module) or "")]
    for public in sorted(module.__all__, key=lambda each: (each.isupper(), each.lower())):
        value = getattr(module, public)
        origin = getattr(value, "__module__", None)
        qualified = getattr(value, "__qualname__", None) == public and str(origin).startswith("perceiver_")
        path = f"{origin}.{public}" if qualified else f"{name}.{public}"
        sections.append(f"::: {path}\n    options:\n      heading: {public}\n      toc_label: {public}")
    return "\n\n".join(sections)


def plugin_directory() -> str:
    """Generate the table of known plugins."""
    plugins = yaml.safe_load((ROOT / "docs" / "plugins.yaml").read_text(encoding="utf-8"))["plugins"]
    rows = [
        [
            f"[{plugin['name']}]({plugin['source']})",
            plain(plugin["summary"]),
            ", ".join(f"`{each}`" for each in plugin["provides"]),
            f"`{plugin['install']}`",
        ]
        for plugin in plugins
    ]
    return table(("plugin", "summary", "provides", "installation"), rows)


# Markdown


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a Markdown table; cells are Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace(chr(10), ' ') for cell in line)} |" for line in lines)


def plain(text: str) -> str:
    """Escape plain text for a cell of a Markdown table; code in backticks stays code."""
    return MARKDOWN_SPECIAL.sub(lambda match: code(match[1].strip("`")) if match[1] else f"&#{ord(match[2])};", text)


def code(text: str) -> str:
    """Render code in a cell of a Markdown table."""
    escaped = re.sub(r"[|*_`]", lambda match: f"&#{ord(match[0])};", html.escape(text, quote=False))
    return f"<code>{escaped}</code>"


def capitalise(text: str) -> str:
    """Make the first letter a capital."""
    return text[:1].upper() + text[1:]


def plain_type(annotation: str) -> str:
    """Write ``Optional`` and ``Union`` with bars.

    >>> plain_type("Union[str, list[str], None]")
    'str | list[str] | None'
    """
    try:
        tree = ast.parse(annotation, mode="eval")
    except SyntaxError:
        return annotation
    return ast.unparse(_Bars().visit(tree))


class _Bars(ast.NodeTransformer):
    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        name = ast.unparse(node.value).removeprefix("typing.")
        if name not in ("Optional", "Union"):
            return node
        members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Optional":
            members = [*members, ast.Constant(None)]
        union = members[0]
        for member in members[1:]:
            union = ast.BinOp(union, ast.BitOr(), member)
        return union


def summary_of(module: str) -> str:
    """Return the first line of a module's docstring."""
    return plain((inspect.getdoc(importlib.import_module(module)) or "").partition("\n")[0].rstrip("."))
