"""Training, evaluation, prediction and export of classifiers of recordings, as a user does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import perceiver_zoo
from perceiver_cli.run_config import read_run
from perceiver_plugins.sdk.data.sound import write_wav

TRAINER = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}

SMALL = {"num_latents": 4, "num_latent_channels": 16}

ENCODER = {"num_mel_bands": 24, "num_conv_channels": 16, "masked_bands": 0, "masked_ms": 0}


def chirp(rising: bool, seconds: float, rate: int = 4000) -> np.ndarray:
    frequencies = np.linspace(300, 900, round(seconds * rate))
    return 0.5 * np.sin(2 * np.pi * np.cumsum(frequencies if rising else frequencies[::-1]) / rate)


@pytest.mark.parametrize(
    ("flags", "data"),
    [
        ("--task=classification --model.encoder=audio-spectrogram", "tone-patterns"),
        ("--task=classification --model.encoder=audio-patches", "tone-patterns"),
        ("--task=classification --model.encoder=audio-spectrogram --data=video-folder", "video-folder"),
        ("--task=classification --model.encoder=image-pixels", "digits"),
        ("--task=classification", "digits"),
    ],
)
def test_an_adapter_brings_its_data_where_it_cannot_read_that_of_the_task(flags, data):
    assert read_run("fit", flags.split()).values["data"]["name"] == data


@pytest.mark.slow
def test_own_recordings_are_classified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for rising in (False, True):
        folder = tmp_path / "chirps" / ("up" if rising else "down")
        folder.mkdir(parents=True)
        for number in range(20):
            write_wav(folder / f"{number}.wav", chirp(rising, 0.2 + 0.01 * number), 4000)
    trained = perceiver_zoo.train(
        {"name": "classification", "ema_decay": None},
        {"name": "chirps", "batch_size": 9},
        model={**SMALL, "encoder": {"adapter": "audio-spectrogram", **ENCODER}},
        trainer={**TRAINER, "max_epochs": 16, "check_val_every_n_epoch": 16},
        optimizer={"lr": 5e-3},
    )
    recordings = [chirp(rising, 0.33) for rising in (True, False, True)]
    assert [each["label"] for each in trained.predict(recordings)] == ["up", "down", "up"]
    assert trained.embed([recordings[0], (recordings[1], 4000)]).shape == (2, 16)
    (single,) = trained.predict("chirps/up/3.wav", attention="maps")
    assert single["label"] == "up"
    assert [path.suffix for path in Path("maps").iterdir()] == [".png"]
    assert trained.model.config.encoder.sample_rate == 4000
