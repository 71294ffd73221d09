"""Integration with transformers: conversion of its Perceivers, Auto classes and pipelines for the zoo's models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
