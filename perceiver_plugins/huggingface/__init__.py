"""Conversion between transformers' Perceivers and the zoo's models."""
