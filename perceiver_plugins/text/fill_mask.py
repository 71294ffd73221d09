"""Filling in what is masked in a text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.sdk.prediction.predictor import Prediction, Predictor, number_columns
from perceiver_plugins.text.data.chunks import Collator
from perceiver_plugins.text.lightning import LitLanguageModel
from perceiver_plugins.text.model import LanguageModel
from perceiver_plugins.text.reading import TextReader
from perceiver_registry import UserError
from perceiver_registry.errors import shorten

MASKS = ("<mask>", "[MASK]")
"""What a person may write for a mask, whatever the tokenizer's own word for it is."""

BATCH_SIZE = 32


@dataclass(frozen=True)
class Guess:
    """A token that may stand at a mask.

    Attributes:
        token: the token, as text.
        probability: its probability.
    """

    token: str
    probability: float


@dataclass(frozen=True)
class Filling:
    """A text with its masks filled in.

    Attributes:
        text: the text with masks.
        filled: the text with the most probable token at each mask.
        masks: for each mask, the most probable tokens, the best one first.
    """

    text: str
    filled: str
    masks: list[list[Guess]]


class MaskFiller:
    """Fills in masked tokens, or masked bytes if the tokenizer's tokens are bytes.

    Args:
        model: the language model.
        tokenizer: the tokenizer that it was trained with.
        add_special_tokens: whether sequences begin and end with the tokenizer's special tokens.
    """

    def __init__(self, model: LanguageModel, tokenizer: PreTrainedTokenizerBase, add_special_tokens: bool = False):
        self.model = model
        self.tokenizer = tokenizer
        self.add_special_tokens = add_special_tokens

    def fill(self, texts: Sequence[str], top_k: int = 5) -> list[Filling]:
        """Fills the masks (``<mask>`` or ``[MASK]``) of each text, each mask independently of the others.

        Args:
            texts: texts with at least one mask; a mask stands for one token.
            top_k: how many guesses to return for each mask.

        Raises:
            UserError: if a text has no mask, or is longer than the model's ``max_seq_len``.
        """
        was_training = self.model.training
        self.model.eval()
        try:
            return list(itertools.chain.from_iterable(self._fill_batches(texts, top_k)))
        finally:
            self.model.train(was_training)

    @torch.no_grad()
    def _fill_batches(self, texts: Sequence[str], top_k: int) -> Iterator[list[Filling]]:
        for start in range(0, len(texts), BATCH_SIZE):
            batch = texts[start : start + BATCH_SIZE]
            encoded = self._encode(batch)
            # The padding of a tokenizer without a pad token may be its mask token.
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
        """Check that there is a mask in a text, and that the model can read all of it.

        Args:
            text: the text.
            shown: what a message shows of it.

        Raises:
            UserError: if not.
        """
        written = self._with_mask_tokens(text)
        if self.tokenizer.mask_token not in written:
            raise UserError(f"nothing to fill in: {shown!r} has no {' or '.join(MASKS)}")
        max_seq_len = self.model.config.encoder.max_seq_len
        length = len(self.tokenizer(written, add_special_tokens=self.add_special_tokens, verbose=False)["input_ids"])
        if length > max_seq_len:
            raise UserError(f"{shown!r} is {length} tokens long; the model takes at most max_seq_len={max_seq_len}")

    def _with_mask_tokens(self, text: str) -> str:
        for written in MASKS:
            text = text.replace(written, self.tokenizer.mask_token)
        return text

    def _encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        for text in texts:
            self.check(text, shorten(text))
        written = [self._with_mask_tokens(text) for text in texts]
        # Padded here, since a tokenizer without a pad token cannot; the model ignores the padding whatever it is.
        ids = self.tokenizer(written, add_special_tokens=self.add_special_tokens, verbose=False)["input_ids"]
        side: Any = self.tokenizer.padding_side
        encoded = Collator(int(self.tokenizer.pad_token_id or 0), side).inputs([np.array(row) for row in ids])
        device = self.model.encoder.latents.device
        return {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}

    def _probabilities(self, encoded: Mapping[str, Tensor], masked: Tensor) -> Tensor:
        """Probabilities (number of masks, vocabulary); 0 for special tokens, which are no text."""
        logits = self.model(encoded["input_ids"], encoded["attention_mask"], positions=masked).float()
        logits[:, self.tokenizer.all_special_ids] = float("-inf")
        return logits.softmax(dim=-1)

    def _decode(self, ids: Tensor) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class MaskPredictor(Predictor):
    """Predict the tokens at the masks of each text.

    Args:
        module: the Lightning module, with its weights loaded.
        reader: reads texts, with the tokenizer that the model was trained with.
        top_k: how many guesses to show for each mask.
    """

    reader: TextReader

    def __init__(self, module: LitLanguageModel, reader: TextReader, top_k: int = 5):
        super().__init__(module, reader)
        if top_k < 1:
            raise UserError(f"top_k={top_k} must be at least 1")
        self.filler = MaskFiller(module.model, reader.tokenizer, reader.add_special_tokens)
        self.top_k = top_k

    def stream(self, inputs: Iterable[str]) -> Iterator[Prediction]:
        """Fill the masks of each text; texts that cannot be filled are left out and named in :attr:`failures`.

        Args:
            inputs: texts, and files and folders of texts.

        Raises:
            UserError: if an argument yields no text at all, or if no text can be filled.
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
        """A text that can be filled, or None."""
        try:
            text, is_whole = self.reader.excerpt(source)
            if not is_whole:
                limit = self.reader.max_seq_len
                raise UserError(f"{shorten(source)!r} is longer than the {limit} tokens (max_seq_len) of the model")
            self.filler.check(text, shorten(source))
        except UserError as error:
            self.failures.append(str(error))
            return None
        return text

    def answers(self, output: Sequence[Filling], examples: Sequence[Any]) -> list[Prediction]:
        return [asdict(filling) for filling in output]

    @staticmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """One row for each mask."""
        for prediction in predictions:
            filled = prediction["filled"]
            for number, guesses in enumerate(prediction["masks"], start=1):
                likely = "  ".join(f"{guess['token']!r} {guess['probability']:.2f}" for guess in guesses)
                yield {"filled": filled, "mask": str(number), "guesses with probability": likely}
                filled = ""

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        """One row for each mask, its guesses side by side."""
        for prediction in predictions:
            for number, guesses in enumerate(prediction["masks"], start=1):
                yield {
                    "input": prediction["input"],
                    "filled": prediction["filled"],
                    "mask": number,
                    **number_columns(guesses),
                }
