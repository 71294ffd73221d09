"""``perceiver export``, and the commands of the serving guide."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from perceiver_cli.main import main
from perceiver_registry import load_model

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
QUICK = (
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
    "--model.num_latents=4",
    "--model.encoder.num_self_attention_layers_per_block=1",
)


@pytest.fixture
def needs_onnx(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Function that skips a test if packages for ONNX are missing, and caches the exporter's operators."""

    def needs_onnx() -> None:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name, reason=f"{name} is not installed")
        request.getfixturevalue("cached_operators")

    return needs_onnx


def table_in(out: str) -> list[list[str]]:
    """Parse the table of inputs and outputs in the command's output."""
    return [line.strip().split(maxsplit=3) for line in out.splitlines() if line.startswith(("inputs", "outputs"))]


@pytest.mark.slow
def test_program_of_torch_export_is_written_next_to_the_checkpoint(
    text_classifier: Any, tmp_path: Path, perceiver: Callable[..., Any]
) -> None:
    checkpoint = tmp_path / "texts.ckpt"
    shutil.copy(text_classifier.best, checkpoint)

    result = perceiver("export", "--ckpt_path=texts.ckpt", "--format=torch-export")

    assert result.code == 0, result.err
    assert result.err == ""
    written = checkpoint.with_suffix(".pt2")
    assert f"wrote {written} (torch-export" in result.out
    check_differences(result.out, 1)
    model = load_model(str(checkpoint))
    assert f"where length is 1 to {model.config.encoder.max_seq_len}" in result.out  # type: ignore[attr-defined]
    assert [row[1] for row in table_in(result.out)] == ["input_ids", "attention_mask", "logits"]
    batch = {"input_ids": torch.randint(6, 200, (5, 9)), "attention_mask": torch.ones(5, 9, dtype=torch.long)}
    found = torch.export.load(written).module()(batch)["logits"]
    with torch.no_grad():
        torch.testing.assert_close(found.detach(), model(batch), rtol=1e-4, atol=1e-5)


def check_differences(out: str, number: int) -> None:
    """Assert that the command printed so many differences from the originals, all of them small."""
    differences = re.findall(r"largest difference from the original, .*: (\S+)", out)
    assert len(differences) == number
    assert all(float(difference) < 1e-4 for difference in differences)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=onnx"], "the following arguments are required: --ckpt_path"),
        (["--ckpt_path=CKPT"], "--format: missing (one of: onnx, torch-export)"),
        (["--ckpt_path=CKPT", "--format=onxx"], "not a format for serving (did you mean 'onnx'?)"),
        (["--ckpt_path=CKPT", "--format=safetensors"], "not a format for serving (perceiver convert writes it; "),
        (["--ckpt_path=CKPT", "--output=model.bin"], "--output=model.bin: unknown suffix (add --format=onnx or"),
        (["--ckpt_path=CKPT", "--format=torch-export", "--output=model.bin"], "ends with .pt2"),
        (["--ckpt_path=nowhere.ckpt", "--format=torch-export"], "nowhere.ckpt"),
        (["--ckpt_path=CKPT", "--output=there.pt2"], "there.pt2: already exists (--overwrite replaces it)"),
        (["--ckpt_path=CKPT", "--output=model.pt2", "--formt=onnx"], "--formt"),
    ],
)
def test_wrong_use_is_one_line(
    flags: list[str], message: str, image_classifier: Any, tmp_path: Path, perceiver: Callable[..., Any]
) -> None:
    Path("there.pt2").write_text("mine")
    result = perceiver("export", *(flag.replace("CKPT", str(image_classifier.best)) for flag in flags))
    assert message in result.error
    assert Path("there.pt2").read_text() == "mine"


@pytest.mark.slow
def test_commands_of_the_serving_guide_run(capsys: Any, needs_onnx: Callable[[], None]) -> None:
    needs_onnx()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for language, block in blocks:
        if language == "bash":
            for line in block.splitlines():
                command, *argv = shlex.split(line)
                if command == "perceiver":
                    assert main([*argv, *(QUICK if argv[0] == "fit" else ())]) == 0, line
    out = capsys.readouterr().out
    shown = next(block for language, block in blocks if language == "text")
    assert table_in(out)[:2] == table_in(shown)
    assert "wrote digits.onnx (onnx" in out
    assert "batch 1; batch 3, height" in out
    check_differences(out, 3)
    check_classifier_of_images("digits.onnx")

    programs = [block for language, block in blocks if language == "python"]
    assert len(programs) == 4
    for program in programs:
        exec(compile(program, "serving.md", "exec"), {})
    one, several, about, text = capsys.readouterr().out.split("\n", 3)
    digits = {str(number) for number in range(10)}
    assert one in digits
    assert set(re.findall(r"\d", several)) <= digits
    assert "'batch': [1, None]" in about
    assert text.startswith("import ")


def check_classifier_of_images(file: str) -> None:
    """Compare the ONNX model of the guide's classifier with the classifier, for images of another size."""
    import onnxruntime

    (checkpoint,) = Path("logs", "image-classification").glob("*/checkpoints/best.ckpt")
    images = torch.randn(5, 1, 9, 11)
    (logits,) = onnxruntime.InferenceSession(file).run(["logits"], {"pixel_values": images.numpy()})
    with torch.no_grad():
        expected = load_model(str(checkpoint))({"pixel_values": images})
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)
