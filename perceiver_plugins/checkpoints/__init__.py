"""Formats of the zoo (checkpoints, safetensors), and random data for any model."""
