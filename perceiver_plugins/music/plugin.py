"""Specs of the music plugin. Does not import torch."""

from __future__ import annotations

from perceiver_plugins.generation.defaults import SMALL_MODEL
from perceiver_registry import AdapterSpec, DataSpec, TaskSpec, hookimpl

DATA = "perceiver_plugins.music.data"

TASK = "symbolic-music"

PERCEIVER_INTERFACE = "2.2"


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="music",
            kind="input",
            adapter="perceiver_plugins.generation.adapters:TokenInputAdapter",
            config="perceiver_plugins.music.config:MusicEncoderConfig",
            summary="MIDI-like tokens of symbolic music, for causal models",
            links={"vocab_size": "vocab_size"},
            reads=("input_ids",),  # a mask is for prompts of different lengths alone
            reader="perceiver_plugins.music.reading:MidiReader",
            size_rule="perceiver_plugins.generation.sizing:size_rule",
            example={"model.encoder.vocab_size": 518, "model.encoder.num_input_channels": 16},
        ),
    ]


@hookimpl
def perceiver_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name=TASK,
            module="perceiver_plugins.music.lightning:LitMusicModel",
            summary="causal modelling of symbolic music: predict the next token of a piece",
            data="rounds",
            reads=("input_ids",),
            architecture="perceiver-ar",
            defaults={**SMALL_MODEL, "model.encoder": "music", "model.prefix_dropout": 0.1},
            predictor="perceiver_plugins.music.prediction:MusicPredictor",
        ),
    ]


@hookimpl
def perceiver_data() -> list[DataSpec]:
    return [
        DataSpec(
            name="rounds",
            module=f"{DATA}:RoundsDataModule",
            tasks=(TASK,),
            yields=("input_ids",),
            summary="synthetic rounds for four voices, composed by rule from a seed",
            example={"num_pieces": 8, "max_seq_len": 64, "batch_size": 2},
        ),
        DataSpec(
            name="midi-files",
            module=f"{DATA}:MidiFilesDataModule",
            tasks=(TASK,),
            yields=("input_ids",),
            summary="your own .mid and .midi files in a folder or zip archive",
            defaults={"data.transpose": 5},
            path_option="path",
            path_suffixes=("/", ".zip"),
        ),
    ]
