"""The constants of perceiver_core.kernels: which sizes of products and chunks are fast on this CPU.

    python -m benchmarks.kernel_constants            # minutes; writes results/kernel-constants.md

One thread, CPU time, single precision. Change a constant when a table contradicts it on a machine that matters.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import processor, versions
from perceiver_core.kernels import chunked, onednn

RESULTS = Path(__file__).parent / "results" / "kernel-constants.md"
SECONDS = 0.3
"""Seconds of a measurement; arbitrary."""

LINEAR_LAYERS = ((128, 128), (512, 512), (64, 256))
"""Input and output channels."""

ATTENTIONS = {
    "optical flow, among latents": (1, 2048, 2048, 322, 322),
    "language model, inputs to latents": (8, 256, 2048, 32, 160),
    "image classifier, inputs to latents": (1, 512, 12544, 261, 261),
    "small self-attention, 4 heads": (4, 512, 512, 64, 64),
}
"""Heads, queries, keys, query and key channels of a head, value channels of a head."""


def seconds(work: Callable[[], Any]) -> float:
    """CPU time of one run: the median of all that fit."""
    work()
    times: list[float] = []
    end = time.process_time() + SECONDS
    while time.process_time() < end or len(times) < 3:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def table(first: str, columns: Sequence[int], rows: Iterator[tuple[str, list[float]]], constant: int) -> Iterator[str]:
    """Lines of a table in markdown, with the constant's column in bold."""
    names = [f"**{column}**" if column == constant else str(column) for column in columns]
    yield f"| {first} | {' | '.join(names)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, values in rows:
        yield f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |"


def products(exponents: Sequence[int]) -> Iterator[tuple[str, list[float]]]:
    """Time of oneDNN over that of MKL, by the binary logarithm of the multiplications."""
    for c, d in LINEAR_LAYERS:
        ratios = []
        for exponent in exponents:
            x, weight, bias = torch.randn(max(1, 2**exponent // (c * d)), c), torch.randn(d, c), torch.randn(d)
            by_onednn = seconds(lambda: onednn._onednn_linear(x, weight, bias))  # noqa: B023
            ratios.append(by_onednn / seconds(lambda: nn.functional.linear(x, weight, bias)))  # noqa: B023
        yield f"{c} to {d} channels", ratios


def arrays(shape: tuple[int, int, int, int, int]) -> list[Tensor]:
    heads, n, m, k, e = shape
    return [torch.randn(1, heads, *size, requires_grad=True) for size in ((n, k), (m, k), (m, e))]


def chunks(values: Sequence[int], set_constant: Callable[[int], None]) -> Iterator[tuple[str, list[float]]]:
    """Time of a forward and a backward pass over that with the last value."""
    for name, shape in ATTENTIONS.items():
        q, k, v = arrays(shape)
        times = []
        for value in values:
            set_constant(value)
            times.append(seconds(lambda: chunked.chunked_attention(q, k, v, None, 0.0, 0.1).sum().backward()))  # noqa: B023
        yield name, [each / times[-1] for each in times]


def set_scores(exponent: int) -> None:
    chunked.SCORES_PER_CHUNK["cpu"], chunked.MIN_QUERIES_PER_CHUNK = 2**exponent, 1


def set_queries(number: int) -> None:
    chunked.SCORES_PER_CHUNK["cpu"], chunked.MIN_QUERIES_PER_CHUNK = 1, number


def main() -> None:
    torch.set_num_threads(1)
    scores = chunked.SCORES_PER_CHUNK["cpu"].bit_length() - 1
    queries, multiplications = chunked.MIN_QUERIES_PER_CHUNK, onednn.MIN_MULTIPLICATIONS.bit_length() - 1
    lines = [f"{processor()}, torch {versions()['torch']}, one thread, single precision; the constants are bold.", ""]
    if onednn.onednn_is_faster():
        lines += ["**MIN_MULTIPLICATIONS**: time of oneDNN over that of MKL, by log2 of the multiplications", ""]
        exponents = range(18, 28)
        lines += [*table("linear layer", exponents, products(exponents), multiplications), ""]
    lines += ["**SCORES_PER_CHUNK**: time over that of the largest chunk, by log2 of the scores", ""]
    exponents = range(16, 24)
    lines += [*table("attention", exponents, chunks(exponents, set_scores), scores), ""]
    lines += ["**MIN_QUERIES_PER_CHUNK**: time over that of 256 queries", ""]
    numbers = (4, 16, 32, 64, 128, 256)
    lines += table("attention", numbers, chunks(numbers, set_queries), queries)
    RESULTS.write_text("\n".join(lines) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
