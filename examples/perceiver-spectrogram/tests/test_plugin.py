"""The plugin keeps the contract of perceiver's plugins."""

import pytest
from perceiver_registry.testing import plugin_checks


@pytest.mark.parametrize("check", plugin_checks("spectrogram"))
def test_the_contract(check):
    check()
