"""The plugin passes perceiver's plugin checks."""

import pytest
from perceiver_registry.testing import plugin_checks


@pytest.mark.parametrize("check", plugin_checks("spectrogram"))
def test_plugin_check(check):
    check()
