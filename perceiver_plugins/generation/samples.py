"""Sequences that a causal model generates while it trains, as examples."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from perceiver_plugins.generation.sampling import generate


def continue_rows(
    model: Any,
    input_ids: Tensor,
    num_samples: int,
    num_prompt_tokens: int,
    max_new_tokens: int,
    stop_ids: Collection[int],
) -> list[tuple[Tensor, Tensor]]:
    """Continue the first token alone, and the first tokens of each row.

    Tokens are drawn from the distribution of the model, by a generator of their own with a fixed seed.

    Args:
        model: causal model of tokens.
        input_ids: tokens (b, m) of the first validation batch, whose first token begins a piece or document.
        num_samples: largest number of continuations.
        num_prompt_tokens: tokens of a row in its prompt, after the first one.
        max_new_tokens: largest number of tokens to generate.
        stop_ids: tokens that end a continuation.

    Returns:
        The prompt and the generated tokens of each continuation, on the CPU.
    """
    prompts = [input_ids[0, :1], *input_ids[:, : 1 + num_prompt_tokens]][:num_samples]
    with torch.compiler.set_stance("force_eager"):  # lengths differ in each step
        return [
            (prompt.cpu(), generate(model, prompt[None], max_new_tokens=max_new_tokens, stop_ids=stop_ids)[0])
            for prompt in prompts
        ]
