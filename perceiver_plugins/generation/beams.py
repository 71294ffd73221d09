"""Beam search with causal models, with an exact cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from perceiver_core import PerceiverAR
from perceiver_plugins.generation.sampling import check_prompts, penalise, prompt_batch, seen_tokens
from perceiver_plugins.sdk.evaluation_mode import evaluating

MAX_LENGTH_PENALTY = 10
"""Largest length penalty and, negative, smallest one. Arbitrary: powers of lengths of a million tokens are finite."""


@dataclass(frozen=True)
class BeamSearch:
    """Options of beam search, with the meaning and defaults of transformers.

    Args:
        num_beams: number of continuations that are extended at the same time.
        length_penalty: power of the number of tokens, by which the log-probability of a finished continuation is
            divided. Greater than 0: longer ones rank higher.
        early_stopping: stop when ``num_beams`` continuations have finished. False: stop when, in addition, no running
            continuation would rank among them at its present length.
        repetition_penalty: factor of the log-probabilities of tokens that are in the prompt or were generated
            (arXiv 1909.05858). 1: no penalty.

    Raises:
        ValueError: if a value is out of range.
    """

    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool = False
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise ValueError(f"num_beams={self.num_beams} must be at least 1")
        if not abs(self.length_penalty) <= MAX_LENGTH_PENALTY:
            limits = f"at least -{MAX_LENGTH_PENALTY} and at most {MAX_LENGTH_PENALTY}"
            raise ValueError(f"length_penalty={self.length_penalty} must be {limits}")
        if self.repetition_penalty <= 0.0:
            raise ValueError(f"repetition_penalty={self.repetition_penalty} must be greater than 0")


class Hypothesis(NamedTuple):
    """Continuation of a prompt.

    Attributes:
        score: its log-probability; if it has finished, divided by the power of its length.
        tokens: its tokens.
        row: row of the cache that it extends.
    """

    score: float
    tokens: list[int]
    row: int


@dataclass
class _Beams:
    """Continuations of one prompt: the running ones, and the best finished ones in descending order."""

    prompt: int
    running: list[Hypothesis]
    finished: list[Hypothesis] = field(default_factory=list)


@torch.no_grad()
def beam_search(
    model: PerceiverAR,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    max_new_tokens: int = 200,
    options: BeamSearch | None = None,
    stop_ids: Collection[int] = (),
    has_ended: Callable[[int, Sequence[int]], bool] | None = None,
) -> list[list[Tensor]]:
    """Find probable continuations of prompts by beam search, with the results of transformers.

    The logits are those of :meth:`~perceiver_core.PerceiverAR.score` for the tokens so far. The continuations of a
    prompt do not depend on the other prompts of a batch. The model is in evaluation mode meanwhile.

    Args:
        model: causal model whose batches have ``input_ids`` and whose outputs are logits.
        input_ids: prompts (b, k), padded on the left.
        attention_mask: (b, k), true or 1 at tokens, false or 0 at padding. Default: no padding.
        max_new_tokens: largest number of tokens to generate, at least 1.
        options: options of the search.
        stop_ids: tokens that end a continuation.
        has_ended: function that is called with the index of a prompt and the tokens of a continuation, and returns
            whether it has ended.

    Returns:
        The continuations of each prompt on the CPU, at most ``num_beams``, the best first. Tokens that end a
        continuation are part of it.

    Raises:
        ValueError: if a prompt is empty or padded on the right, or ``max_new_tokens`` is less than 1.
    """
    check_prompts(attention_mask)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
    search = options or BeamSearch()
    # As in transformers: enough for num_beams running continuations if the others end with stop tokens.
    num_candidates = (1 + max(1, len(stop_ids))) * search.num_beams

    def is_end(prompt: int, tokens: list[int]) -> bool:
        ends = tokens[-1] in stop_ids or len(tokens) == max_new_tokens
        return ends or (has_ended is not None and has_ended(prompt, tokens))

    with evaluating(model):
        all_beams = [_Beams(row, [Hypothesis(0.0, [], row)]) for row in range(len(input_ids))]
        active, batch, cache = all_beams, prompt_batch(input_ids, attention_mask), model.create_cache()
        seen: Tensor | None = None
        while active:
            logits = model.extend(batch, cache)[:, -1].double().cpu()
            seen = seen_tokens(input_ids, attention_mask, logits.shape[1]) if seen is None else seen
            log_probs = penalise(logits.log_softmax(dim=1), seen, search.repetition_penalty)
            for beams in active:
                _extend(beams, log_probs, search, num_candidates, is_end)
            active = [beams for beams in active if not _is_done(beams, search)]
            rows, new = _renumber(active)
            cache.select_rows(rows)
            seen = seen[rows].scatter(1, new, torch.ones_like(new, dtype=torch.bool))
            new = new.to(input_ids.device)
            batch = {name: new if name == "input_ids" else torch.ones_like(new) for name in batch}
    return [[torch.tensor(hypothesis.tokens) for hypothesis in beams.finished] for beams in all_beams]


def _renumber(active: list[_Beams]) -> tuple[Tensor, Tensor]:
    """Return the rows (r,) and last tokens (r, 1) of all running continuations, and renumber these from 0."""
    running = [each for beams in active for each in beams.running]
    rows = torch.tensor([each.row for each in running], dtype=torch.long)
    new = torch.tensor([each.tokens[-1] for each in running], dtype=torch.long).view(-1, 1)
    numbers = itertools.count()
    for beams in active:
        beams.running = [each._replace(row=next(numbers)) for each in beams.running]
    return rows, new


def _extend(
    beams: _Beams,
    log_probs: Tensor,
    search: BeamSearch,
    num_candidates: int,
    is_end: Callable[[int, list[int]], bool],
) -> None:
    """Extend the continuations of a prompt by a token.

    Of the best candidates, those that end are finished if they rank among the first ``num_beams``; the best others
    keep running.

    Args:
        beams: continuations, changed in place.
        log_probs: log-probabilities of the next tokens (rows, vocabulary).
        search: options of the search.
        num_candidates: number of candidates.
        is_end: function of the index of a prompt and the tokens of a continuation that returns whether it has ended.
    """
    rows = [each.row for each in beams.running]
    scores = log_probs[rows] + torch.tensor([[each.score] for each in beams.running], dtype=log_probs.dtype)
    values, indices = scores.flatten().topk(min(num_candidates, scores.numel()))
    running: list[Hypothesis] = []
    for rank, (score, index) in enumerate(zip(values.tolist(), indices.tolist(), strict=True)):
        number, token = divmod(index, scores.shape[1])
        tokens = [*beams.running[number].tokens, token]
        if not is_end(beams.prompt, tokens):
            running.append(Hypothesis(score, tokens, rows[number]))
        elif rank < search.num_beams:
            beams.finished.append(Hypothesis(score / len(tokens) ** search.length_penalty, tokens, rows[number]))
    beams.finished = sorted(beams.finished, key=lambda each: -each.score)[: search.num_beams]
    beams.running = running[: search.num_beams]


def _is_done(beams: _Beams, search: BeamSearch) -> bool:
    """Return whether the best continuations of a prompt have been found."""
    if not beams.running:
        return True
    if len(beams.finished) < search.num_beams:
        return False
    best = beams.running[0]
    attainable = best.score / len(best.tokens) ** search.length_penalty
    return search.early_stopping or attainable <= beams.finished[-1].score
