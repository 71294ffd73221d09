"""Compares the language model of the Perceiver IO paper with Hugging Face's and krasserm's: time and peak memory.

Each implementation runs in a process of its own, all with the same weights and the same bytes. These take turns, one
iteration each (A B C A B C), so that whatever else the machine does hits all of them alike; ratios are taken within a
turn. The losses of the first iteration have to be equal.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import multiprocessing
import re
import resource
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

IMPLEMENTATIONS = ("perceiver-zoo", "Hugging Face", "krasserm")
CASES = {
    "forward": "forward, all positions",
    "positions": "forward, 50 positions",
    "train": "training step, peers' default AdamW",
    "train-fused": "training step, fused AdamW for all",
}
NUM_POSITIONS = 50
MASKED_SHARE = 0.15
# Names of krasserm's parameters, and what they are called here.
KRASSERM_NAMES = (
    (r"^encoder\.input_adapter\.txt_embedding", "input_adapter.token_embedding"),
    (r"^encoder\.input_adapter\.pos_embedding", "input_adapter.position_embedding"),
    (r"^encoder\.latent_provider\._query", "encoder.latents"),
    (r"^encoder\.cross_attn_1\.", "encoder.cross_attention_layers.0."),
    (r"^encoder\.self_attn_1\.", "encoder.self_attention_blocks.0."),
    (r"^decoder\.cross_attn\.", "decoder.cross_attention_layer."),
    (r"^decoder\.output_query_provider\._query", "output_adapter.query_provider.queries"),
    (r"^decoder\.output_adapter\.", "output_adapter."),
    (r"\.1\.module\.0\.", ".mlp_norm."),
    (r"\.1\.module\.1\.", ".mlp.hidden."),
    (r"\.1\.module\.3\.", ".mlp.output."),
    (r"\.0\.(module\.)?(attention|norm|q_norm|kv_norm)\.", r".\2."),
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What all implementations are run with."""

    case: str
    device: str
    precision: str
    batch_size: int
    length: int
    layers: int
    threads: int
    clock: str


def hugging_face_config(options: Options) -> Any:
    import transformers

    return transformers.PerceiverConfig(
        qk_channels=256,
        v_channels=1280,
        num_self_attends_per_block=options.layers,
        max_position_embeddings=options.length,
        attention_probs_dropout_prob=0.0,
    )


def build(implementation: str, options: Options) -> tuple[nn.Module, Iterator[tuple[str, nn.Parameter]]]:
    """The model, and its parameters with the names that they have here."""
    from perceiver_plugins.text.huggingface import convert_config, key_pairs
    from perceiver_plugins.text.model import LanguageModel

    config = hugging_face_config(options)
    if implementation == "perceiver-zoo":
        model = LanguageModel(convert_config(config))
        return model, model.named_parameters()
    if implementation == "Hugging Face":
        import transformers

        model = transformers.PerceiverForMaskedLM(config)
        ours = {theirs: ours for ours, theirs in reversed(list(key_pairs(options.layers)))}
        return model, ((ours[name], parameter) for name, parameter in model.named_parameters())

    from perceiver.model.text.mlm.backend import MaskedLanguageModel
    from perceiver.model.text.mlm.huggingface import convert_config as convert_krasserm_config

    config.tie_word_embeddings = True
    model = MaskedLanguageModel(convert_krasserm_config(config))
    return model, ((krasserm_name(name), parameter) for name, parameter in model.named_parameters())


def krasserm_name(name: str) -> str:
    """The name that a parameter of krasserm's model has here."""
    # PerceiverIO is a Sequential there: 0 is the encoder, 1 the decoder.
    name = re.sub(r"^1\.", "decoder.", re.sub(r"^0\.", "encoder.", name))
    for pattern, replacement in KRASSERM_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def fill(parameters: Iterator[tuple[str, nn.Parameter]]) -> int:
    """Draws each parameter at random, the same for the same name, and returns their number."""
    import torch

    generator = torch.Generator()
    count = 0
    with torch.no_grad():
        for name, parameter in parameters:
            generator.manual_seed(zlib.crc32(name.encode()))
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, 0.03, generator=generator))
            if "norm.weight" in name:
                parameter.add_(1.0)
            count += parameter.numel()
    return count


def iteration(implementation: str, model: nn.Module, options: Options) -> Callable[[], Tensor]:
    """A function that does the work of the case once and returns a number that all implementations share."""
    import torch
    from torch.nn.functional import cross_entropy

    ours = implementation == "perceiver-zoo"
    generator = torch.Generator().manual_seed(7)
    shape = (options.batch_size, options.length)
    labels = torch.randint(6, 262, shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < MASKED_SHARE
    input_ids = labels.masked_fill(mask, 3)
    positions = torch.randperm(options.length, generator=generator)[:NUM_POSITIONS].expand(shape[0], -1)
    input_ids, labels, mask, positions = (x.to(options.device) for x in (input_ids, labels, mask, positions))
    autocast = torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16")

    def logits(places: Tensor | None = None) -> Tensor:
        if ours:
            return model(input_ids, positions=places)
        output = model(input_ids)
        return output.logits if implementation == "Hugging Face" else output

    if not options.case.startswith("train"):
        model.eval()

        @torch.inference_mode()
        def forward() -> Tensor:
            with autocast:
                if options.case == "forward":
                    output = logits()
                elif ours:
                    output = logits(positions)
                else:
                    output = logits().gather(1, positions[:, :, None].expand(-1, -1, 262))
            return output.float().square().mean()

        return forward

    fused = ours or options.case == "train-fused"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, **({"fused": True} if fused else {}))
    model.train()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            if ours:
                loss = cross_entropy(logits(mask).float(), labels[mask])
            else:
                targets = labels.masked_fill(~mask, -100)
                loss = cross_entropy(logits().float().flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def serve(connection: Connection, implementation: str, options: Options) -> None:
    """Runs an iteration for each message that comes in, and answers with its time, result and the peak memory."""
    import torch

    torch.set_num_threads(options.threads)
    model, parameters = build(implementation, options)
    num_parameters = fill(parameters)
    run = iteration(implementation, model.to(options.device), options)
    cuda = options.device == "cuda"
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    connection.send(num_parameters)
    while connection.recv():
        start = clock()
        result = run()
        if cuda:
            torch.cuda.synchronize()
        seconds = clock() - start
        peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        connection.send((seconds, result.item(), peak / 2**30))


def measure(implementations: list[str], options: Options, rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """Seconds, result and peak memory in GiB of each iteration of each implementation."""
    context = multiprocessing.get_context("spawn")
    workers = {}
    for implementation in implementations:
        connection, other_end = context.Pipe()
        process = context.Process(target=serve, args=(other_end, implementation, options), daemon=True)
        process.start()
        other_end.close()
        workers[implementation] = (process, connection)
    counts = {connection.recv() for _, connection in workers.values()}
    assert len(counts) == 1, f"numbers of parameters differ: {counts}"

    iterations: dict[str, list[tuple[float, float, float]]] = {name: [] for name in implementations}
    for _ in range(rounds + 1):
        for name, (_, connection) in workers.items():
            connection.send(True)
            iterations[name].append(connection.recv())
    for process, connection in workers.values():
        connection.send(False)
        process.join()

    tolerance = 1e-5 if options.precision == "fp32" else 2e-2
    results = {name: values[0][1] for name, values in iterations.items()}
    reference = results[implementations[0]]
    assert all(abs(value / reference - 1) < tolerance for value in results.values()), f"results differ: {results}"
    return {name: values[1:] for name, values in iterations.items()}  # the first one is the warm-up


def report(case: str, iterations: dict[str, list[tuple[float, float, float]]]) -> list[str]:
    """Rows of a table."""
    seconds = {name: [value[0] for value in values] for name, values in iterations.items()}
    rows = []
    for name, values in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(values, seconds[IMPLEMENTATIONS[0]], strict=True)]
        rows.append(
            f"| {CASES[case]} | {name} | {statistics.median(values):.3f} | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f} to {max(ratios):.2f} | {max(value[2] for value in iterations[name]):.2f} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--length", type=int, default=2048, help="bytes of a sequence")
    parser.add_argument("--layers", type=int, default=26, help="self-attention layers")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process")
    parser.add_argument(
        "--clock",
        default="wall",
        choices=("wall", "cpu"),
        help="cpu: seconds of CPU time of all threads, for a machine that does other work at the same time",
    )
    parser.add_argument("--rounds", type=int, default=7)
    arguments = vars(parser.parse_args())
    cases, rounds = arguments.pop("cases"), arguments.pop("rounds")

    implementations = list(IMPLEMENTATIONS)
    if importlib.util.find_spec("perceiver") is None:
        implementations.remove("krasserm")
        print("krasserm's perceiver-io is not installed and is left out; benchmarks/README.md says how to install it\n")
    print("| work | implementation | seconds (median) | times perceiver-zoo's (median) | range | peak GiB |")
    print("|---|---|---|---|---|---|")
    for case in cases:
        for row in report(case, measure(implementations, Options(case=case, **arguments), rounds)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
