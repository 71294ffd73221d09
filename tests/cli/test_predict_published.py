"""``perceiver predict`` with published models and with other formats than checkpoints.

Models with the ids of published ones are in a hub cache, so that no network is needed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image

from perceiver_plugins.flow.data.pairs import frames_tensor
from perceiver_plugins.huggingface import from_checkpoint
from perceiver_plugins.huggingface.flow import patched_inputs

REVISION = "0" * 40
SIZES = {
    "num_latents": 6,
    "d_latents": 16,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
    "initializer_range": 0.3,
}
FLOW, LANGUAGE, VISION = (
    f"deepmind/{name}" for name in ("optical-flow-perceiver", "language-perceiver", "vision-perceiver-conv")
)


def folder_of(cache: Path, name: str) -> Path:
    return cache / f"models--{name.replace('/', '--')}" / "snapshots" / REVISION


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, dict[str, torch.nn.Module]]:
    """Hub cache with small random models under the ids of published ones, and these models."""
    cache = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    labels = {"id2label": {0: "cat", 1: "dog", 2: "eel"}}
    models = {
        FLOW: transformers.PerceiverForOpticalFlow(transformers.PerceiverConfig(**SIZES, train_size=[8, 12])),
        LANGUAGE: transformers.PerceiverForMaskedLM(
            transformers.PerceiverConfig(**SIZES, vocab_size=262, max_position_embeddings=40, d_model=16)
        ),
        VISION: transformers.PerceiverForImageClassificationConvProcessing(
            transformers.PerceiverConfig(**SIZES, **labels)
        ),
    }
    for name, model in models.items():
        model.eval().save_pretrained(folder_of(cache, name))
        refs = folder_of(cache, name).parents[1] / "refs"
        refs.mkdir()
        (refs / "main").write_text(REVISION)
    transformers.PerceiverTokenizer().save_pretrained(folder_of(cache, LANGUAGE))
    transformers.PerceiverImageProcessor().save_pretrained(folder_of(cache, VISION))
    return cache, models


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """Folder with three frames of the flow model's size, and a damaged file."""
    folder = tmp_path_factory.mktemp("frames")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(256, size=(8, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "no.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def results(published, frames, run_in, tmp_path_factory):
    """Results of several commands with the hub cache and without a network, by name."""
    cache, _ = published
    first, second = f"{frames}/0.png", f"{frames}/1.png"
    text = "some te<mask>t"
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"max_steps": 3, "devices": 1}, "optimizer": "AdamW", "top_k": 2}))
    commands = {
        "flow of the task": ["--task=optical-flow", first, second],
        "flow of the name": ["--model=optical-flow-perceiver", first, second],
        "flow of the id": [f"--ckpt_path={FLOW}", first, second],
        "flow of the folder": [f"--ckpt_path={folder_of(cache, FLOW)}", first, second],
        "damaged image": ["--task=optical-flow", first, second, f"{frames}/no.png"],
        "text of the task": ["--task=mlm", text],
        "text with a file": ["--task=mlm", text, f"--config={config}"],
        "text of the id": [f"--ckpt_path={LANGUAGE}", text, "--top_k=3"],
        "image of the task": ["--task=image-classification", second, "--top_k=3"],
        "not there": ["--task=multimodal-autoencoding", "a.mp4"],
    }
    argvs = [["predict", *argv, "--format=json"] for argv in commands.values()]
    data = ["--data=stereo-pair", "--data.image_size=[8, 12]", "--data.downscale=8", "--data.crops_per_pair=4"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.logger=false"]
    argvs.append(["validate", f"--ckpt_path={FLOW}", *data, *quiet])
    argvs.append(["validate", "--task=optical-flow", f"--model.params={FLOW}", *data, *quiet])
    argvs.append(["fit", f"--ckpt_path={FLOW}", *data, *quiet])
    names = [*commands, "validate", "validate params", "fit"]
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(cache), raising=False)  # before transformers 5
        found = [run_in(work, *argv) for argv in argvs]
    return {name: (result.code, result.out, result.err) for name, result in zip(names, found, strict=True)}


def answer(result) -> dict:
    code, out, err = result
    assert code == 0, err
    (prediction,) = json.loads(out)
    return prediction


def line(result) -> str:
    """Return the error line of a command with exit code 2."""
    code, out, err = result
    assert (code, out, err.count("\n"), err[:11]) == (2, "", 1, "perceiver: ")
    return err[11:-1]


def test_task_selects_the_published_model(results, published, frames):
    _, models = published
    pixels = [np.asarray(Image.open(frames / f"{number}.png")) for number in range(2)]
    with torch.no_grad():
        flow = 20 * models[FLOW](inputs=patched_inputs(frames_tensor(*pixels)[None])).logits[0]
    for name in ("task", "name", "id", "folder"):
        prediction = answer(results[f"flow of the {name}"])
        assert (prediction["height"], prediction["width"]) == (8, 12)
        assert prediction["mean_to_the_right"] == pytest.approx(flow[..., 0].mean().item(), rel=1e-4)
        assert prediction["mean_down"] == pytest.approx(flow[..., 1].mean().item(), rel=1e-4)
        assert prediction["max_length"] == pytest.approx(flow.norm(dim=-1).max().item(), rel=1e-4)


def test_unreadable_image_is_reported(results):
    code, out, err = results["damaged image"]
    assert code == 1
    assert len(json.loads(out)) == 1
    source, refused = [line for line in err.splitlines() if line.startswith("perceiver: ")]
    assert source.startswith("perceiver: predicting with ")
    assert "no.png: not an image" in refused


def test_masks_are_filled_by_the_published_model(results, published):
    _, models = published
    text = "some te[MASK]t"
    tokens = transformers.PerceiverTokenizer()(text, return_tensors="pt", padding="max_length", max_length=40)
    with torch.no_grad():
        logits = models[LANGUAGE](tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits[0]
    # Special tokens are no text.
    expected = logits[1 + len("some te"), 6:].softmax(dim=-1).topk(3)
    prediction = answer(results["text of the id"])
    (mask,) = prediction["masks"]
    assert [guess["probability"] for guess in mask] == pytest.approx(expected.values.tolist(), rel=1e-3)
    assert answer(results["text of the task"])["filled"] == prediction["filled"]


def test_config_file_of_a_training_run_is_accepted(results):
    (mask,) = answer(results["text with a file"])["masks"]
    assert len(mask) == 2


def test_image_predictions_equal_transformers(results, published, frames):
    _, models = published
    image = Image.open(frames / "1.png").convert("RGB")
    with torch.no_grad():
        logits = models[VISION](**transformers.PerceiverImageProcessor()(image, return_tensors="pt")).logits[0]
    expected = dict(zip(("cat", "dog", "eel"), logits.softmax(dim=-1).tolist(), strict=True))
    prediction = answer(results["image of the task"])
    assert {guess["label"]: guess["probability"] for guess in prediction["top"]} == pytest.approx(expected, abs=0.01)


def test_missing_hub_model_is_reported(results):
    error = line(results["not there"])
    assert error.startswith("deepmind/multimodal-perceiver: not a local folder, and not available from the hub")


def test_published_model_is_validated(results):
    (code, out, err), other = results["validate"], results["validate params"]
    assert code == 0, err
    assert "val_epe" in out
    assert other[:2] == (code, out)


def test_model_without_a_run_cannot_be_resumed(results):
    assert line(results["fit"]) == (
        f"--ckpt_path={FLOW}: not a checkpoint of a run, so training cannot be resumed from it "
        f"(--model.params={FLOW} starts a new run from its weights)"
    )


def test_hub_folder_predicts_as_its_checkpoint(perceiver, image_classifier, pictures, tmp_path):
    from_checkpoint(image_classifier.last).save_pretrained(tmp_path / "folder")
    predicted = [
        json.loads(perceiver("predict", f"--ckpt_path={source}", str(pictures), "--format=json").out)
        for source in (image_classifier.last, "folder", tmp_path / "folder")
    ]
    for other in predicted[1:]:
        for one, same in zip(predicted[0], other, strict=True):
            assert (one["input"], one["label"]) == (same["input"], same["label"])
            assert one["probability"] == pytest.approx(same["probability"], rel=1e-4)


KNOWN = "image-classification, mlm, multimodal-autoencoding, optical-flow"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            [],
            rf"--ckpt_path: missing \(give a checkpoint, .*, or best or last .*; tasks .*: {KNOWN}",
        ),
        (["--task=regression"], f"--ckpt_path: missing, and task 'regression' has no published model .*: {KNOWN}"),
        (["--model=small-optical-flow"], "missing, and model 'small-optical-flow' has no published weights"),
        (["--model=optical-flow-perceiver", "--ckpt_path=a.ckpt"], r"both select a model \(give one of the two\)"),
        (["--config=run.yaml"], "--ckpt_path: missing"),
        (["--ckpt_path=./none"], "none: no such file or folder"),
        (["--task=optical-flow", "--optimizer.lr=1"], "--optimizer.lr: has no effect in predict, which uses the model"),
        (["--task=optical-flow", "--optimizer", "AdamW"], "--optimizer: has no effect in predict"),
        (["--task=optical-flow", "--data=sintel"], "--data: has no effect in predict"),
        (["--task=optical-flow", "--data.batch_size=2"], "--data.batch_size: has no effect in predict"),
        (["--task=optical-flow", "--model.num_latents=2"], "--model.num_latents: has no effect in predict"),
        (["--task=optical-flow", "--model.params=a"], "--model.params: has no effect in predict"),
        (["--task=optical-flow", "--task.patience=2"], "--task.patience: has no effect in predict"),
        (["--task=optical-flow", "--trainer.max_steps=2"], "--trainer.max_steps: has no effect in predict"),
        (["--task=optical-flow", "--seed_everything=2"], "--seed_everything: has no effect in predict"),
        (["--task=optical-flow", "--print_config"], "--print_config: has no effect in predict"),
    ],
)
def test_wrong_use_is_one_line(perceiver, tmp_path, argv, message):
    Path("run.yaml").write_text("task: mlm\nmodel: language-perceiver\n")
    result = perceiver("predict", *argv, "a.png", "b.png")
    assert re.search(message, result.error)


def test_help_lists_flags_of_prediction(perceiver):
    shown = perceiver("predict", "--task=optical-flow", "--help").out
    for flag in ("--output", "--flow", "--overlap", "--trainer.accelerator", "--ckpt_path"):
        assert f"  {flag} " in shown
    for other in ("--optimizer", "--data", "--model.encoder", "--trainer.max_steps", "--seed_everything"):
        assert other not in shown
