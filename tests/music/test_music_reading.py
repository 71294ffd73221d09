"""Prompts of MIDI files."""

from __future__ import annotations

import warnings
import zipfile

import midi_writing as midi
import numpy as np
import pytest

from perceiver_core import InputAdapter
from perceiver_plugins.generation.adapters import TokenInputAdapter
from perceiver_plugins.music.events import EventTokenizer
from perceiver_plugins.music.reading import MidiReader
from perceiver_plugins.music.tokens import default_tokenizer
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError

ONE = midi.file(midi.track((240, midi.on(60, 63)), (240, midi.off(60))), division=480)


@pytest.fixture
def reader() -> MidiReader:
    return MidiReader({"tokenizer": default_tokenizer().description()}, InputAdapter(1))


def test_prompts_begin_a_piece_and_do_not_end_it(reader, tmp_path):
    path = tmp_path / "a.mid"
    path.write_bytes(ONE)
    tokens = reader.read(str(path))
    names = [
        "BOS_None",
        "Program_0",
        "TimeShift_0.25.50",
        "NoteOn_60",
        "Velocity_63",
        "TimeShift_0.25.50",
        "NoteOff_60",
    ]
    assert sorted(reader.tokens(tokens)) == sorted(names)
    assert reader.tokens(tokens)[-4:] == names[-4:]
    assert reader.tokens(reader.read("")) == ["BOS_None"]
    notes = reader.tokenizer.decode(tokens)
    assert (notes.onsets.tolist(), notes.ends.tolist()) == ([0.25], [0.5])


def test_batches_are_padded_on_the_left(reader, tmp_path):
    (tmp_path / "a.mid").write_bytes(ONE)
    sources = reader.expand(["", str(tmp_path)])
    assert sources == ["", str(tmp_path / "a.mid")]
    batch = reader.collate([reader.read(source) for source in sources])
    assert batch["input_ids"].tolist() == [[0] * 6 + [1], reader.read(sources[1]).tolist()]
    assert batch["attention_mask"].tolist() == [[0] * 6 + [1], [1] * 7]


def test_archives_are_expanded(reader, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b/x.mid", ONE)
        archive.writestr("y.MIDI", ONE)
    sources = reader.expand([str(tmp_path / "a.zip")])
    first, second = (reader.read(source) for source in sources)
    assert (first == second).all()


def test_what_is_left_out_is_reported_with_the_file(reader, tmp_path):
    path = tmp_path / "a.mid"
    path.write_bytes(midi.file(midi.track((0, midi.on(60)), (9, midi.off(60)), (0, b"\xe0\x01\x02"))))
    with pytest.warns(UserWarning, match=r"a.mid: 1 pitch bends left out$"):
        reader.read(str(path))


def test_unreadable_prompts(reader, tmp_path):
    (tmp_path / "b.mid").write_bytes(b"")
    for name, problem in {"a.mid": "No such file", "b.mid": "not a valid MIDI file", ".": "cannot be read"}.items():
        with pytest.raises(DataError, match=problem):
            reader.read(str(tmp_path / name))
    with pytest.raises(UserError, match=r"tokenizer: not the description of a tokenizer of music"):
        MidiReader({}, InputAdapter(1))


def test_prompts_of_events_are_sustained_and_begin_with_a_note(tmp_path):
    reader = MidiReader({"tokenizer": EventTokenizer().description()}, InputAdapter(1))
    path = tmp_path / "a.mid"
    events = [(240, midi.on(60, 64)), (0, b"\xb0\x40\x7f"), (240, midi.off(60)), (240, midi.on(62, 64))]
    events += [(240, midi.off(62)), (240, b"\xb0\x40\x00")]
    path.write_bytes(midi.file(midi.track(*events), division=480))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left out
        (prompt,) = (reader.read(source) for source in reader.expand([str(path)]))
    expected = (
        "TimeShift_25 Velocity_64 NoteOn_60 TimeShift_50 Velocity_64 NoteOn_62 TimeShift_50 NoteOff_60 NoteOff_62"
    )
    assert reader.tokens(prompt) == expected.split()
    batch = reader.collate([prompt[:2], prompt])
    assert batch["input_ids"][0].tolist() == [388] * 7 + prompt[:2].tolist()


def test_events_cannot_continue_nothing(tmp_path):
    reader = MidiReader({"tokenizer": EventTokenizer().description()}, InputAdapter(1))
    (tmp_path / "a.mid").write_bytes(midi.file(midi.track()))
    for source, name in {"": "an empty prompt", str(tmp_path / "a.mid"): str(tmp_path / "a.mid")}.items():
        with pytest.raises(DataError) as error:
            reader.read(source)
        assert str(error.value) == f"{name}: no notes (this model continues notes and cannot begin a piece)"


def test_a_model_with_another_number_of_tokens_is_refused():
    adapter = TokenInputAdapter(390, 8)
    with pytest.raises(UserError, match=r"^tokenizer: it has 389 tokens, the model 390 \(the checkpoint is damaged\)$"):
        MidiReader({"tokenizer": EventTokenizer().description()}, adapter)


def test_tokens_have_names_that_differ(reader):
    assert len(set(reader.tokens(np.arange(reader.tokenizer.size)))) == reader.tokenizer.size
