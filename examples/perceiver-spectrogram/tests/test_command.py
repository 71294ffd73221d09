"""Training and prediction on the command line."""

import json
import shutil

from perceiver_cli.main import main

SMALL = (
    "--model.num_latents=4",
    "--model.num_latent_channels=16",
    "--model.encoder.num_self_attention_layers_per_block=1",
    "--task.ema_decay=null",
    "--optimizer.lr=0.01",
    "--lr_scheduler=none",
    "--data.batch_size=8",
    "--trainer.max_epochs=8",
    "--trainer.accelerator=cpu",
)


def test_trained_model_classifies_held_out_recordings(tones, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("--task=classification", "--model.encoder=spectrogram", "--data=spoken-digits")
    assert main(["fit", *words, f"--data.path={tones}", *SMALL]) == 0

    held_out = tmp_path / "held out"
    held_out.mkdir()
    for path in tones.glob("*_[5-9].wav"):
        shutil.copy(path, held_out)
    (held_out / "broken.wav").write_text("no sound")
    capsys.readouterr()
    assert main(["predict", "--ckpt_path=best", "held out", "--format=json"]) == 1
    shown = capsys.readouterr()
    assert "broken.wav: not a .wav file" in shown.err
    labels = {each["input"]: each["label"] for each in json.loads(shown.out)}
    assert len(labels) == 10
    assert all(name.startswith(f"held out/{word}_") for name, word in labels.items())
