"""Filling in what is masked in a text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.text.data.chunks import Collator
from perceiver_plugins.text.lightning import LitLanguageModel
from perceiver_plugins.text.model import LanguageModel
from perceiver_plugins.text.reading import TextReader
from perceiver_registry import UserError

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

    def _encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        mask_token = self.tokenizer.mask_token
        for written in MASKS:
            texts = [text.replace(written, mask_token) for text in texts]
        for text in texts:
            if mask_token not in text:
                raise UserError(f"nothing to fill in: {text!r} has no {' or '.join(MASKS)}")
        # Padded here, since a tokenizer without a pad token cannot; the model ignores the padding whatever it is.
        ids = self.tokenizer(list(texts), add_special_tokens=self.add_special_tokens, verbose=False)["input_ids"]
        side: Any = self.tokenizer.padding_side
        encoded = Collator(int(self.tokenizer.pad_token_id or 0), side).inputs([np.array(row) for row in ids])
        max_seq_len = self.model.config.encoder.max_seq_len
        for text, length in zip(texts, encoded["attention_mask"].sum(dim=1).tolist(), strict=True):
            if length > max_seq_len:
                raise UserError(
                    f"{text[:40]!r}... is {length} tokens long; the model takes at most max_seq_len={max_seq_len}"
                )
        device = self.model.encoder.latents.device
        return {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}

    def _probabilities(self, encoded: Mapping[str, Tensor], masked: Tensor) -> Tensor:
        """Probabilities (number of masks, vocabulary); 0 for special tokens, which are no text."""
        logits = self.model(encoded["input_ids"], encoded["attention_mask"], positions=masked).float()
        logits[:, self.tokenizer.all_special_ids] = float("-inf")
        return logits.softmax(dim=-1)

    def _decode(self, ids: Tensor) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class MaskPredictor:
    """Serves ``perceiver predict`` for language models.

    Args:
        module: the Lightning module, with its weights loaded.
        reader: reads texts, with the tokenizer that the model was trained with.
        top_k: how many guesses to show for each mask.
    """

    def __init__(self, module: LitLanguageModel, reader: TextReader, top_k: int = 5):
        self.filler = MaskFiller(module.model, reader.tokenizer, reader.add_special_tokens)
        self.top_k = top_k
        self.failures: list[str] = []

    def predict(self, inputs: Sequence[str]) -> list[dict[str, Any]]:
        """Fillings of the masks of each text, as plain data."""
        return [asdict(filling) for filling in self.filler.fill(inputs, self.top_k)]

    @staticmethod
    def rows(predictions: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
        """The predictions as rows of a table."""
        for prediction in predictions:
            filled = prediction["filled"]
            for number, guesses in enumerate(prediction["masks"], start=1):
                likely = "  ".join(f"{guess['token']!r} {guess['probability']:.2f}" for guess in guesses)
                yield {"filled": filled, "mask": str(number), "guesses with probability": likely}
                filled = ""
