"""The example of the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path


def test_example_of_the_guide_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "music.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert {path.name for path in tmp_path.iterdir()} == {"round.mid", "round.wav", "round.png"}
