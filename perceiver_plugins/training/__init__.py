"""Deprecated names of modules in :mod:`perceiver_plugins.sdk`; they will be removed in the next release."""
