"""Standard MIDI files written byte by byte, independently of the code under test."""

from __future__ import annotations

import struct


def number(value: int) -> bytes:
    digits = [value & 127]
    while value := value >> 7:
        digits.append(value & 127 | 128)
    return bytes(reversed(digits))


def on(pitch: int, velocity: int = 64, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 0])


def tempo(microseconds: int) -> bytes:
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


def track(*events: tuple[int, bytes]) -> bytes:
    """Track chunk of (delta, message)."""
    data = b"".join(number(delta) + message for delta, message in events) + b"\x00\xff\x2f\x00"
    return struct.pack(">4sI", b"MTrk", len(data)) + data


def file(*tracks: bytes, division: int = 480, kind: int = 1, count: int | None = None) -> bytes:
    count = len(tracks) if count is None else count
    return struct.pack(">4sIHHH", b"MThd", 6, kind, count, division) + b"".join(tracks)


def random_file(
    rng, num_tracks: int = 3, num_notes: int = 200, division: int = 480, num_tempi: int = 9
) -> tuple[bytes, list]:
    """Random file with tempo changes, overlaps, unisons and drums, and its notes (on tick, off tick, pitch, velocity,
    channel). Notes of the same track, channel and pitch do not overlap, so that releases are unambiguous."""
    tracks, rows = [], []
    for index in range(num_tracks):
        messages, last = [], {}
        for _ in range(num_notes):
            channel = int(rng.choice([index, 9]))
            pitch = int(rng.integers(27, 89) if channel == 9 else rng.integers(0, 128))
            begin = max(int(rng.integers(0, 60000)), last.get((channel, pitch), 0))
            end = begin + int(rng.integers(1, 3000))
            last[channel, pitch] = end
            velocity = int(rng.integers(1, 128))
            messages += [(end, 0, off(pitch, channel)), (begin, 1, on(pitch, velocity, channel))]
            rows.append((begin, end, pitch, velocity, channel))
        if index == 0:
            messages += [(int(rng.integers(0, 50000)), 2, tempo(int(rng.integers(1, 2**20)))) for _ in range(num_tempi)]
        now, events = 0, []
        for tick, _, message in sorted(messages):
            events.append((tick - now, message))
            now = tick
        tracks.append(track(*events))
    return file(*tracks, division=division), rows
