"""Continuation of prompts, and its prediction from the command line."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PerceiverTokenizer

from perceiver_core import PerceiverARConfig
from perceiver_plugins.generation import BeamSearch, NextTokenDecoderConfig, TokenEncoderConfig, beam_search
from perceiver_plugins.generation.sampling import generate
from perceiver_plugins.text.causal import LitCausalLanguageModel
from perceiver_plugins.text.continuation import Continuation, ContinuationPredictor, PromptReader
from perceiver_plugins.text.samples import MASK, NUM_NEW_TOKENS, ContinuationSamples
from perceiver_plugins.text.tokenizers import serialize_tokenizer
from perceiver_registry import UserError, create_module
from perceiver_registry.escaping import escape_line

TOKENIZER = PerceiverTokenizer()

BEGIN, END, FIRST_BYTE = 1, 2, 6


@pytest.fixture(scope="module")
def module() -> LitCausalLanguageModel:
    config: Any = PerceiverARConfig(
        TokenEncoderConfig(
            num_input_channels=16,
            num_cross_attention_heads=2,
            num_self_attention_heads=2,
            num_self_attention_layers_per_block=1,
        ),
        NextTokenDecoderConfig(),
        max_seq_len=23,
        num_latents=7,
        num_latent_channels=16,
    )
    made = create_module("clm", config)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0.0, 1.0, generator=generator)
    return made.eval()


@pytest.fixture(scope="module")
def reader(module: LitCausalLanguageModel) -> PromptReader:
    data = {"tokenizer": serialize_tokenizer(TOKENIZER), "max_seq_len": 23, "padding_side": "left"}
    return PromptReader(data, module.model.input_adapter)


def predictor(module: Any, reader: Any, **options: Any) -> ContinuationPredictor:
    return ContinuationPredictor(module, reader, **{"max_new_tokens": 20, "seed": 3, **options})


def test_prompts_begin_as_documents_and_are_read_whole(reader: PromptReader, tmp_path: Path) -> None:
    text = "prömpt" * 30
    (tmp_path / "a.txt").write_text(text)
    for source, wanted in ((text, text), (str(tmp_path / "a.txt"), text), ("", "")):
        example = reader.read(source)
        assert example.input_ids.tolist() == [BEGIN, *(byte + FIRST_BYTE for byte in wanted.encode())]
        assert example.text == wanted
    batch = reader.collate([reader.read("a"), reader.read("")])
    assert batch["input_ids"].tolist() == [[BEGIN, ord("a") + FIRST_BYTE], [0, BEGIN]]
    assert batch["attention_mask"].tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_k": 4, "top_p": 0.9, "repetition_penalty": 1.2}])
def test_prompts_of_a_batch_are_continued_as_one_by_one(module: Any, reader: Any, options: Any) -> None:
    prompts = ["", "a prompt", "a prompt that is longer than the window of the model"]
    batch = predictor(module, reader, num_return_sequences=2, **options).predict(prompts)
    ones = predictor(module, reader, num_return_sequences=2, batch_size=1, **options).predict(prompts)
    assert batch == ones
    assert [each["prompt"] for each in batch] == prompts
    texts = [text for each in batch for text in each["continuations"]]
    assert len(texts) == 6
    assert (texts[0] == texts[1]) == (options.get("temperature") == 0.0)


def test_seeds_determine_the_samples(module: Any, reader: Any) -> None:
    first, same, other = (predictor(module, reader, seed=seed).predict(["x"]) for seed in (1, 1, 2))
    assert first == same != other
    assert predictor(module, reader, seed=None).predict(["x"]) != predictor(module, reader, seed=None).predict(["x"])


def test_greedy_continuation_is_that_of_the_model(module: Any, reader: Any) -> None:
    ids = reader.read("Ein Anfang").input_ids.tolist()
    start = len(ids)
    for _ in range(20):
        logits = module.model.score({"input_ids": torch.tensor([ids])}, 1)[0, -1]
        if (token := int(logits.argmax())) in (BEGIN, END):
            break
        ids.append(token)
    (found,) = predictor(module, reader, temperature=0.0).predict(["Ein Anfang"])
    assert found["continuations"] == [TOKENIZER.decode(ids[start:], skip_special_tokens=True)]


def test_beam_search_returns_the_best_continuations(module: Any, reader: Any) -> None:
    prompts = ["Ein Anfang", ""]
    options: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5}
    found = predictor(module, reader, **options).predict(prompts)
    assert found == predictor(module, reader, batch_size=1, **options).predict(prompts)
    for prompt, prediction in zip(prompts, found, strict=True):
        ids = torch.tensor([reader.read(prompt).input_ids.tolist()])
        (best,) = beam_search(module.model, ids, None, 20, BeamSearch(3, 0.5), {BEGIN, END})
        texts = [TOKENIZER.decode(tokens.tolist(), skip_special_tokens=True) for tokens in best]
        assert prediction["continuations"] == texts[:2]
    assert found[0]["continuations"][0] != found[0]["continuations"][1]


def test_stop_strings_end_beams(module: Any, reader: Any) -> None:
    (whole,) = predictor(module, reader, num_beams=2).predict(["x"])[0]["continuations"]
    (stopped,) = predictor(module, reader, num_beams=2, stop=whole[3]).predict(["x"])[0]["continuations"]
    assert whole[3] not in stopped
    stream, one = io.StringIO(), predictor(module, reader, num_beams=2)
    one.write_text(one.stream(["x"]), stream)
    assert len(stream.getvalue()) > 20


def byte_tokens(data: bytes) -> list[int]:
    return [byte + FIRST_BYTE for byte in data]


@pytest.mark.parametrize(
    "data", ["a€😀é\n".encode(), b"\xff\xfea\xc3(\x80", "é".encode()[:1], b"a\xf0\x9f\x98", b"\x80" * 9]
)
def test_parts_of_a_text_are_its_decoded_bytes(data: bytes) -> None:
    parts: list[str] = []
    continuation = Continuation(TOKENIZER, byte_tokens("vor ß".encode()), on_text=parts.append)
    for token in byte_tokens(data):
        assert not continuation.append(token)
    assert continuation.finish() == "".join(parts) == data.decode(errors="replace")
    if b"\xff" not in data and data.decode(errors="ignore").encode() == data:
        assert len(parts) == len(data.decode())


@pytest.mark.parametrize(
    ("stops", "text", "ends"),
    [(["END"], "a EN ENEND", True), (["x", "ab"], "1ab", True), (["€"], "12€", True), (["END"], "no EN", False)],
)
def test_stop_strings_are_not_shown(stops: list[str], text: str, ends: bool) -> None:
    parts: list[str] = []
    continuation = Continuation(TOKENIZER, [BEGIN], stops, parts.append)
    results = [continuation.append(token) for token in byte_tokens(text.encode())]
    assert results == [*[False] * (len(results) - 1), ends]
    stop = min((text.index(stop) for stop in stops if stop in text), default=len(text))
    assert continuation.finish() == "".join(parts) == text[:stop]


def test_stop_strings_end_continuations(module: Any, reader: Any) -> None:
    (whole,) = predictor(module, reader).predict(["x"])[0]["continuations"]
    stop = whole[5]
    (stopped,) = predictor(module, reader, stop=stop).predict(["x"])[0]["continuations"]
    assert stopped == whole[: whole.index(stop)]
    assert predictor(module, reader, stop=["never there", stop]).predict(["x"])[0]["continuations"] == [stopped]


def test_a_single_prompt_is_written_as_it_is_generated(module: Any, reader: Any) -> None:
    class Stream(io.StringIO):
        num_flushes = 0

        def flush(self) -> None:
            self.num_flushes += 1

    stream, one = Stream(), predictor(module, reader)
    one.write_text(one.stream(["Begin"]), stream)
    assert stream.num_flushes > 5
    assert stream.getvalue().startswith("Begin")
    stream, two = Stream(), predictor(module, reader)
    two.write_text(two.stream(["Begin", ""]), stream)
    assert stream.num_flushes == 0
    assert "--- 1: 'Begin' ---\nBegin" in stream.getvalue()
    assert "--- 2: '' ---\n" in stream.getvalue()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"num_return_sequences": 0}, "num_return_sequences=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"top_p": 1.5}, "top_p=1.5 must be greater than 0 and at most 1"),
        ({"stop": ["a", ""]}, "stop='' must not be empty"),
        ({"num_beams": 0}, "num_beams=0 must be at least 1"),
        ({"num_beams": 2, "top_k": 4}, r"top_k: has no effect with num_beams=2 \(leave one of them out\)"),
        ({"num_beams": 2, "temperature": 0.0}, "temperature: has no effect with num_beams=2"),
        ({"length_penalty": 0.5}, r"length_penalty: has no effect with num_beams=1 \(add num_beams=4\)"),
        ({"early_stopping": True}, "early_stopping: has no effect with num_beams=1"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3 must be at most num_beams=2"),
    ],
)
def test_options_out_of_range_are_refused(module: Any, reader: Any, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        predictor(module, reader, **options)


@pytest.mark.parametrize("num_samples", [0, 1, 3])
def test_samples_begin_with_nothing_and_continue_validation_text(module: Any, num_samples: int) -> None:
    texts = ["first row", "other row"]
    ids = torch.tensor([[BEGIN, *(byte + FIRST_BYTE for byte in text.encode())] for text in texts])
    trainer = SimpleNamespace(datamodule=SimpleNamespace(tokenizer=TOKENIZER), sanity_checking=False)
    callback = ContinuationSamples(num_samples)
    before = torch.get_rng_state()
    callback.on_validation_batch_end(trainer, module, None, {"input_ids": ids}, 0)  # type: ignore[arg-type]
    callback.on_validation_batch_end(trainer, module, None, {"input_ids": ids[1:]}, 1)  # type: ignore[arg-type]
    assert [given for given, _ in callback.samples] == ["(nothing)", *texts][:num_samples]
    for prompt, (_, written) in zip([ids[:1, :1], ids[:1], ids[1:]], callback.samples, strict=False):
        (tokens,) = generate(module.model, prompt, max_new_tokens=NUM_NEW_TOKENS, stop_ids=[BEGIN, END])
        text = TOKENIZER.decode([token for token in tokens if token not in (BEGIN, END)])
        assert written == escape_line(" ".join(text.replace(TOKENIZER.mask_token, MASK).split()))
    assert torch.equal(torch.get_rng_state(), before)
