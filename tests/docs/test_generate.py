"""Functions that generate the pages of the documentation site."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("mkdocs", reason="needs the extra docs")

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "docs/speed.md#compiled-layers", "speed.md#compiled-layers"),
        ("index.md", "CONTRIBUTING.md", "contributing.md"),
        ("speed.md", "../benchmarks/RESULTS.md", "results/benchmarks.md"),
        ("speed.md", "training.md", "training.md"),
        ("index.md", "recipes/mnist.yaml", "https://host/zoo/blob/main/recipes/mnist.yaml"),
        (
            "plugins.md",
            "../examples/perceiver-spectrogram",
            "https://host/zoo/tree/main/examples/perceiver-spectrogram",
        ),
        ("results/benchmarks.md", "results/int8.png", "results/int8.png"),
        ("index.md", "https://arxiv.org/", "https://arxiv.org/"),
        ("index.md", "#installation", "#installation"),
    ],
)
def test_links_lead_to_pages_or_the_repository(generate, page, link, expected):
    assert generate.rewrite_links(f"see [it]({link}).", page, "https://host/zoo/") == f"see [it]({expected})."


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ("Optional[Literal['a', 'b']]", "Literal['a', 'b'] | None"),
        ("Union[str, list[str], None]", "str | list[str] | None"),
        ("dict[str, Any]", "dict[str, Any]"),
        ("not a type", "not a type"),
    ],
)
def test_types_are_unions_with_bars(generate, annotation, expected):
    assert generate.plain_type(annotation) == expected


def test_cells_escape_markdown_but_keep_code(generate):
    assert generate.plain("a|b *c* ``d|e``") == "a&#124;b &#42;c&#42; <code>d&#124;e</code>"


def test_docstrings_become_markdown(generate):
    assert (
        generate.to_markdown("A :class:`~a.b.Name` of :func:`c.d`::\n\n    code\n")
        == "A `Name` of `c.d`:\n\n    code\n"
    )
    table = "======  ====\nletter  name\n======  ====\nb, m    two\n======  ===="
    assert generate.to_markdown(table) == "| letter | name |\n| --- | --- |\n| b, m | two |"
