"""Data modules of music."""
