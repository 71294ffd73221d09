"""Forcing a kernel holds for one thread and one context."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from perceiver_core import MultiHeadAttention, attend
from perceiver_core.kernels import sdpa
from perceiver_core.kernels.override import force_kernel, forced_absorption, forced_kernel

ARRAYS = (torch.randn(2, 2, 7, 5), torch.randn(2, 2, 11, 5), torch.randn(2, 2, 11, 5))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The thread and the kernel of each attention, in order."""
    used: list[tuple[str, str]] = []
    kernels = {"fused": "scaled_dot_product_attention", "plain": "plain_attention", "chunked": "chunked_attention"}

    def record(kernel: str, name: str) -> None:
        compute = getattr(sdpa, name)

        def recording(*args: Any, **kwargs: Any) -> Any:
            used.append((threading.current_thread().name, kernel))
            return compute(*args, **kwargs)

        monkeypatch.setattr(sdpa, name, recording)

    for kernel, name in kernels.items():
        record(kernel, name)
    return used


def test_threads_force_different_kernels_at_once(used):
    step = threading.Barrier(2, timeout=30)

    def attend_with(kernel: str, leaves_first: bool) -> None:
        threading.current_thread().name = kernel
        with force_kernel(kernel):
            step.wait()  # both have forced theirs
            attend(*ARRAYS)
            step.wait()
            if not leaves_first:
                step.wait()  # the other has left its context
                attend(*ARRAYS)
                return
        step.wait()
        assert forced_kernel() is None

    with ThreadPoolExecutor(2) as pool, force_kernel("fused"):
        threads = [pool.submit(attend_with, "plain", True), pool.submit(attend_with, "chunked", False)]
        for thread in threads:
            thread.result()
        attend(*ARRAYS)
    assert sorted(used[:2]) == [("chunked", "chunked"), ("plain", "plain")]
    assert used[2:] == [("chunked", "chunked"), (threading.current_thread().name, "fused")]


def test_override_does_not_affect_other_threads(used):
    with force_kernel("chunked"), ThreadPoolExecutor(1) as pool:
        pool.submit(attend, *ARRAYS).result()
        attend(*ARRAYS)
    assert [kernel for _, kernel in used] == [sdpa.choose_kernel(*ARRAYS), "chunked"]


def test_contexts_nest_and_end_with_an_error():
    with force_kernel("plain", "inputs"):
        with force_kernel("chunked"):
            assert (forced_kernel(), forced_absorption()) == ("chunked", "inputs")
        with contextlib.suppress(RuntimeError), force_kernel(absorption="queries"):
            assert (forced_kernel(), forced_absorption()) == ("plain", "queries")
            raise RuntimeError
        assert (forced_kernel(), forced_absorption()) == ("plain", "inputs")
    assert (forced_kernel(), forced_absorption()) == (None, None)


def test_unknown_kernels_are_refused():
    with pytest.raises(ValueError, match="kernel='flash': must be one of fused, plain, chunked"):
        with force_kernel("flash"):
            pass
    with pytest.raises(ValueError, match="absorption='all': must be one of none, inputs, queries"):
        with force_kernel(absorption="all"):
            pass


@pytest.mark.parametrize("num_heads", [1, 2])
def test_compiled_attention_ignores_the_override(num_heads):
    attention = MultiHeadAttention(num_heads, 6, 8)
    x_q, x_kv = torch.randn(2, 3, 6), torch.randn(2, 9, 8)
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    with torch.no_grad():
        expected = compiled(x_q, x_kv)[0]
        for kernel in ("plain", "chunked"):
            with force_kernel(kernel, "queries"):
                assert torch.equal(compiled(x_q, x_kv)[0], expected)
