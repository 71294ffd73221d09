"""Fresh processes that take turns, one iteration each (A B C A B C), so that other load affects all alike."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from benchmarks import memory
from benchmarks.case import Comparison, Contender, Options

if TYPE_CHECKING:
    import numpy

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


CHECKED = 2
"""Iterations whose results have to be equal: in training, the second one sees what the first one updated."""


class FailedError(Exception):
    """A contender's process failed, for the reason in the message (one line)."""


def resolve(path: str) -> Any:
    """Import the object at ``module:name``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def prepare(contender: Contender, options: Options) -> Any:
    """Call a contender's function in this process and return its result."""
    import torch

    torch.set_num_threads(options.threads)
    memory.mark("torch")
    return resolve(contender.work)(options, **contender.arguments)


def one_line(error: BaseException) -> str:
    """Format an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def serve(connection: Connection, contender: Contender, options: Options) -> None:
    """Prepare a contender's work, run it once for each message received, and send back each result."""
    try:
        job = prepare(contender, options)
        connection.send({"facts": dict(job.facts), "marks": memory.marks()})
        count = 0
        while connection.recv():
            connection.send(iteration(job.run, options, with_result=count < CHECKED))
            count += 1
    except Exception as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            connection.send({"error": one_line(error)})


def iteration(run: Any, options: Options, with_result: bool) -> dict[str, Any]:
    """Does the work once: its seconds, the process's peak so far, and the result if requested."""
    import torch

    cuda = options.device == "cuda"
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    if cuda:
        torch.cuda.synchronize()
    start = clock()
    result = run()
    if cuda:
        torch.cuda.synchronize()
    seconds = clock() - start
    peak = torch.cuda.max_memory_allocated() / memory.GIB if cuda else memory.peak()
    answer: dict[str, Any] = {"seconds": seconds, "peak_gib": peak}
    if with_result and result is not None:
        answer["result"] = result.detach().float().cpu().numpy()
    return answer


def rows(connection: Connection, contender: Contender, options: Options) -> None:
    """Send the rows that a contender's function measures."""
    try:
        connection.send({"rows": prepare(contender, options)})
    except Exception as error:
        traceback.print_exc()
        connection.send({"error": one_line(error)})


class Worker:
    """A fresh process of a contender.

    Args:
        contender: the contender.
        options: options of the command.
        target: function that the process runs, called with a connection, the contender and the options.
    """

    def __init__(self, contender: Contender, options: Options, target: Any = serve):
        context = multiprocessing.get_context("spawn")
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=target, args=(other_end, contender, options), daemon=True)
        with environment(dict.fromkeys(THREAD_VARIABLES, str(options.threads)) | dict(contender.environment)):
            self.process.start()
        other_end.close()

    def receive(self) -> dict[str, Any]:
        """Receive the next message.

        Raises:
            FailedError: if the process failed or has ended.
        """
        try:
            answer = self.connection.recv()
        except EOFError:
            self.process.join()
            killed = " (killed, perhaps for lack of memory)" if self.process.exitcode == -9 else ""
            raise FailedError(f"its process ended with exit code {self.process.exitcode}{killed}") from None
        if "error" in answer:
            raise FailedError(answer["error"])
        return answer

    def iterate(self) -> dict[str, Any]:
        """Run the work once in the process.

        Raises:
            FailedError: if it fails.
        """
        with contextlib.suppress(OSError):  # the next message tells what is wrong
            self.connection.send(True)
        return self.receive()

    def end(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self.connection.send(False)
        self.process.join(timeout=30)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables within the context."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def call(contender: Contender, options: Options) -> Any:
    """Call a contender's function in a fresh process and return its result, plain data.

    Raises:
        FailedError: if it fails.
    """
    worker = Worker(contender, options, rows)
    try:
        return worker.receive()["rows"]
    finally:
        worker.end()


def measure(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Measure all contenders of a comparison, and compare their results in the first iterations.

    Returns:
        The comparison as plain data; of each contender ``name``, ``seconds`` of each round, ``peak_gib``, ``marks``,
        ``facts``, ``difference`` (of its result from the first contender's) and ``equal``, or ``error``.
    """
    options = replace(options, rounds=min(options.rounds, comparison.max_rounds))
    if comparison.in_turn:
        measured = _measure_group(comparison.contenders, options)
    else:
        measured = [one for contender in comparison.contenders for one in _measure_group((contender,), options)]
    results = [one.pop("results") for one in measured]
    for contender, one, mine in zip(comparison.contenders, measured, results, strict=True):
        if not mine or not results[0] or one is measured[0] or "error" in one:
            continue
        one["difference"] = max(map(difference, results[0], mine))
        if contender.exact:
            one["equal"] = one["difference"] <= comparison.tolerance
    return {
        "name": comparison.name,
        "size": comparison.size,
        "tolerance": comparison.tolerance,
        "in_turn": comparison.in_turn,
        "contenders": measured,
    }


def _measure_group(contenders: tuple[Contender, ...], options: Options) -> list[dict[str, Any]]:
    measured: list[dict[str, Any]] = [
        {"name": contender.name, "samples": contender.samples, "seconds": [], "results": []} for contender in contenders
    ]
    workers = [Worker(contender, options) for contender in contenders]
    try:
        for worker, one in zip(workers, measured, strict=True):
            with _failing(one):
                one |= worker.receive()
        for round_ in range(options.rounds + 1):
            for worker, one in zip(workers, measured, strict=True):
                if "error" in one:
                    continue
                with _failing(one):
                    answer = worker.iterate()
                    one["peak_gib"] = answer["peak_gib"]
                    one["results"] += [answer["result"]] if "result" in answer else []
                    if round_ > 0:  # the first one warms up
                        one["seconds"].append(answer["seconds"])
    finally:
        for worker in workers:
            worker.end()
    return measured


@contextlib.contextmanager
def _failing(one: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except FailedError as error:
        one["error"] = str(error)
        one["seconds"] = []


def difference(reference: numpy.ndarray, result: numpy.ndarray) -> float:
    """The largest difference of two results, relative to the first one's largest number; infinite if not comparable."""
    import numpy

    if reference.shape != result.shape or not numpy.isfinite(result).all():
        return float("inf")
    return float(numpy.abs(result - reference).max() / max(numpy.abs(reference).max(), 1e-30))
