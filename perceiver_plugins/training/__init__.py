"""Deprecated: the modules of this package are in :mod:`perceiver_plugins.sdk`; it goes with the next release."""
