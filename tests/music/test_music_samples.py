"""Files of music that are written while a model trains."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from perceiver_core import PerceiverARConfig
from perceiver_plugins.generation import NextTokenDecoderConfig, generate
from perceiver_plugins.music import samples
from perceiver_plugins.music.config import MusicEncoderConfig
from perceiver_plugins.music.midi_files import read_midi
from perceiver_plugins.music.samples import NUM_PROMPT_TOKENS, MusicSamples
from perceiver_plugins.music.tokens import default_tokenizer
from perceiver_registry import create_module

TOKENIZER = default_tokenizer()


@pytest.fixture
def module() -> Any:
    config: Any = PerceiverARConfig(
        MusicEncoderConfig(
            vocab_size=TOKENIZER.size,
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
    torch.manual_seed(0)
    made: Any = create_module("symbolic-music", config)
    with torch.no_grad():  # notes with velocities, and no early end
        for index, name in enumerate(TOKENIZER.names):
            made.model.output_adapter.bias[index] = {"NoteOn": 3.0, "Velocity": 4.0, "EOS": -50.0, "BOS": -50.0}.get(
                name.partition("_")[0], 0.0
            )
    return made


def trainer(folder: Path | None) -> Any:
    return SimpleNamespace(
        datamodule=SimpleNamespace(tokenizer=TOKENIZER),
        log_dir=None if folder is None else str(folder),
        loggers=[] if folder is None else ["a logger"],
        is_global_zero=True,
        global_step=7,
        sanity_checking=False,
    )


def rows() -> torch.Tensor:
    ids = torch.from_numpy(np.random.default_rng(0).integers(3, TOKENIZER.size, (2, NUM_PROMPT_TOKENS + 5)))
    ids[0, 0] = TOKENIZER.bos
    return ids


def test_pieces_begin_with_nothing_and_continue_validation_pieces(
    module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "NUM_NEW_TOKENS", 40)
    ids, callback = rows(), MusicSamples(3)
    for number in range(2):  # only the first batch
        callback.on_validation_batch_end(trainer(tmp_path), module, None, {"input_ids": ids[number:]}, number)  # type: ignore[arg-type]
    expected = []
    for prompt in (ids[:1, :1], ids[:1, : NUM_PROMPT_TOKENS + 1], ids[1:, : NUM_PROMPT_TOKENS + 1]):
        (tokens,) = generate(module.model, prompt, max_new_tokens=40, stop_ids={TOKENIZER.bos, TOKENIZER.eos})
        expected.append(TOKENIZER.decode(torch.cat([prompt[0], tokens]).numpy()).size)
    assert min(expected) > 0
    assert [read_midi(path.read_bytes(), path.name).notes.size for path in callback.paths] == expected
    assert [path.name for path in callback.paths] == ["step-7-0.mid", "step-7-1.mid", "step-7-2.mid"]
    callback.teardown(trainer(tmp_path), module, "fit")  # type: ignore[arg-type]
    assert str(callback.paths[2]) in capsys.readouterr().out


@pytest.mark.parametrize(("num_samples", "has_folder"), [(0, True), (2, False)])
def test_nothing_is_written_without_samples_or_folder(
    module: Any, tmp_path: Path, num_samples: int, has_folder: bool
) -> None:
    callback = MusicSamples(num_samples)
    run = trainer(tmp_path if has_folder else None)
    callback.on_validation_batch_end(run, module, None, {"input_ids": rows()}, 0)
    assert not callback.paths
    assert not list(tmp_path.iterdir())
