"""On a GPU, in bf16-mixed precision: throughput and memory, the share of the matrix rate, and the kernels that ran.

With ``--device=cpu --quick`` the same runs in small on a CPU, in single precision.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.case import HUGGING_FACE, KRASSERM, MATRIX_RATE, OURS, Case, Comparison, Contender, Job, Options
from benchmarks.cases import flow, image, language_model
from benchmarks.turns import resolve

REPEATS = 10
"""Times that an iteration does its work, so that starting it does not count."""

MAX_BATCH = 1024
FILLED = 0.85
"""Share of the GPU's memory that the largest batch is to take."""

TOLERANCE = 5e-2
"""Tolerance of bfloat16, relative to the largest number."""


def comparisons_of(
    work: str, sizes: Callable[[Options], dict[str, Any]], more: Mapping[str, Any] | None = None
) -> Callable[[Options], list[Comparison]]:
    """Comparisons of all implementations, eager and compiled, at batch 1 and at a batch that fills the GPU.

    Args:
        work: import path of a function that prepares the work, as that of a contender.
        sizes: its arguments that depend on the options.
        more: other arguments of it.
    """

    def comparisons(options: Options) -> list[Comparison]:
        def contender(name: str, compiled: bool, filling: bool) -> Contender:
            arguments = {"implementation": name, "compiled": compiled, **sizes(options), **(more or {})}
            wrapped = {"work": work, "arguments": arguments, "filling": filling}
            return Contender(
                f"{name}, compiled" if compiled else name, f"{__name__}:repeated", wrapped, exact=not filling
            )

        found = []
        for filling, title in ((False, "batch 1"), (True, "a batch that fills the memory")):
            contenders = [
                contender(name, compiled, filling)
                # Compiling takes a CPU long, and is the same for all.
                for compiled in ((False,) if options.quick and filling else (False, True))
                for name in (OURS, HUGGING_FACE, KRASSERM)
                if not (options.quick and compiled and name != OURS)
            ]
            contenders.append(Contender(MATRIX_RATE, f"{__name__}:matrix_rate"))
            found.append(Comparison(tuple(contenders), title, tolerance=TOLERANCE, in_turn=not filling))
        return found

    return comparisons


def repeated(options: Options, work: str, arguments: Mapping[str, Any], filling: bool) -> Job:
    """Some work several times over; with ``filling`` at a batch size that fills the GPU's memory."""
    from benchmarks.products import record

    prepare = resolve(work)
    eager = {**arguments, "compiled": False}
    batch_size = largest_batch(options, prepare, eager) if filling else 1
    # Those of the eager one: what is compiled hides them.
    products = record(prepare(options, **eager, batch_size=batch_size).run)
    free()
    job = prepare(options, **arguments, batch_size=batch_size)
    repeats = 1 if options.quick else REPEATS

    def run() -> Any:
        for _ in range(repeats):
            result = job.run()
        return None if filling else result  # the batches differ

    run()  # compiles
    if options.device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    gflop = repeats * sum(product.flop * count for product, count in products.items()) / 1e9
    return Job(run, {**job.facts, "batch_size": batch_size, "samples": repeats * batch_size, "gflop": gflop})


def largest_batch(options: Options, prepare: Callable[..., Job], arguments: Mapping[str, Any]) -> int:
    """A batch size that fills the GPU's memory, extrapolated from what small batches take."""
    import torch

    if options.device != "cuda":
        return 2
    taken = []
    small = (2, 4)
    for batch_size in small:
        job = prepare(options, **arguments, batch_size=batch_size)
        job.run()
        free()  # what only starting takes
        torch.cuda.reset_peak_memory_stats()
        job.run()
        taken.append(torch.cuda.max_memory_allocated())
        del job
        free()
    for_each = (taken[1] - taken[0]) / (small[1] - small[0])
    total = torch.cuda.get_device_properties(0).total_memory
    largest = small[0] + int((FILLED * total - taken[0]) / max(for_each, 1.0))
    largest = max(1, min(largest, MAX_BATCH))
    return largest // 8 * 8 or largest


def free() -> None:
    """Gives memory back that nothing refers to any more."""
    import torch

    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def matrix_rate(options: Options) -> Job:
    """Products of large matrices, in bfloat16 on a GPU: what it can do at best."""
    import torch

    size = 8192 if options.device == "cuda" else 256
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    x, y = (torch.randn(size, size, device=options.device, dtype=dtype) for _ in range(2))
    output = torch.empty_like(x)

    def run() -> None:
        for _ in range(REPEATS):
            torch.mm(x, y, out=output)

    run()
    return Job(run, {"gflop": REPEATS * 2 * size**3 / 1e9})


def kernels(options: Options) -> list[dict[str, Any]]:
    """For each attention of the official models, the kernels that take most of its time."""
    import torch

    from benchmarks.cases.attention import OFFICIAL, chosen_way, shapes_of
    from perceiver_core import MultiHeadAttention

    rows = []
    for model in list(OFFICIAL)[:1] if options.quick else OFFICIAL:
        for layer, shape in shapes_of(model, options):
            attention = MultiHeadAttention(**shape.arguments).to(options.device)
            queries, inputs = (torch.randn(each, device=options.device) for each in (shape.queries, shape.inputs))

            def forward(attention: Any = attention, queries: Any = queries, inputs: Any = inputs) -> None:
                with torch.inference_mode(), language_model.mixed_precision(options):
                    attention(queries, inputs)

            def backward(attention: Any = attention, queries: Any = queries, inputs: Any = inputs) -> None:
                with language_model.mixed_precision(options):
                    output, _ = attention(queries, inputs)
                output.sum().backward()

            with language_model.mixed_precision(options):
                path, absorbed = chosen_way(attention, queries, inputs)
            for name, work in (("forward", forward), ("forward and backward", backward)):
                shares = kernel_shares(work, options)
                rows.append(
                    {
                        "model": model,
                        "attention": layer,
                        "work": name,
                        "path": path,
                        "absorbed": absorbed,
                        "kernels": [f"{kernel[:80]} ({share:.0%})" for kernel, share in shares[:4]],
                    }
                )
    return rows


def kernel_shares(work: Callable[[], Any], options: Options) -> list[tuple[str, float]]:
    """Names of the kernels that ran (on a CPU: of torch's operators) and their shares of the time, longest first."""
    from benchmarks.profiling import profile

    work()
    events = profile(work, options)
    total = sum(event.seconds for event in events) or 1.0
    return [(event.name, event.seconds / total) for event in events]


CASES = [
    Case(
        "gpu-language-model-train",
        "GPU: language model, training step",
        "The language model of the Perceiver IO paper, 2048 bytes a sample, AdamW fused for all, bf16-mixed. "
        "Eager, and compiled: here with `--model.compile=true`, the peers' by `torch.compile`.",
        comparisons_of("benchmarks.cases.language_model:train", language_model.sizes, {"fused": True}),
        device="cuda",
    ),
    Case(
        "gpu-language-model-forward",
        "GPU: language model, forward",
        "The same, prediction of all positions.",
        comparisons_of("benchmarks.cases.language_model:forward", language_model.sizes),
        device="cuda",
    ),
    Case(
        "gpu-image-train",
        "GPU: image classifier, training step",
        "The ImageNet classifier on pixels with Fourier positions, 224x224, AdamW fused for all, bf16-mixed.",
        comparisons_of("benchmarks.cases.image:train", image.sizes),
        device="cuda",
    ),
    Case(
        "gpu-image-forward",
        "GPU: image classifier, forward",
        "The same, prediction.",
        comparisons_of("benchmarks.cases.image:forward", image.sizes),
        device="cuda",
    ),
    Case(
        "gpu-optical-flow",
        "GPU: optical flow, forward",
        "The optical flow model on pairs of frames of 368x496 pixels, bf16-mixed.",
        comparisons_of("benchmarks.cases.flow:forward", flow.sizes),
        device="cuda",
    ),
    Case(
        "gpu-kernels",
        "GPU: kernels of attention",
        "Which kernels took most of the time of each attention of the official models, for one example in bf16-mixed.",
        rows=lambda options: [Contender("", f"{__name__}:kernels")],
        device="cuda",
        memory=False,
        picture=None,
    ),
]
