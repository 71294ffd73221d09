"""Throughput of data pipelines relative to training, and of tokenisation.

    python -m benchmarks.loaders

For each built-in task that has data of its own: the batches of ``train_dataloader()``, made in this process, beside the
training step of the task's default model (forward, backward, clipping, optimizer). Both are times of the processor and
take turns, a few batches each, so that what else the machine does hits both alike.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TASKS = {
    "mlm": [],
    "mlm, whole words": ["--data.mask_words=true"],
    "image-classification": [],
    "text-classification": [],
    "token-classification": [],
    "regression": [],
    "optical-flow": [],
    "multimodal-autoencoding": [],
}
"""Cases with their flags; the task is the part of the name before a comma."""

WORKERS = "--data.num_workers=0"


def measure(threads: int = 1, quick: bool = False, reviews: str | Path | None = None) -> list[dict[str, Any]]:
    """Measures the loaders of all tasks beside their training steps, and tokenisation.

    Args:
        threads: the processor's threads that the training steps may use.
        quick: fewer turns, to see that it works.
        reviews: a .jsonl file with a column "text" (perhaps compressed) to tokenise; None: the embedded documentation
            of Python.

    Returns:
        For each task its name (``task``), ``loader`` and ``step`` (median examples per second of processor time), their
        ``ratio`` (median over turns) and ``lowest_ratio``. For each kind of tokenising its name, ``seconds`` and
        ``megabytes_per_second`` of UTF-8.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        turns = 2 if quick else 7
        loaders = [measure_task(name, flags, turns, 2 if quick else 10) for name, flags in TASKS.items()]
        return loaders + measure_tokenisation(list(texts(reviews)), turns)
    finally:
        torch.set_num_threads(before)


def measure_task(name: str, flags: list[str], turns: int, batches: int) -> dict[str, Any]:
    """Examples per second of a task's loader and of its training step, a few batches of each in every turn."""
    data, step = create(name.partition(",")[0], flags)
    stream = endless(data.train_dataloader())
    step(next(stream))  # warms up
    size = data.batch_size * batches
    rates = []
    for _ in range(turns):
        loading, some = timed(lambda: list(itertools.islice(stream, batches)))
        training, _ = timed(lambda some=some: [step(batch) for batch in some])
        rates.append((size / loading, size / training))
    ratios = [loader / steps for loader, steps in rates]
    return {
        "task": name,
        "loader": statistics.median(loader for loader, _ in rates),
        "step": statistics.median(steps for _, steps in rates),
        "ratio": statistics.median(ratios),
        "lowest_ratio": min(ratios),
    }


def create(task: str, flags: list[str]) -> tuple[Any, Callable[[Any], None]]:
    """The data module of a task, set up, and a function that does a training step on a batch, with all defaults."""
    import yaml
    from torch.nn.utils import clip_grad_norm_

    from perceiver_cli.run import run
    from perceiver_plugins.sdk.tasks.optimizers import create_optimizer
    from perceiver_registry import config_from_dict, create_module, registry

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run("fit", [f"--task={task}", WORKERS, *flags, "--print_config"])
    values = yaml.safe_load(printed.getvalue())
    data = registry().get("data", values["data"].pop("name")).resolve("module")(**values["data"])
    data.prepare_data()
    data.setup("fit")
    options = {name: value for name, value in values["task"].items() if name != "name"}
    config = {name: value for name, value in values["model"].items() if name != "name"}
    module = create_module(task, config_from_dict(config), optimizer=values["optimizer"], **options).train()
    optimizer = create_optimizer(values["optimizer"], list(module.parameters()), True)
    limit = values["trainer"]["gradient_clip_val"]

    def step(batch: Any) -> None:
        optimizer.zero_grad()
        module.loss_sum(batch).mean.backward()
        if limit:
            clip_grad_norm_(module.parameters(), limit)
        optimizer.step()

    return data, step


def endless(loader: Any) -> Iterator[Any]:
    """The batches of a loader, epoch after epoch."""
    for epoch in itertools.count():
        loader.sampler.set_epoch(epoch)
        yield from loader


def texts(reviews: str | Path | None) -> Iterator[str]:
    """The texts to tokenise."""
    from perceiver_plugins.sdk.data.files import read_documents
    from perceiver_plugins.text.data.corpora import python_docs

    if reviews is None:
        yield from (text for _, text in python_docs())
    else:
        yield from (document.text for document in read_documents(Path(reviews), "text"))


def measure_tokenisation(documents: list[str], turns: int) -> list[dict[str, Any]]:
    """Measure the throughput of tokenisation."""
    from perceiver_plugins.text.data.encoding import DocumentEncoder
    from perceiver_plugins.text.tokenizers import PERCEIVER_TOKENIZER, load_tokenizer

    tokenizer = load_tokenizer(PERCEIVER_TOKENIZER)
    few = documents[: max(1, len(documents) // 100)]
    kinds: dict[str, tuple[list[str], Callable[[list[str]], Any]]] = {
        "bytes": (documents, encoder_of(DocumentEncoder(tokenizer, words=False))),
        "bytes and words": (documents, encoder_of(DocumentEncoder(tokenizer))),
        # a loop over the bytes in Python
        "bytes, by transformers' PerceiverTokenizer": (few, lambda some: tokenizer(some, add_special_tokens=False)),
    }
    rows = []
    for name, (some, encode) in kinds.items():
        megabytes = sum(len(text.encode()) for text in some) / 1e6
        seconds = statistics.median(timed(lambda encode=encode, some=some: encode(some))[0] for _ in range(turns))
        rows.append(
            {
                "task": f"tokenise {name}",
                "megabytes": megabytes,
                "seconds": seconds,
                "megabytes_per_second": megabytes / seconds,
            }
        )
    return rows


def encoder_of(encoder: Any) -> Callable[[list[str]], Any]:
    """Tokenises as data modules do, a thousand documents at a time."""

    def encode(documents: list[str]) -> None:
        for start in range(0, len(documents), 1000):
            encoder({"text": documents[start : start + 1000]})

    return encode


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor's time that something takes, and its result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of the training steps")
    parser.add_argument("--quick", action="store_true", help="few turns, to see that it works")
    parser.add_argument("--reviews", help="a .jsonl file with texts to tokenise instead of Python's documentation")
    options = parser.parse_args()
    rows = measure(options.threads, options.quick, options.reviews)
    print("| task | examples/s, loader | examples/s, training step | ratio | lowest |")
    print("|---|---|---|---|---|")
    for row in rows:
        if "ratio" in row:
            figures = "{loader:,.0f} | {step:,.0f} | {ratio:.1f} | {lowest_ratio:.1f}".format(**row)
            print(f"| {row['task']} | {figures} |")
    print("\n| work | MB | MB/s |")
    print("|---|---|---|")
    for row in rows:
        if "megabytes_per_second" in row:
            print("| {task} | {megabytes:.2f} | {megabytes_per_second:,.1f} |".format(**row))


if __name__ == "__main__":
    main()
