"""Continuation of prompts by causal language models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.generation.prediction import GenerationPredictor
from perceiver_plugins.sdk.prediction.predictor import Prediction, Read
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_plugins.text.causal import LitCausalLanguageModel
from perceiver_plugins.text.data.causal import CausalEncoder, document_bounds
from perceiver_plugins.text.reading import TextExample, TextReader
from perceiver_plugins.text.tokenizers import serialize_tokenizer
from perceiver_registry import UserError
from perceiver_registry.errors import shorten
from perceiver_registry.escaping import escape_controls

INCOMPLETE = "\ufffd"
"""Character that a decoder returns for bytes that are not UTF-8, such as the first bytes of a character."""

NUM_CONTEXT_TOKENS = 8
"""Tokens of the prompt to decode with the first new ones, whose white space may depend on them. Arbitrary."""


class PromptReader(TextReader):
    """Reader of prompts, with the tokenizer that the model was trained with.

    Inputs are those of :class:`~perceiver_plugins.text.reading.TextReader`, and may be empty. A prompt begins as a
    document does, and is read whole: the model's window slides.

    Args:
        data: description of the training data from the checkpoint: ``description()`` of the data module. If its
            ``add_bos_token`` is false, documents of the training data began without a special token. Only an empty
            prompt has one then.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on texts.
    """

    long_inputs = False

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        whole = {"max_seq_len": None, "padding_side": "left", "add_special_tokens": False, "add_eos_token": False}
        super().__init__({**data, **whole}, input_adapter)
        self.encoder = CausalEncoder(self.tokenizer)
        self.add_bos_token = bool(data.get("add_bos_token", True))

    @classmethod
    def example(cls, input_adapter: InputAdapter, folder: Path) -> tuple[Reader, list[str]]:
        vocabulary = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "a", "small", "text"]  # few, to fit into any vocabulary
        words = Tokenizer(WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="[UNK]"))
        words.pre_tokenizer = Whitespace()
        special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
        tokenizer = serialize_tokenizer(PreTrainedTokenizerFast(tokenizer_object=words, **special))
        return cls({"tokenizer": tokenizer}, input_adapter), ["a small text", "text"]

    def read(self, source: str) -> TextExample:
        """Tokenize a prompt, or a text file.

        Raises:
            UserError: if the file cannot be read, or if the prompt is not valid Unicode.
        """
        text, _ = self.excerpt(source)
        ids, spans = self.encoder.encode_with_spans(text)
        has_prefix = self.add_bos_token or not len(ids)
        prefix = np.array(self.encoder.prefix if has_prefix else [], np.int64)
        return TextExample(
            np.concatenate([prefix, ids.astype(np.int64)]),
            np.concatenate([np.full((len(prefix), 2), -1), spans.reshape(-1, 2)]),
            text,
        )


class Continuation:
    """Text of a continuation, decoded token by token.

    Characters of several tokens appear with their last one.

    Args:
        tokenizer: the model's tokenizer.
        prompt: tokens of the prompt.
        stops: strings that end the text, without being part of it.
        on_text: function that is called with each part of the text, once no later token can change it.

    Attributes:
        text: the text so far.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Sequence[int],
        stops: Sequence[str] = (),
        on_text: Callable[[str], Any] | None = None,
    ) -> None:
        self.text = ""
        self._tokenizer = tokenizer
        self._stops = stops
        self._on_text = on_text
        self._tokens = list(prompt[-NUM_CONTEXT_TOKENS:])
        self._start, self._stop = 0, len(self._tokens)  # of the tokens decoded last
        self._num_shown = 0

    def append(self, token: int) -> bool:
        """Append a token, and return whether the text has ended."""
        self._tokens.append(token)
        return self._decode(is_last=False)

    def finish(self) -> str:
        """Return the text, with characters that are incomplete."""
        self._decode(is_last=True)
        self._show(len(self.text))
        return self.text

    def _decode(self, is_last: bool) -> bool:
        before, after = (self._decoded(self._tokens[self._start : stop]) for stop in (self._stop, None))
        if after.endswith(INCOMPLETE) and not is_last:
            return False
        self._start, self._stop = self._stop, len(self._tokens)
        first = len(self.text) - max(map(len, self._stops), default=1) + 1
        self.text += after[len(before) :]
        found = [index for stop in self._stops if (index := self.text.find(stop, max(0, first))) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self._start = self._stop
            return True
        self._show(len(self.text) - max((_overlap(self.text, stop) for stop in self._stops), default=0))
        return False

    def _decoded(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _show(self, stop: int) -> None:
        if self._on_text is not None and stop > self._num_shown:
            self._on_text(self.text[self._num_shown : stop])
            self._num_shown = stop


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of a text that may begin a string."""
    return next((size for size in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:size])), 0)


class ContinuationPredictor(GenerationPredictor):
    """Predictor of the text that continues each prompt.

    A continuation depends on its prompt, the seed and the number of the prompt, not on the others of a batch.

    Args:
        module: the causal language model, with its weights loaded.
        reader: reader of prompts, with the tokenizer that the model was trained with.
        max_new_tokens: largest number of tokens to generate.
        temperature: divisor of the logits; less than 1: more probable tokens. 0: the most probable token each time.
        top_k: number of most probable tokens to choose from. Null: all.
        top_p: choose from the fewest most probable tokens whose probabilities sum to at least this. Null: all.
        repetition_penalty: divisor of the positive logits, and factor of the negative ones, of tokens so far.
        stop: string, or list of strings, that ends a continuation, without being part of it.
        seed: seed of the samples. Null: other samples each time.
        num_return_sequences: continuations of each prompt. With beams, the best ones, ``num_beams`` or less.
        num_beams: continuations that beam search extends at the same time. 1: no beam search.
        length_penalty: power of the number of tokens, by which beam search divides the log-probability of a
            continuation that has ended. Greater than 0: longer ones rank higher.
        early_stopping: beam search stops when ``num_beams`` continuations have ended, although others may rank higher.
        batch_size: prompts per batch.
    """

    module: LitCausalLanguageModel
    reader: PromptReader

    def __init__(
        self,
        module: LitCausalLanguageModel,
        reader: PromptReader,
        max_new_tokens: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        num_return_sequences: int = 1,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
        batch_size: int = 32,
    ):
        super().__init__(
            module,
            reader,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            num_return_sequences=num_return_sequences,
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            batch_size=batch_size,
        )
        self.stops = [stop] if isinstance(stop, str) else stop or []
        if "" in self.stops:
            raise UserError("stop='' must not be empty (leave it out)")
        self._stream_to: TextIO | None = None
        self._is_single = False

    @property
    def stop_ids(self) -> Collection[int]:
        return set(document_bounds(self.reader.tokenizer))

    def stream(self, inputs: Iterable[str]) -> Iterator[Prediction]:
        """Continue each prompt, batch by batch.

        Args:
            inputs: prompts, files and folders of texts.

        Raises:
            UserError: if an input names no prompt.
        """
        self._is_single = isinstance(inputs, Sequence) and len(inputs) == 1 and self.num_return_sequences == 1
        return super().stream(inputs)

    def ask(self, batch: Batch, read: Sequence[Read], positions: Any = None) -> list[list[str]]:
        """Continue the prompts of a batch.

        Args:
            batch: the batch, on the model's device.
            read: the prompts.
            positions: not used.

        Returns:
            The continuations of each prompt.
        """
        on_text = self._begin_streaming(read)
        return self._search(batch, read, on_text) if self.search.num_beams > 1 else self._sample(batch, read, on_text)

    def _search(self, batch: Batch, read: Sequence[Read], on_text: Callable[[str], None] | None) -> list[list[str]]:
        """Return the best continuations of each prompt."""
        prompts = [example.input_ids.tolist() for _, _, example in read]

        def continued(row: int, tokens: Sequence[int], on_text: Any = None) -> tuple[Continuation, bool]:
            continuation = Continuation(self.reader.tokenizer, prompts[row], self.stops, on_text)
            return continuation, any(continuation.append(token) for token in tokens)

        has_ended = (lambda row, tokens: continued(row, tokens)[1]) if self.stops else None
        return [
            [continued(row, tokens.tolist(), on_text)[0].finish() for tokens in best]
            for row, best in enumerate(self.generate(batch, read, has_ended=has_ended))
        ]

    def _sample(self, batch: Batch, read: Sequence[Read], on_text: Callable[[str], None] | None) -> list[list[str]]:
        """Return samples of the continuations of each prompt."""
        number_each = self.num_return_sequences
        continuations = [
            Continuation(self.reader.tokenizer, example.input_ids.tolist(), self.stops, on_text)
            for _, _, example in read
            for _ in range(number_each)
        ]
        self.generate(batch, read, lambda row, token: continuations[row].append(token))
        texts = [continuation.finish() for continuation in continuations]
        return [texts[start : start + number_each] for start in range(0, len(texts), number_each)]

    def _begin_streaming(self, read: Sequence[Read]) -> Callable[[str], None] | None:
        """Write a single prompt, and return a function that writes its continuation; None for several prompts."""
        stream = self._stream_to
        if stream is None or not self._is_single or len(read) != 1 or read[0][0] != 0:
            return None

        def write(text: str) -> None:
            stream.write(escape_controls(text))
            stream.flush()

        write(read[0][2].text)
        return write

    def answers(self, output: Sequence[Sequence[str]], examples: Sequence[TextExample]) -> list[Prediction]:
        return [
            {"prompt": example.text, "continuations": list(texts)}
            for example, texts in zip(examples, output, strict=True)
        ]

    def write_text(self, predictions: Iterable[Prediction], stream: TextIO) -> None:
        """Write prompts with their continuations: a single one as it is generated, several under headings.

        Args:
            predictions: result of :meth:`stream`.
            stream: text stream.
        """
        self._stream_to = stream
        try:
            found = list(predictions)
        finally:
            self._stream_to = None
        whole = [(each["input"], each["prompt"] + text) for each in found for text in each["continuations"]]
        if self._is_single and len(whole) == 1:
            stream.write("\n")  # the rest has been written
            return
        for number, (source, text) in enumerate(whole, start=1):
            heading = f"--- {number}: {shorten(source)!r} ---\n"
            stream.write(escape_controls(f"{heading}{text}\n"))

    @staticmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """Yield one row per continuation."""
        for record in ContinuationPredictor.records(predictions):
            yield {"input": record["input"], "continuation": record["continuation"]}

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        """Yield one row per continuation."""
        for prediction in predictions:
            for number, text in enumerate(prediction["continuations"], start=1):
                yield {"input": prediction["input"], "number": number, "continuation": text}
