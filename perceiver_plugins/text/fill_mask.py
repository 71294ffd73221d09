"""Prediction of masked tokens (fill-mask)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from perceiver_core import PerceiverIO
from perceiver_core.model import mask_to_positions
from perceiver_plugins.sdk.evaluation_mode import evaluating
from perceiver_plugins.sdk.prediction.predictor import Prediction, Predictor, number_columns
from perceiver_plugins.text.data.chunks import Collator
from perceiver_plugins.text.lightning import LitLanguageModel
from perceiver_plugins.text.reading import TextReader
from perceiver_registry import UserError
from perceiver_registry.errors import shorten

MASKS = ("<mask>", "[MASK]")
"""Spellings of a mask in the user's texts, in addition to the tokenizer's own mask token."""

BATCH_SIZE = 32
"""Texts per batch; arbitrary."""


@dataclass(frozen=True)
class Guess:
    """Predicted token of a mask.

    Attributes:
        token: the token, as text.
        probability: probability of the token.
    """

    token: str
    probability: float


@dataclass(frozen=True)
class Filling:
    """A text with its masks filled in.

    Attributes:
        text: the text with masks.
        filled: the text with the most probable token at each mask.
        masks: the most probable tokens of each mask, in descending order.
    """

    text: str
    filled: str
    masks: list[list[Guess]]


class MaskFiller:
    """Fills in masked tokens, or masked bytes with a byte tokenizer.

    Args:
        model: the language model.
        tokenizer: the tokenizer that the model was trained with.
        add_special_tokens: enclose each text in the tokenizer's special tokens.
    """

    def __init__(self, model: PerceiverIO, tokenizer: PreTrainedTokenizerBase, add_special_tokens: bool = False):
        self.model = model
        self.tokenizer = tokenizer
        self.add_special_tokens = add_special_tokens

    def fill(self, texts: Sequence[str], top_k: int = 5) -> list[Filling]:
        """Fill the masks (``<mask>`` or ``[MASK]``) of each text. Masks of one text are predicted independently.

        Args:
            texts: texts with at least one mask each; a mask is one token.
            top_k: number of tokens to return for each mask.

        Raises:
            UserError: if a text has no mask, or is longer than the model's ``max_seq_len``.
        """
        with evaluating(self.model):
            return list(itertools.chain.from_iterable(self._fill_batches(texts, top_k)))

    @torch.no_grad()
    def _fill_batches(self, texts: Sequence[str], top_k: int) -> Iterator[list[Filling]]:
        for start in range(0, len(texts), BATCH_SIZE):
            batch = texts[start : start + BATCH_SIZE]
            encoded = self._encode(batch)
            # Without a pad token, padding is token 0, which may be the mask token.
            masked = (encoded["input_ids"] == self.tokenizer.mask_token_id) & encoded["attention_mask"].bool()
            probabilities = self._probabilities(encoded, masked)
            best, best_ids = probabilities.topk(min(top_k, probabilities.shape[1]))
            filled_ids = encoded["input_ids"].masked_scatter(masked, best_ids[:, 0])
            rows = zip(best.tolist(), best_ids.tolist(), strict=True)
            guesses = [[Guess(str(self.tokenizer.decode([i])), p) for p, i in zip(*row, strict=True)] for row in rows]
            remaining = iter(guesses)
            yield [
                Filling(text, self._decode(ids[mask]), list(itertools.islice(remaining, count)))
                for text, ids, mask, count in zip(
                    batch, filled_ids, encoded["attention_mask"].bool(), masked.sum(dim=1).tolist(), strict=True
                )
            ]

    def check(self, text: str, shown: str) -> None:
        """Check that a text has a mask and is not longer than the model's ``max_seq_len``.

        Args:
            text: the text.
            shown: the text as shown in error messages.

        Raises:
            UserError: if it has no mask or is longer.
        """
        masked = self._with_mask_tokens(text)
        if self.tokenizer.mask_token not in masked:
            raise UserError(f"{shown!r}: no {' or '.join(MASKS)} to fill in")
        max_seq_len = self.model.config.encoder.max_seq_len
        length = len(self.tokenizer(masked, add_special_tokens=self.add_special_tokens, verbose=False)["input_ids"])
        if length > max_seq_len:
            raise UserError(f"{shown!r}: {length} tokens, more than the model's max_seq_len={max_seq_len}")

    def _with_mask_tokens(self, text: str) -> str:
        for spelling in MASKS:
            text = text.replace(spelling, self.tokenizer.mask_token)
        return text

    def _encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        for text in texts:
            self.check(text, shorten(text))
        masked = [self._with_mask_tokens(text) for text in texts]
        # Padded by the collator, as tokenizers without a pad token cannot pad. The model ignores padding.
        ids = self.tokenizer(masked, add_special_tokens=self.add_special_tokens, verbose=False)["input_ids"]
        side: Any = self.tokenizer.padding_side
        encoded = Collator(int(self.tokenizer.pad_token_id or 0), side).inputs([np.array(row) for row in ids])
        device = next(self.model.parameters()).device
        return {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}

    def _probabilities(self, encoded: Mapping[str, Tensor], masked: Tensor) -> Tensor:
        """Compute probabilities (masks, vocabulary); those of special tokens are 0."""
        positions, chosen = mask_to_positions(masked)
        logits = self.model(encoded, positions=positions)[chosen].float()
        logits[:, self.tokenizer.all_special_ids] = float("-inf")
        return logits.softmax(dim=-1)

    def _decode(self, ids: Tensor) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class MaskPredictor(Predictor):
    """Predictor of the tokens at the masks of each text.

    Args:
        module: the language model, with its weights loaded.
        reader: reader of texts, with the tokenizer that the model was trained with.
        top_k: number of tokens to show for each mask.
    """

    reader: TextReader

    def __init__(self, module: LitLanguageModel, reader: TextReader, top_k: int = 5):
        super().__init__(module, reader)
        if top_k < 1:
            raise UserError(f"top_k={top_k} must be at least 1")
        self.filler = MaskFiller(module.model, reader.tokenizer, reader.add_special_tokens)
        self.top_k = top_k

    def stream(self, inputs: Iterable[str]) -> Iterator[Prediction]:
        """Fill the masks of each text. Texts that cannot be filled are left out and reported in :attr:`failures`.

        Args:
            inputs: texts, files and folders of texts.

        Raises:
            UserError: if an input yields no text, or if no text can be filled.
        """
        is_empty = True
        for prediction in super().stream(inputs):
            is_empty = False
            yield prediction
        if is_empty and self.failures:
            others = f" (and {len(self.failures) - 1} others)" if len(self.failures) > 1 else ""
            raise UserError(f"{self.failures[0]}{others}")

    def _predict_batch(self, sources: Sequence[str], start: int) -> list[Prediction]:
        texts = {number: text for number, source in enumerate(sources) if (text := self._read(source)) is not None}
        fillings = self.filler.fill(list(texts.values()), self.top_k)
        return [
            {"input": sources[number], **prediction}
            for number, prediction in zip(texts, self.answers(fillings, list(texts.values())), strict=True)
        ]

    def _read(self, source: str) -> str | None:
        """Read a text; None, and an entry of :attr:`failures`, if it cannot be filled."""
        try:
            text, is_whole = self.reader.excerpt(source)
            if not is_whole:
                limit = self.reader.max_seq_len
                raise UserError(f"{shorten(source)!r}: more tokens than the model's max_seq_len={limit}")
            self.filler.check(text, shorten(source))
        except UserError as error:
            self.failures.append(str(error))
            return None
        return text

    def answers(self, output: Sequence[Filling], examples: Sequence[Any]) -> list[Prediction]:
        return [asdict(filling) for filling in output]

    @staticmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """Yield one row per mask."""
        for prediction in predictions:
            filled = prediction["filled"]
            for number, guesses in enumerate(prediction["masks"], start=1):
                likely = "  ".join(f"{guess['token']!r} {guess['probability']:.2f}" for guess in guesses)
                yield {"filled": filled, "mask": str(number), "guesses with probability": likely}
                filled = ""

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        """Yield one row per mask, with its guesses in columns."""
        for prediction in predictions:
            for number, guesses in enumerate(prediction["masks"], start=1):
                yield {
                    "input": prediction["input"],
                    "filled": prediction["filled"],
                    "mask": number,
                    **number_columns(guesses),
                }
