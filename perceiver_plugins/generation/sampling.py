"""Generation of tokens by causal models: greedy decoding and sampling, with an exact cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from perceiver_core import PerceiverAR
from perceiver_plugins.sdk.evaluation_mode import evaluating

Seed = int | Sequence[int]
"""Non-negative integers that determine the samples of a prompt."""


@dataclass(frozen=True)
class Sampling:
    """Choice of the next token from logits.

    The options apply in the order of this list, as in transformers.

    Args:
        repetition_penalty: divisor of the positive logits, and factor of the negative ones, of tokens that are in the
            prompt or were generated (arXiv 1909.05858). 1: no penalty.
        temperature: divisor of the logits. 0: the most probable token (greedy decoding).
        top_k: number of most probable tokens to choose from (arXiv 1805.04833). None: all.
        top_p: choose from the fewest most probable tokens whose probabilities sum to at least this (nucleus sampling,
            arXiv 1904.09751). None: all.

    Raises:
        ValueError: if a value is out of range.
    """

    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        for is_valid, name, expected in (
            (self.repetition_penalty > 0.0, "repetition_penalty", "greater than 0"),
            (self.temperature >= 0.0, "temperature", "at least 0"),
            (self.top_k is None or self.top_k >= 1, "top_k", "at least 1"),
            (self.top_p is None or 0.0 < self.top_p <= 1.0, "top_p", "greater than 0 and at most 1"),
        ):
            if not is_valid:
                raise ValueError(f"{name}={getattr(self, name)} must be {expected}")

    def choose(self, logits: Tensor, seen: Tensor, random: Sequence[float]) -> Tensor:
        """Choose the next tokens.

        Args:
            logits: (b, vocabulary).
            seen: (b, vocabulary), True at tokens of the prompt and those that were generated.
            random: a number of at least 0 and less than 1 for each example, the quantile of the token to choose among
                the tokens in descending order of probability.

        Returns:
            Tokens (b).
        """
        logits = penalise(logits, seen, self.repetition_penalty)
        if self.temperature == 0.0:
            return logits.argmax(dim=1)
        ordered, tokens = (logits / self.temperature).sort(dim=1, descending=True, stable=True)
        cumulative = ordered[:, : self.top_k].softmax(dim=1).cumsum(dim=1)
        last = torch.full((len(logits), 1), cumulative.shape[1] - 1)
        if self.top_p is not None:
            limit = torch.full((len(logits), 1), self.top_p, dtype=cumulative.dtype)
            last = torch.searchsorted(cumulative, limit).minimum(last)
        quantiles = torch.tensor(random, dtype=cumulative.dtype)[:, None] * cumulative.gather(1, last)
        chosen = torch.searchsorted(cumulative, quantiles, right=True).minimum(last)
        return tokens.gather(1, chosen)[:, 0]


@torch.no_grad()
def generate(
    model: PerceiverAR,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    max_new_tokens: int = 200,
    sampling: Sampling | None = None,
    stop_ids: Collection[int] = (),
    seeds: Sequence[Seed] | None = None,
    on_token: Callable[[int, int], bool | None] | None = None,
) -> list[Tensor]:
    """Continue prompts.

    The logits are those of :meth:`~perceiver_core.PerceiverAR.score` for the tokens so far, whatever their number: the
    window slides. What is generated for a prompt depends on it and its seed, not on the other prompts of a batch. The
    model is in evaluation mode meanwhile.

    Args:
        model: causal model whose batches have ``input_ids`` and whose outputs are logits.
        input_ids: prompts (b, k), padded on the left.
        attention_mask: (b, k), true or 1 at tokens, false or 0 at padding. Default: no padding.
        max_new_tokens: largest number of tokens to generate.
        sampling: how tokens are chosen. Default: from the distribution of the model.
        stop_ids: tokens that end a continuation.
        seeds: a seed for each prompt. Default: (0, i) for prompt i.
        on_token: function that is called with the index of a prompt and each token generated for it, and returns True
            to end its continuation.

    Returns:
        The generated tokens of each prompt, on the CPU, with the one that ended the continuation.

    Raises:
        ValueError: if a prompt is empty or padded on the right, or if the number of seeds is not that of the prompts.
    """
    check_prompts(attention_mask)
    if seeds is not None and len(seeds) != len(input_ids):
        raise ValueError(f"seeds: must be {len(input_ids)}, one for each prompt, got {len(seeds)}")
    with evaluating(model):
        decoding = _Decoding(model, input_ids, attention_mask, sampling or Sampling(), seeds)
        for _ in range(max_new_tokens):
            tokens = decoding.step()
            ended = [token in stop_ids for token in tokens]
            if on_token is not None:
                ended = [
                    bool(on_token(row, token)) or end
                    for row, token, end in zip(decoding.rows, tokens, ended, strict=True)
                ]
            decoding.append(tokens, ended)
            if not decoding.rows:
                break
    return [torch.tensor(tokens, dtype=torch.long) for tokens in decoding.generated]


def check_prompts(attention_mask: Tensor | None) -> None:
    """Raise ValueError if a prompt is empty, by its mask (b, k)."""
    if attention_mask is not None and not bool(attention_mask.bool().any(dim=1).all()):
        raise ValueError("input_ids: a prompt is empty (begin it with a token, such as BOS)")


def prompt_batch(input_ids: Tensor, attention_mask: Tensor | None) -> dict[str, Tensor]:
    """Return a batch of prompts (b, k), with their mask if there is padding."""
    if attention_mask is None or bool(attention_mask.bool().all()):
        return {"input_ids": input_ids}
    return {"input_ids": input_ids, "attention_mask": attention_mask.long()}


def seen_tokens(input_ids: Tensor, attention_mask: Tensor | None, vocab_size: int) -> Tensor:
    """Return a mask (b, vocabulary) on the CPU, True at the tokens of each prompt (b, k)."""
    is_token = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
    counts = torch.zeros(len(input_ids), vocab_size, dtype=torch.long)
    return counts.scatter_add_(1, input_ids.cpu(), is_token.cpu()) > 0


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide positive logits (b, vocabulary) of seen tokens by a penalty, and multiply negative ones by it."""
    if penalty == 1.0:
        return logits
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


class _Decoding:
    """State of :func:`generate`.

    Attributes:
        rows: indices of the prompts that are continued.
        generated: tokens generated for each prompt.
    """

    def __init__(
        self,
        model: PerceiverAR,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        sampling: Sampling,
        seeds: Sequence[Seed] | None,
    ) -> None:
        self.model = model
        self.sampling = sampling
        self.rows = list(range(len(input_ids)))
        self.generated: list[list[int]] = [[] for _ in self.rows]
        self._random = [np.random.default_rng((0, row) if seeds is None else seeds[row]) for row in self.rows]
        self._prompts = input_ids, attention_mask
        self._batch = prompt_batch(input_ids, attention_mask)
        self._cache = model.create_cache()
        self._seen: Tensor | None = None

    def step(self) -> list[int]:
        """Choose the next token of each prompt that is continued."""
        logits = self.model.extend(self._batch, self._cache)[:, -1].double().cpu()
        if self._seen is None:
            self._seen = seen_tokens(*self._prompts, logits.shape[1])
        chosen = self.sampling.choose(logits, self._seen, [self._random[row].random() for row in self.rows])
        self._seen.scatter_(1, chosen[:, None], torch.ones_like(chosen[:, None], dtype=torch.bool))
        tokens: list[int] = chosen.tolist()
        return tokens

    def append(self, tokens: Sequence[int], ended: Sequence[bool]) -> None:
        """Append tokens to the prompts that are continued, and drop those that ended."""
        for row, token in zip(self.rows, tokens, strict=True):
            self.generated[row].append(token)
        kept = torch.tensor([number for number, end in enumerate(ended) if not end], dtype=torch.long)
        if len(kept) < len(self.rows):
            self._cache.select_rows(kept)
            assert self._seen is not None
            self._seen = self._seen[kept]
        self.rows = [self.rows[number] for number in kept.tolist()]
        device = self._batch["input_ids"].device
        new = torch.tensor([self.generated[row][-1] for row in self.rows], dtype=torch.long, device=device)[:, None]
        self._batch = {name: new if name == "input_ids" else torch.ones_like(new) for name in self._batch}
