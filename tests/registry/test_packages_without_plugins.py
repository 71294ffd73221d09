"""Detection of installed packages that require this project but register no plugin."""

from __future__ import annotations

import sys

import pytest

from perceiver_cli.main import main
from perceiver_registry.discovery import find_packages_without_plugins

PACKAGES = {
    "acme-forgetful": (["torch>=2", "Perceiver_Zoo[onnx] >=0.1; python_version>='3.11'"], ""),
    "acme-pinned": (["perceiver.zoo==0.1"], "[console_scripts]\nacme = acme:main\n"),
    "acme-plugin": (["perceiver-zoo"], "[perceiver]\nacme = acme.plugin\n"),
    "acme-optional": (["perceiver-zoo; extra == 'models'"], ""),
    "acme-alike": (["perceiver-zoology", "perceiver"], ""),
    "acme-alone": ([], ""),
}
FORGETFUL = ["acme-forgetful", "acme-pinned"]


@pytest.fixture
def _installed(tmp_path, monkeypatch):
    for name, (requires, entry_points) in PACKAGES.items():
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {r}" for r in requires)]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        (folder / "entry_points.txt").write_text(entry_points)
    (tmp_path / "broken-1.0.dist-info").mkdir()
    (tmp_path / "broken-1.0.dist-info" / "METADATA").write_bytes(b"\xff\xfe")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])


@pytest.mark.usefixtures("_installed")
def test_packages_without_plugins_are_found():
    assert find_packages_without_plugins() == FORGETFUL


def test_test_environment_has_no_such_packages():
    assert find_packages_without_plugins() == []


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(("pattern", "named"), [([], FORGETFUL), (["*pinned"], ["acme-pinned"]), (["text"], [])])
def test_command_lists_them_on_standard_error(pattern, named, capsys):
    assert main(["plugins", *pattern]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "registers nothing" in line]
    assert [line.split()[1] for line in lines] == named
    assert all(line.startswith("perceiver: acme-") and "[project.entry-points.perceiver]" in line for line in lines)
