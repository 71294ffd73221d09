"""Errors about missing packages, with the extra that installs them."""

from __future__ import annotations

import sys

import pytest

from perceiver_registry import AdapterSpec, PluginError
from perceiver_registry.extras import find_requirement, missing_requirement
from perceiver_registry.plugins import Plugin
from perceiver_registry.registry import Entry

REQUIREMENTS = """\
Requires-Dist: acme_base>=1.0
Provides-Extra: sound
Requires-Dist: acme_wave>=2.0; extra == 'sound'
Requires-Dist: acme_codec; extra == 'sound'
Provides-Extra: wave
Requires-Dist: acme_wave>=2.0; extra == 'wave'
Provides-Extra: all
Requires-Dist: acme_wave>=2.0; extra == 'all'
Requires-Dist: acme_codec; extra == 'all'
Requires-Dist: opencv_python; extra == 'all'
Requires-Dist: acme_windows; extra == 'all' and sys_platform == 'no-such-platform'
"""


@pytest.fixture(autouse=True)
def acme(tmp_path, monkeypatch):
    """Installed distribution with a plugin and missing requirements."""
    monkeypatch.syspath_prepend(tmp_path)
    write_distribution(tmp_path, "acme-plugins", REQUIREMENTS)
    return tmp_path


def write_distribution(folder, name: str, requirements: str) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{requirements}")
    (info / "entry_points.txt").write_text(f"[perceiver]\n{name} = no_such_module_of_acme\n")


@pytest.mark.parametrize(
    ("package", "extras", "requirement"),
    [
        ("acme_wave", (), "acme-plugins[wave]"),  # the extra with the fewest requirements
        ("acme_wave", ("sound",), "acme-plugins[sound]"),
        ("acme_wave", ("no-extra",), "acme-plugins[wave]"),
        ("acme_codec", (), "acme-plugins[sound]"),
        ("acme-codec", (), "acme-plugins[sound]"),
        ("acme_base", (), "acme_base>=1.0"),
        ("cv2", (), "acme-plugins[all]"),  # its distribution is opencv-python
    ],
)
def test_extra_of_a_missing_package(package, extras, requirement):
    assert find_requirement(package, extras=extras).requirement == requirement


@pytest.mark.parametrize("package", ["acme_unknown", "acme_windows"])
def test_packages_without_an_extra(package):
    assert find_requirement(package) is None


def test_requirements_of_the_distribution_that_failed_are_preferred(acme):
    write_distribution(acme, "beta", "Provides-Extra: all\nRequires-Dist: acme_codec; extra == 'all'\n")
    assert find_requirement("acme_codec").requirement == "beta[all]"
    assert find_requirement("acme_codec", "Acme.Plugins").requirement == "acme-plugins[sound]"


def test_damaged_metadata_of_other_distributions_is_skipped(acme):
    write_distribution(acme, "broken", "Requires-Dist: >>> no requirement\n")
    assert find_requirement("acme_codec").requirement == "acme-plugins[sound]"


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'torch.acme'", name="torch.acme"),  # torch itself is installed
        ModuleNotFoundError("No module named 'acme_unknown'", name="acme_unknown"),
        ModuleNotFoundError("acme_wave"),
        ImportError("cannot import name 'x' from 'acme_wave'", name="acme_wave"),
        ValueError("acme_wave"),
    ],
)
def test_other_errors_have_no_missing_requirement(error):
    assert missing_requirement(error) is None


def test_import_path_that_needs_an_extra(acme):
    (acme / "acme_adapters.py").write_text("import acme_wave.reading\n")
    spec = AdapterSpec(
        name="wave", kind="input", adapter="acme_adapters:Wave", config="acme_adapters:C", summary="waves"
    )
    entry = Entry(spec, Plugin("sound", "acme-plugins", "1.0"))
    with pytest.raises(PluginError) as caught:
        entry.resolve("adapter")
    sys.modules.pop("acme_adapters", None)
    assert str(caught.value) == (
        "input adapter 'wave': needs acme-wave, which is not installed (pip install 'acme-plugins[sound]')"
    )
