"""Base class of predictors that continue prompts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from perceiver_core import Batch
from perceiver_plugins.generation.beams import BeamSearch, beam_search
from perceiver_plugins.generation.lightning import LitCausalModel
from perceiver_plugins.generation.sampling import Sampling, generate
from perceiver_plugins.sdk.prediction.predictor import Predictor, Read
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_registry import UserError


class GenerationPredictor(Predictor):
    """Base class of predictors of the continuation of each prompt. Subclasses implement :attr:`stop_ids`.

    A continuation depends on its prompt, the seed and the number of the prompt, not on the others of a batch.

    Args:
        module: the causal model, with its weights loaded.
        reader: reader of prompts. Its batches have ``input_ids`` and ``attention_mask``, padded on the left.
        max_new_tokens: largest number of tokens to generate.
        temperature: divisor of the logits; less than 1: more probable tokens. 0: the most probable token each time.
        top_k: number of most probable tokens to choose from. Null: all.
        top_p: choose from the fewest most probable tokens whose probabilities sum to at least this. Null: all.
        repetition_penalty: divisor of the positive logits, and factor of the negative ones, of tokens so far.
        seed: seed of the samples. Null: other samples each time.
        num_return_sequences: continuations of each prompt. With beams, the best ones, ``num_beams`` or less.
        num_beams: continuations that beam search extends at the same time. 1: no beam search.
        length_penalty: power of the number of tokens, by which beam search divides the log-probability of a
            continuation that has ended. Greater than 0: longer ones rank higher.
        early_stopping: beam search stops when ``num_beams`` continuations have ended, although others may rank higher.
        batch_size: prompts per batch.

    Raises:
        UserError: if a value is out of range.
    """

    module: LitCausalModel

    def __init__(
        self,
        module: LitCausalModel,
        reader: Reader,
        max_new_tokens: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        num_return_sequences: int = 1,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
        batch_size: int = 32,
    ):
        super().__init__(module, reader, batch_size)
        try:
            self.sampling = Sampling(repetition_penalty, temperature, top_k, top_p)
            self.search = BeamSearch(num_beams, length_penalty, early_stopping, repetition_penalty)
        except ValueError as error:
            raise UserError(str(error)) from error
        counts = {"max_new_tokens": max_new_tokens, "num_return_sequences": num_return_sequences}
        for name, value in {**counts, **({} if seed is None else {"seed": seed})}.items():
            smallest = 1 if name in counts else 0
            if value < smallest:
                raise UserError(f"{name}={value} must be at least {smallest}")
        _refuse_unused_options(self.sampling, self.search)
        if 1 < num_beams < num_return_sequences:
            raise UserError(f"num_return_sequences={num_return_sequences} must be at most num_beams={num_beams}")
        self.max_new_tokens = max_new_tokens
        self.num_return_sequences = num_return_sequences
        self.seed: Any = np.random.SeedSequence(seed).entropy

    @property
    @abstractmethod
    def stop_ids(self) -> Collection[int]:
        """Tokens that end a continuation."""

    def generate(
        self,
        batch: Batch,
        read: Sequence[Read],
        on_token: Callable[[int, int], bool | None] | None = None,
        has_ended: Callable[[int, Sequence[int]], bool] | None = None,
    ) -> list[list[Tensor]]:
        """Continue the prompts of a batch, each :attr:`num_return_sequences` times.

        Args:
            batch: the batch, on the model's device.
            read: the prompts.
            on_token: without beams, function that is called with the index of a continuation in the batch and each
                token generated for it, and returns True to end it.
            has_ended: with beams, function that is called with the index of a prompt and the tokens of a continuation,
                and returns True to end it.

        Returns:
            The generated tokens of the continuations of each prompt, with the one that ended them.
        """
        number_each = self.num_return_sequences
        model: Any = self.module.model
        if self.search.num_beams > 1:
            prompts = batch["input_ids"], batch["attention_mask"]
            found = beam_search(model, *prompts, self.max_new_tokens, self.search, self.stop_ids, has_ended)
            return [best[:number_each] for best in found]
        tokens = generate(
            model,
            batch["input_ids"].repeat_interleave(number_each, dim=0),
            batch["attention_mask"].repeat_interleave(number_each, dim=0),
            self.max_new_tokens,
            self.sampling,
            self.stop_ids,
            [(self.seed, number, index) for number, _, _ in read for index in range(number_each)],
            on_token,
        )
        return [tokens[start : start + number_each] for start in range(0, len(tokens), number_each)]


def _refuse_unused_options(sampling: Sampling, search: BeamSearch) -> None:
    """Refuse options of sampling with beam search, and options of beam search without it.

    Raises:
        UserError: if one of them differs from its default.
    """
    beams = search.num_beams > 1
    names = ("temperature", "top_k", "top_p") if beams else ("length_penalty", "early_stopping")
    given, default = (sampling, Sampling()) if beams else (search, BeamSearch())
    advice = "leave one of them out" if beams else "add num_beams=4"
    for name in names:
        if getattr(given, name) != getattr(default, name):
            raise UserError(f"{name}: has no effect with num_beams={search.num_beams} ({advice})")
