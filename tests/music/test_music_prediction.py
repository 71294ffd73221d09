"""Continuation of pieces, and the files that are written."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from perceiver_core import PerceiverARConfig
from perceiver_plugins.generation import NextTokenDecoderConfig
from perceiver_plugins.music import MusicEncoderConfig, Notes, read_midi, write_midi
from perceiver_plugins.music.lightning import LitMusicModel
from perceiver_plugins.music.output import write_music
from perceiver_plugins.music.prediction import MusicPredictor
from perceiver_plugins.music.reading import MidiReader
from perceiver_plugins.music.tokens import default_tokenizer
from perceiver_registry import UserError, create_module

TOKENIZER = default_tokenizer()


@pytest.fixture(scope="module")
def module() -> LitMusicModel:
    config: Any = PerceiverARConfig(
        MusicEncoderConfig(
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
    made: Any = create_module("symbolic-music", config)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0.0, 1.0, generator=generator)
    return made.eval()


@pytest.fixture(scope="module")
def reader(module: LitMusicModel) -> MidiReader:
    return MidiReader({"tokenizer": TOKENIZER.description()}, module.model.input_adapter)


@pytest.fixture
def prompts(tmp_path: Path) -> list[str]:
    """Nothing, a short file, and one that is longer than the window of the model."""
    for name, size in (("short", 3), ("long", 17)):
        rows = [(index / 4, index / 4 + 0.25, 60 + index, 64, False) for index in range(size)]
        write_midi(tmp_path / f"{name}.mid", Notes.from_rows(rows))
    return ["", str(tmp_path / "short.mid"), str(tmp_path / "long.mid")]


def predictor(module: Any, reader: Any, **options: Any) -> MusicPredictor:
    return MusicPredictor(module, reader, **{"max_new_tokens": 30, "seed": 3, **options})


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.0}, {"top_k": 40, "top_p": 0.9, "repetition_penalty": 1.2}, {"num_beams": 2}]
)
def test_prompts_of_a_batch_are_continued_as_one_by_one(module, reader, prompts, options):
    batch = predictor(module, reader, num_return_sequences=2, **options).predict(prompts)
    ones = predictor(module, reader, num_return_sequences=2, batch_size=1, **options).predict(prompts)
    assert batch == ones
    assert [each["prompt_notes"] for each in batch] == [0, 3, 17]
    assert [len(each["continuations"]) for each in batch] == [2, 2, 2]


def test_a_continuation_begins_with_its_prompt(module, reader, prompts):
    (found,) = predictor(module, reader).predict(prompts[1:2])
    (continuation,) = found["continuations"]
    assert found["prompt_seconds"] == 0.75
    expected = TOKENIZER.decode(TOKENIZER.encode(read_midi(Path(prompts[1]).read_bytes(), "a").notes)[0])
    rows = [tuple(note.values()) for note in continuation["notes"]]
    assert set(zip(*(column.tolist() for column in expected), strict=True)) <= set(rows)
    assert len(rows) == continuation["new_notes"] + 3


def test_other_kinds_of_files_are_refused(module, reader, tmp_path):
    with pytest.raises(UserError, match=r"out\.mp3: the kind \.mp3 is unknown \(write \.mid, .* or \.png, or a folder"):
        predictor(module, reader, output=str(tmp_path / "out.mp3"))


def test_sound_that_is_too_long_is_left_out_of_a_folder(module, reader, prompts, tmp_path):
    rows = [(0.0, 0.5, 60, 64, False), (7200.0, 7200.5, 60, 64, False)]
    write_midi(tmp_path / "long.mid", Notes.from_rows(rows))
    sources = [str(tmp_path / "long.mid"), prompts[1]]
    with pytest.warns(UserWarning, match=r"0000-long\.wav: left out: sound: the piece lasts 7,2"):
        found = predictor(module, reader, output=str(tmp_path / "out")).predict(sources)
    assert any(name.endswith("0000-long.mid") for name in found[0]["continuations"][0]["files"])
    assert not any(name.endswith(".wav") for name in found[0]["continuations"][0]["files"])
    assert len(found[1]["continuations"][0]["files"]) == 3
    with pytest.raises(UserError, match=r"--output=.*x\.wav: sound: the piece lasts"):
        predictor(module, reader, output=str(tmp_path / "x.wav")).predict(sources[:1])


@pytest.mark.parametrize("name", ["out.mid", "out.MIDI", "out.wav", "out.png"])
def test_one_file_is_written(module, reader, prompts, tmp_path, name):
    path = tmp_path / name
    (found,) = predictor(module, reader, output=str(path)).predict(prompts[1:2])
    (continuation,) = found["continuations"]
    assert continuation["files"] == [str(path)]
    content = path.read_bytes()
    if path.suffix.lower() in (".mid", ".midi"):
        assert read_midi(content, "a").notes.size == len(continuation["notes"])
    with pytest.raises(UserError, match=r"already exists \(--overwrite replaces it\)$"):
        predictor(module, reader, output=str(path)).predict(prompts[1:2])
    predictor(module, reader, output=str(path), overwrite=True).predict(prompts[1:2])
    assert path.read_bytes() == content


def test_a_folder_has_files_of_each_continuation(module, reader, prompts, tmp_path):
    folder = tmp_path / "a" / "b"
    chosen = predictor(module, reader, output=str(folder), num_return_sequences=2, batch_size=2)
    found = chosen.predict(prompts)
    stems = [f"{number:04d}-{name}-{copy}" for number, name in enumerate(["music", "short", "long"]) for copy in (1, 2)]
    expected = {f"{stem}{suffix}" for stem in stems for suffix in (".mid", ".wav", ".png")}
    assert {path.name for path in folder.iterdir()} == expected
    files = [continuation["files"][0] for each in found for continuation in each["continuations"]]
    assert [Path(file).stem for file in files] == stems
    rows = list(MusicPredictor.rows(found))
    assert [row["number"] for row in rows] == ["1", "2"] * 3
    with wave.open(str(folder / f"{stems[0]}.wav")) as sound:
        assert sound.getnframes() > 0


def test_output_that_does_not_fit_is_refused(module, reader, prompts, tmp_path):
    with pytest.raises(UserError, match=r"one file for 3 continuations \(give a folder\)$"):
        predictor(module, reader, output=str(tmp_path / "a.mid")).predict(prompts)
    with pytest.raises(UserError, match=r"its folder does not exist \(create it first\)$"):
        predictor(module, reader, output=str(tmp_path / "no" / "a.mid")).predict(prompts[:1])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: the folder cannot be created"):
        predictor(module, reader, output=str(tmp_path / "file")).predict(prompts[:1])


def test_inputs_that_cannot_be_read_are_failures(module, reader, prompts, tmp_path):
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    chosen = predictor(module, reader)
    assert len(chosen.predict([*prompts, str(tmp_path / "bad.mid"), str(tmp_path / "none.mid")])) == 3
    assert len(chosen.failures) == 2
    assert all("\n" not in failure for failure in chosen.failures)


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"a.mp3: must end in .mid, .midi, .wav or .png$"):
        write_music(tmp_path / "a.mp3", Notes.from_rows([]))


def test_predictions_are_plain_data(module, reader, prompts):
    (found,) = predictor(module, reader).predict(prompts[:1])
    note = {type(value) for each in found["continuations"] for note in each["notes"] for value in note.values()}
    assert note <= {float, int, bool}
    assert not any(isinstance(value, np.generic) for value in found.values())
