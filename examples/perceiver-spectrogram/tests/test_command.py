"""Training and prediction on the command line."""

import json
import shutil
import subprocess
import sys

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


def perceiver(*arguments, cwd):
    command = [sys.executable, "-m", "perceiver_cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_trained_model_classifies_held_out_recordings(tones, tmp_path):
    words = ("--task=classification", "--model.encoder=spectrogram", "--data=spoken-digits")
    fit = perceiver("fit", *words, f"--data.path={tones}", *SMALL, cwd=tmp_path)
    assert fit.returncode == 0, fit.stderr

    held_out = tmp_path / "held out"
    held_out.mkdir()
    for path in tones.glob("*_[5-9].wav"):
        shutil.copy(path, held_out)
    (held_out / "broken.wav").write_text("no sound")
    done = perceiver("predict", "--ckpt_path=best", "held out", "--format=json", cwd=tmp_path)
    assert done.returncode == 1
    assert "broken.wav: not a .wav file" in done.stderr
    labels = {each["input"]: each["label"] for each in json.loads(done.stdout)}
    assert len(labels) == 10
    assert all(name.startswith(f"held out/{word}_") for name, word in labels.items())
