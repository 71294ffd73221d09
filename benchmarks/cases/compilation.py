"""Training with and without ``torch.compile``."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

from benchmarks import memory
from benchmarks.case import OURS, Case, Comparison, Contender, Job, Options
from benchmarks.cases.language_model import contender

if TYPE_CHECKING:
    from torch import Tensor

COMPILED = f"{OURS}, compiled"
BATCH_SIZE = 32


def comparisons(options: Options) -> list[Comparison]:
    small = [
        Contender(name, f"{__name__}:train_default", {"compiled": compiled})
        for name, compiled in ((OURS, False), (COMPILED, True))
    ]
    # Sums are taken in another order, and the optimizer's first steps depend on signs.
    found = [Comparison(tuple(small), name="default masked language model", tolerance=1e-4)]
    if not options.quick:
        large = [
            contender(name, "train", options, implementation=OURS, fused=True, compiled=compiled)
            for name, compiled in ((OURS, False), (COMPILED, True))
        ]
        found.append(Comparison(tuple(large), name="language model of 201M parameters", tolerance=1e-4))
    return found


def default_config(task: str) -> Any:
    """The configuration of the model that ``perceiver fit --task=...`` trains."""
    import yaml

    from perceiver_cli.run import run
    from perceiver_registry import config_from_dict

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run("fit", [f"--task={task}", "--print_config"])
    values = yaml.safe_load(printed.getvalue())["model"]
    return config_from_dict({name: value for name, value in values.items() if name != "name"})


def train_default(options: Options, compiled: bool) -> Job:
    """A training step of the model that ``perceiver fit --task=mlm`` trains, without dropout."""
    import torch
    from torch.nn.functional import cross_entropy

    from benchmarks.cases.language_model import masked_bytes
    from benchmarks.implementations import compile_model, fill
    from perceiver_registry import assemble

    config = default_config("mlm")
    torch.optim.AdamW([torch.zeros(1)])  # imports a lot, which is not the model's memory
    memory.mark("imports")
    config.encoder.dropout = config.decoder.dropout = 0.0
    model = assemble(config).train()
    fill(model.named_parameters())
    input_ids, labels, mask = masked_bytes(options, BATCH_SIZE, config.encoder.max_seq_len)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    compute = compile_model(OURS, model, options) if compiled else model

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(compute({"input_ids": input_ids}, mask), labels[mask])
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Job(run)


CASES = [
    Case(
        "compile",
        "torch.compile",
        "Training steps with and without `--model.compile=true`. The time that compiling takes is not in it.",
        comparisons,
        device="cpu",
    )
]
