"""Which way attention takes for each shape of the official models, and what each of the ways costs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from benchmarks import memory
from benchmarks.case import Case, Contender, Options

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LAYERS = {
    "encoder.cross_attention_layers.0": "inputs to latents",
    "encoder.self_attention_blocks.0.0": "among latents",
    "decoder.cross_attention_layer": "latents to outputs",
}

ALL, FIRST = list(LAYERS), list(LAYERS)[:1]

OFFICIAL = {
    "language-perceiver": ALL,
    "vision-perceiver-fourier": ALL,
    "vision-perceiver-learned": FIRST,
    "vision-perceiver-conv": FIRST,
    "optical-flow-perceiver": ALL,
    "multimodal-perceiver": ALL,
}
"""The zoo's names, and the layers of each that no model before it has. The text classifier's are known as well."""

SLOW = 0.5
"""Seconds from which on a way is measured once, after the warm-up, and not in all rounds."""


class Shape(NamedTuple):
    """Arguments of a model's ``MultiHeadAttention`` and shapes of its inputs."""

    arguments: dict[str, int]
    queries: tuple[int, ...]
    inputs: tuple[int, ...]


def contenders(options: Options) -> list[Contender]:
    models = list(OFFICIAL)[:1] if options.quick else OFFICIAL
    return [Contender(model, f"{__name__}:measure", {"model": model}) for model in models]


def shapes_of(model_name: str, options: Options) -> Iterator[tuple[str, Shape]]:
    """The attentions of a named model for one example, by what they do. Nothing is computed."""
    import torch

    from perceiver_core import MultiHeadAttention
    from perceiver_registry import create_model

    tiny: dict[str, Any] = {"encoder": {"max_seq_len": 64}, "decoder": {"max_seq_len": 64}} if options.quick else {}
    seen: dict[str, tuple[torch.Size, torch.Size]] = {}
    with torch.device("meta"), torch.no_grad():
        model = create_model(model_name, pretrained=False, **tiny).eval()
        attentions = {
            layer: next(
                module for module in model.get_submodule(layer).modules() if isinstance(module, MultiHeadAttention)
            )
            for layer in OFFICIAL[model_name]
        }
        for layer, attention in attentions.items():
            attention.register_forward_pre_hook(
                lambda _, args, layer=layer: seen.setdefault(layer, (args[0].shape, args[1].shape)) and None
            )
        batch = on_meta(model.input_adapter.example_batch(1, torch.Generator()))
        model(batch)
    for layer, attention in attentions.items():
        arguments = {
            "num_heads": attention.num_heads,
            "num_q_input_channels": attention.q_proj.in_features,
            "num_kv_input_channels": attention.k_proj.in_features,
            "num_qk_channels": attention.q_proj.out_features,
            "num_v_channels": attention.v_proj.out_features,
            "num_output_channels": attention.o_proj.out_features,
        }
        queries, inputs = seen[layer]
        yield LAYERS[layer], Shape(arguments, tuple(queries), tuple(inputs))


def on_meta(value: Any) -> Any:
    """Tensors of the same shapes that hold nothing."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.to("meta")
    return {key: on_meta(each) for key, each in value.items()} if isinstance(value, dict) else value


def measure(options: Options, model: str) -> list[dict[str, Any]]:
    """A row for each attention of a model and each way, all ways taking turns."""
    return [row for layer, shape in shapes_of(model, options) for row in measure_shape(options, model, layer, shape)]


def measure_shape(options: Options, model: str, layer: str, shape: Shape) -> list[dict[str, Any]]:
    """The ways of one attention, of which the one that is taken by itself comes first."""
    import torch

    from perceiver_core import MultiHeadAttention
    from perceiver_core.kernels.override import Absorption, Kernel, force_kernel

    generator = torch.Generator().manual_seed(7)
    attention = MultiHeadAttention(**shape.arguments).eval()
    queries, inputs = (torch.randn(each, generator=generator) for each in (shape.queries, shape.inputs))
    chosen = chosen_way(attention, queries, inputs)
    absorptions = get_args(Absorption) if attention.num_heads == 1 else ("none",)
    ways = [chosen, *(way for way in itertools.product(get_args(Kernel), absorptions) if way != chosen)]
    rows = [
        {
            "model": model,
            "attention": layer,
            "heads": attention.num_heads,
            "queries": shape.queries[1],
            "keys": shape.inputs[1],
            "path": path,
            "absorbed": absorption,
            "chosen": (path, absorption) == chosen,
            "seconds": [],
        }
        for path, absorption in ways
    ]
    with torch.inference_mode():
        for round_, (way, row) in itertools.product(range(options.rounds + 1), zip(ways, rows, strict=True)):
            if len(row["seconds"]) == 1 and row["seconds"][0] > SLOW:
                continue
            with force_kernel(*way):
                seconds, gib = timed(lambda: attention(queries, inputs), options)
            if round_ > 0:
                row["seconds"].append(seconds)
                row["net_gib"] = gib
    return rows


def chosen_way(attention: Any, queries: Tensor, inputs: Tensor) -> tuple[str, str]:
    """The path and the absorption that an attention takes by itself."""
    import torch

    from perceiver_core.kernels import sdpa
    from perceiver_core.kernels.absorbed import Projections, choose_absorption

    paths = []
    choose_kernel = sdpa.choose_kernel

    def noted(*args: Any, **kwargs: Any) -> Any:
        paths.append(choose_kernel(*args, **kwargs))
        return paths[-1]

    sdpa.choose_kernel = noted
    try:
        with torch.inference_mode():
            attention(queries, inputs)
    finally:
        sdpa.choose_kernel = choose_kernel
    if attention.num_heads > 1:
        return paths[0], "none"
    projections = Projections(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    return paths[0], choose_absorption(projections, queries, inputs)


def timed(work: Callable[[], Any], options: Options) -> tuple[float, float]:
    """Seconds that some work takes, and GiB that the process had more at its peak than before."""
    memory.forget_peak()
    before = memory.resident() or 0.0
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    start = clock()
    work()
    seconds = clock() - start
    return seconds, memory.peak() - before


CASES = [
    Case(
        "attention-paths",
        "Ways of attention",
        "What each attention of the official models costs, for one example and without gradients, by each of the "
        'ways that `perceiver_core.kernels` knows; the one that it takes by itself is bold. "fused" is torch\'s '
        'kernel, "plain" the formula with all scores at once, "chunked" the formula for some queries at a time; '
        "what is absorbed are projections of the inputs or of the queries, which is possible with one head.",
        rows=contenders,
        picture=None,
        device="cpu",
    )
]
