"""Commands and Python code of docs/embeddings.md."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.perceiver.modeling_perceiver import PerceiverTextPreprocessor

from perceiver_cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text(encoding="utf-8")

QUICK = (
    "--model.num_latents=4",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=1",
    "--trainer.limit_val_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
)
PUBLISHED = "deepmind/vision-perceiver-fourier"


def blocks(language: str) -> list[str]:
    """Return the code blocks of the page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def write_inputs(folder: Path) -> None:
    """Write the files that the page names."""
    (folder / "texts").mkdir()
    for number in range(5):
        (folder / "texts" / f"{number}.txt").write_text(f"some text about {number} trains " * 30)
    with (folder / "reviews.csv").open("w", newline="") as file:
        rows = [(f"a {'good' if i % 2 else 'bad'} film, {i}", i % 2) for i in range(30)]
        csv.writer(file).writerows([("text", "label"), *rows])
    for number in range(8):
        path = folder / "photos" / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 15), (9 * number, 80, 3 * number)).save(path)


def write_published(folder: Path) -> None:
    """Write a small model in the layout of the published one."""
    config = transformers.PerceiverConfig(
        d_latents=16, num_latents=4, num_self_attends_per_block=1, num_blocks=1, num_self_attention_heads=2,
        num_cross_attention_heads=1, image_size=224, num_labels=3,
    )  # fmt: skip
    model = transformers.PerceiverForImageClassificationFourier(config)
    model.save_pretrained(folder / "published")
    transformers.PerceiverImageProcessor().save_pretrained(folder / "published")


def write_encoder(folder: Path) -> None:
    """Write a small encoder of texts without a decoder."""
    config = transformers.PerceiverConfig(
        d_model=16, d_latents=16, num_latents=4, num_self_attends_per_block=1, num_blocks=1,
        num_self_attention_heads=2, num_cross_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    transformers.PerceiverModel(config, None, PerceiverTextPreprocessor(config)).save_pretrained(folder / "encoder")
    transformers.PerceiverTokenizer().save_pretrained(folder / "encoder")


@pytest.mark.slow
def test_commands_and_code_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # restored after the test
        monkeypatch.setenv(variable, "0")
    write_inputs(tmp_path)
    write_published(tmp_path)
    write_encoder(tmp_path)
    printed = {}
    for line in "".join(blocks("bash")).replace(PUBLISHED, "published").splitlines():
        arguments = shlex.split(line, comments=True)[1:]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main([*arguments, *(QUICK if arguments[0] == "fit" else ["--trainer.accelerator=cpu"])]) == 0, line
        printed[line] = out.getvalue()

    assert pq.read_table("vectors.parquet")["input"].to_pylist() == [f"texts/{number}.txt" for number in range(5)]
    assert len(np.load("vectors.npy")) == 30
    assert pq.read_table("encoded.parquet").num_rows == 5
    for name in ("photos.parquet", "published.parquet"):
        assert pq.read_table(name).num_rows == 8
    (objects,) = [
        json.loads(f"[{out.strip()}]".replace("}\n{", "},{")) for line, out in printed.items() if "jsonl" in line
    ]
    assert [each["input"] for each in objects] == ["A text.", "Another one."]
    texts, stored, images = [out.splitlines()[1:] for line, out in printed.items() if "--similar_to" in line]
    assert texts == stored
    assert len(texts) == len(images) == 3
    assert images[0].split() == ["photos/dog/0.png", "1.0000"]

    probe, code = blocks("python")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(probe, {})
    assert re.fullmatch(r"accuracy [01]\.\d{3}\n", out.getvalue())
    (best,) = (tmp_path / "logs").glob("mlm/version_0/checkpoints/best.ckpt")
    namespace: dict[str, torch.Tensor] = {}
    exec(code.replace("best.ckpt", str(best)), namespace)
    assert namespace["latents"].shape[:2] == (2, 4)
    torch.testing.assert_close(namespace["vectors"], namespace["latents"].mean(dim=1))
