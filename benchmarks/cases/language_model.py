"""The language model of the Perceiver IO paper: 201M parameters, 2048 bytes, batch 1."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.case import FLOOR, HUGGING_FACE, OURS, PEERS, Case, Comparison, Contender, Job, Options

if TYPE_CHECKING:
    from torch import Tensor

MODEL = "language-perceiver"
NUM_POSITIONS = 50
MASKED_SHARE = 0.15
MASK, FIRST_BYTE = 3, 6
"""Tokens of the vocabulary of 262."""


def sizes(options: Options) -> dict[str, Any]:
    """The sequence's length, and what is other than in the zoo's model."""
    if not options.quick:
        return {"length": 2048, "overrides": {}}
    narrow = dict.fromkeys(("num_cross_attention_v_channels", "num_self_attention_v_channels"), 64)
    tiny = {"max_seq_len": 64, "num_self_attention_layers_per_block": 2, **narrow}
    return {"length": 64, "overrides": {"num_latents": 16, "num_latent_channels": 64, "encoder": tiny}}


def contender(name: str, work: str, options: Options, **arguments: Any) -> Contender:
    """A contender of this module."""
    return Contender(name, f"{__name__}:{work}", {**sizes(options), **arguments})


def with_floor(contenders: list[Contender]) -> tuple[Contender, ...]:
    """The contenders, and the matrix products of the first one."""
    ours = contenders[0]
    arguments = {"work": ours.work, "arguments": ours.arguments}
    return (*contenders, Contender(FLOOR, "benchmarks.products:alone", arguments))


def forward_cases(options: Options, num_positions: int | None) -> list[Comparison]:
    contenders = [
        contender(name, "forward", options, implementation=name, num_positions=num_positions) for name in (OURS, *PEERS)
    ]
    return [Comparison(with_floor(contenders))]


def training_cases(options: Options, peers_fused: bool) -> list[Comparison]:
    ours = contender(OURS, "train", options, implementation=OURS, fused=True)
    peers = [contender(name, "train", options, implementation=name, fused=peers_fused) for name in PEERS]
    return [Comparison(with_floor([ours, *peers]))]


def memory_cases(options: Options) -> list[Comparison]:
    ours = {"implementation": OURS, "fused": True}
    contenders = (
        contender(OURS, "train", options, **ours),
        contender(f"{OURS}, AdamW in the backward pass", "train", options, **ours, in_backward=True),
        contender(
            f"{OURS}, AdamW in the backward pass, checkpointing",
            "train",
            options,
            **ours,
            in_backward=True,
            checkpointing=True,
        ),
        dataclasses.replace(
            contender(
                f"{OURS}, both, freed memory given back",
                "train",
                options,
                **ours,
                in_backward=True,
                checkpointing=True,
            ),
            environment={"MALLOC_MMAP_THRESHOLD_": "1048576"},
        ),
        *(contender(name, "train", options, implementation=name, fused=True) for name in PEERS),
    )
    return [Comparison(contenders, max_rounds=2, in_turn=False)]


def model_and_logits(
    implementation: str, options: Options, overrides: dict[str, Any], compiled: bool = False
) -> tuple[Any, Callable[[Tensor, Tensor | None], Tensor]]:
    """The model without dropout, and its logits of bytes (b, m): at all positions, or for ours at selected ones."""
    from benchmarks.implementations import build, compile_model

    overrides = {**overrides, "encoder": {**overrides.get("encoder", {}), "dropout": 0.0}}
    if "max_seq_len" in overrides["encoder"]:
        overrides["decoder"] = {"max_seq_len": overrides["encoder"]["max_seq_len"]}
    overrides["decoder"] = {**overrides.get("decoder", {}), "dropout": 0.0}
    model = build(implementation, MODEL, overrides, options)
    compute = compile_model(implementation, model, options) if compiled else model

    def logits(input_ids: Tensor, positions: Tensor | None) -> Tensor:
        if implementation == OURS:
            return compute({"input_ids": input_ids}, positions)
        output = compute(input_ids)
        return output.logits if implementation == HUGGING_FACE else output

    return model, logits


def masked_bytes(options: Options, batch_size: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bytes of which some are masked, what they were, and which are masked: (b, n) each."""
    import torch

    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(FIRST_BYTE, 262, (batch_size, length), generator=generator)
    mask = torch.rand(labels.shape, generator=generator) < MASKED_SHARE
    return tuple(x.to(options.device) for x in (labels.masked_fill(mask, MASK), labels, mask))  # type: ignore[return-value]


def mixed_precision(options: Options) -> Any:
    """Context of the precision: bf16-mixed on GPUs."""
    import torch

    return torch.autocast(options.device, torch.bfloat16) if options.device == "cuda" else contextlib.nullcontext()


def forward(
    options: Options,
    implementation: str,
    length: int,
    overrides: dict[str, Any],
    num_positions: int | None = None,
    batch_size: int = 1,
    compiled: bool = False,
) -> Job:
    """Prediction: of all positions, or of some, of which the peers predict all and select."""
    import torch

    from benchmarks.implementations import count_parameters

    model, logits = model_and_logits(implementation, options, overrides, compiled)
    model.eval()
    input_ids, _, _ = masked_bytes(options, batch_size, length)
    positions = None
    if num_positions is not None:
        chosen = torch.randperm(length, generator=torch.Generator().manual_seed(8))[:num_positions]
        positions = chosen.to(options.device).expand(batch_size, -1)

    @torch.inference_mode()
    def run() -> Tensor:
        with mixed_precision(options):
            output = logits(input_ids, positions)
        if positions is not None and implementation != OURS:
            output = output.gather(1, positions[:, :, None].expand(-1, -1, output.shape[-1]))
        return output

    return Job(run, {"parameters": count_parameters(model)})


def train(
    options: Options,
    implementation: str,
    length: int,
    overrides: dict[str, Any],
    fused: bool,
    in_backward: bool = False,
    checkpointing: bool = False,
    batch_size: int = 1,
    compiled: bool = False,
) -> Job:
    """A training step on masked bytes: forward, backward and AdamW. Ours decodes masked positions only."""
    import torch
    from torch.nn.functional import cross_entropy

    from benchmarks.implementations import count_parameters

    torch.optim.AdamW([torch.zeros(1)])  # imports a lot, which is not the model's memory
    if checkpointing:
        overrides = {**overrides, "activation_checkpointing": True}
    model, logits = model_and_logits(implementation, options, overrides, compiled)
    model.train()
    input_ids, labels, mask = masked_bytes(options, batch_size, length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused or None)  # None: torch's default
    stepping: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    if in_backward:
        from perceiver_plugins.sdk.tasks.in_backward import stepping_in_backward

        stepping = functools.partial(stepping_in_backward, optimizer)

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with mixed_precision(options):
            if implementation == OURS:
                loss = cross_entropy(logits(input_ids, mask).float(), labels[mask])
            else:
                targets = labels.masked_fill(~mask, -100)
                loss = cross_entropy(logits(input_ids, None).float().flatten(0, 1), targets.flatten())
        with stepping():
            loss.backward()
            optimizer.step()
        return loss.detach()

    return Job(run, {"parameters": count_parameters(model)})


_STEP = (
    "15 % of the bytes are masked, no dropout: forward, backward and AdamW. Ours is fused, and decodes only masked "
    "positions."
)

CASES = [
    Case(
        "language-model-forward",
        "Language model, forward",
        "The model of the Perceiver IO paper on 2048 bytes, batch 1, in single precision; all positions are decoded.",
        lambda options: forward_cases(options, None),
    ),
    Case(
        "language-model-positions",
        f"Language model, {NUM_POSITIONS} positions requested",
        f"The same for the bytes of {NUM_POSITIONS} positions. The peers decode all and select.",
        lambda options: forward_cases(options, NUM_POSITIONS),
    ),
    Case(
        "language-model-train",
        "Language model, training step",
        f"{_STEP} The peers' AdamW is torch's default.",
        lambda options: training_cases(options, peers_fused=False),
    ),
    Case(
        "language-model-train-fused",
        "Language model, training step, fused AdamW for all",
        f"{_STEP} The peers' AdamW is fused as well.",
        lambda options: training_cases(options, peers_fused=True),
    ),
    Case(
        "language-model-memory",
        "Language model, memory in training",
        "The same training step with what can be asked for to save memory, one process after the other. "
        "`--optimizer.in_backward=true` updates each weight inside the backward pass and frees its gradient at once; "
        "`--model.activation_checkpointing=true` computes activations twice; `MALLOC_MMAP_THRESHOLD_=1048576` lets the "
        "C library give memory back as soon as it is freed.",
        memory_cases,
    ),
]
