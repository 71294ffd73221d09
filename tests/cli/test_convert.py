"""``perceiver convert``: from every format to every other, with each of Hugging Face's Perceivers."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from perceiver_registry import (
    LoadedModel,
    UserError,
    assemble,
    config_from_dict,
    create_model,
    load_model,
    read_model,
    write_model,
)
from perceiver_registry.formats import largest_difference

BASE = {
    "num_latents": 7,
    "d_latents": 24,
    "d_model": 16,
    "num_blocks": 1,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 3,
    "num_cross_attention_heads": 1,
}
TEXT = {"max_position_embeddings": 33, "num_cross_attention_heads": 2, "qk_channels": 18, "v_channels": 24}
CLASSES = {
    "PerceiverForMaskedLM": TEXT,
    "PerceiverForSequenceClassification": {"max_position_embeddings": 33, "num_labels": 3},
    "PerceiverForImageClassificationLearned": {"image_size": 13, "num_labels": 5},
    "PerceiverForImageClassificationFourier": {"num_labels": 5},
    "PerceiverForImageClassificationConvProcessing": {"num_labels": 5},
    "PerceiverForOpticalFlow": {"train_size": [8, 12]},
    "PerceiverForMultimodalAutoencoding": {
        "num_frames": 3,
        "audio_samples_per_frame": 16,
        "samples_per_patch": 8,
        "image_size": 8,
        "output_shape": [1, 3, 8, 12],
        "output_num_channels": 16,
        "_label_trainable_num_channels": 11,
        "num_labels": 5,
    },
}
MLM, CLASSIFIER = "PerceiverForMaskedLM", "PerceiverForSequenceClassification"
AUTOENCODER = "PerceiverForMultimodalAutoencoding"
FOURIER = "PerceiverForImageClassificationFourier"


def official(architecture: str, folder: Path, **changes: Any) -> nn.Module:
    """Save one of Hugging Face's models with random weights, and its tokenizer or image processor."""
    generator = torch.Generator().manual_seed(3)
    config = transformers.PerceiverConfig(**(BASE | CLASSES[architecture] | changes))
    original = getattr(transformers, architecture)(config)
    with torch.no_grad():
        for parameter in original.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.5
            parameter.normal_(0.0, scale, generator=generator)
        for name, buffer in original.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 2.0, generator=generator)
    original.eval().save_pretrained(folder)
    if architecture in (MLM, CLASSIFIER):
        transformers.PerceiverTokenizer().save_pretrained(folder)
    if "Image" in architecture:
        sizes = {name: {"height": 20, "width": 20} for name in ("size", "crop_size")}
        transformers.PerceiverImageProcessor(**sizes, image_mean=[0.4, 0.5, 0.6]).save_pretrained(folder)
    return original


def difference_in(result: Any) -> float:
    """Parse the difference that the command printed."""
    assert result.code == 0, result.err
    assert result.err == ""
    return float(re.search(r"^difference (\S+) at most, relative to the largest output", result.out, re.MULTILINE)[1])


@pytest.mark.slow
@pytest.mark.parametrize("architecture", CLASSES)
def test_round_trip_preserves_the_model(architecture, perceiver, tmp_path):
    original = official(architecture, tmp_path / "hub", id2label=dict(enumerate(["ant", "bee", "cat"])), num_labels=3)
    way = ["hub", "a.ckpt", "official"]
    if architecture in (MLM, AUTOENCODER):  # through the other formats too, whose files do not depend on the model
        way = [*way, "a.safetensors", "zoo --format=zoo", "b.pt", "c --format=huggingface"]
    for before, after in itertools.pairwise(way):
        source, *_ = before.split()
        target, *flags = after.split()
        result = perceiver("convert", str(tmp_path / source), str(tmp_path / target), *flags)
        assert difference_in(result) < 1e-5
        count = sum(parameter.numel() for parameter in original.parameters())
        assert f"parameters {count:,}\n" in result.out
    assert f"{tmp_path / target} (huggingface)\n" in result.out

    for folder in {"official", target}:
        back = type(original).from_pretrained(tmp_path / folder)
        assert back.config.architectures == [architecture]
        if architecture not in (MLM, "PerceiverForOpticalFlow"):
            assert back.config.id2label == original.config.id2label
        for name, value in original.state_dict().items():
            assert torch.equal(back.state_dict()[name], value), name
    models = [load_model(str(tmp_path / each.split()[0])) for each in way]
    batch = models[0].input_adapter.example_batch(2, torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, *others = [model(batch) for model in models]
    assert all(largest_difference(expected, other) < 1e-5 for other in others)
    descriptions = [read_model(str(tmp_path / each.split()[0])).description for each in way]
    assert len({each.task for each in descriptions}) == 1
    first, *configs = [config_from_dict(each.model) for each in descriptions]
    for config in configs:
        assert config == first


# What was converted is used


def test_converted_language_model_predicts_as_the_original(perceiver, tmp_path):
    original = official(MLM, tmp_path / "hub")
    assert difference_in(perceiver("convert", "hub", "a.ckpt")) < 1e-5
    text = "a[MASK]c"
    flags = ["--ckpt_path=a.ckpt", "--format=json", "--trainer.accelerator=cpu"]
    (answer,) = json.loads(perceiver("predict", *flags, text).out)
    tokenizer = transformers.PerceiverTokenizer()
    with torch.no_grad():
        logits = original(inputs=torch.tensor([tokenizer(text)["input_ids"]])).logits[0, 2]
    logits[:6] = float("-inf")  # special tokens are no text
    expected = logits.softmax(0)
    (guesses,) = answer["masks"]
    assert guesses[0]["token"] == tokenizer.decode([int(expected.argmax())])
    assert guesses[0]["probability"] == pytest.approx(float(expected.max()), rel=1e-4)


@pytest.mark.slow
def test_converted_image_classifier_predicts_as_the_original(perceiver, tmp_path):
    import numpy as np
    from PIL import Image

    original = official(FOURIER, tmp_path / "hub", id2label={0: "ant", 1: "bee"}, num_labels=2)
    picture = Image.fromarray(np.random.default_rng(0).integers(256, size=(20, 20, 3), dtype=np.uint8))
    picture.save(tmp_path / "picture.png")
    for way in (["a.ckpt"], ["zoo", "--format=zoo"], ["official"], ["b.ckpt"]):
        source = tmp_path / ("official" if way == ["b.ckpt"] else "hub")
        assert difference_in(perceiver("convert", str(source), str(tmp_path / way[0]), *way[1:])) < 1e-5
    processor = transformers.PerceiverImageProcessor.from_pretrained(tmp_path / "hub")
    with torch.no_grad():
        logits = original(**{"inputs": processor(picture, return_tensors="pt")["pixel_values"]}).logits
    expected = float(logits.softmax(dim=1).max())
    for name in ("a.ckpt", "b.ckpt"):
        flags = [f"--ckpt_path={tmp_path / name}", "--format=json", "--trainer.accelerator=cpu"]
        (answer,) = json.loads(perceiver("predict", *flags, str(tmp_path / "picture.png")).out)
        assert answer["label"] == ("ant", "bee")[int(logits.argmax())]
        assert answer["probability"] == pytest.approx(expected, rel=1e-3)


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory):
    """Folder with a language model in every format."""
    folder = tmp_path_factory.mktemp("everywhere")
    official(MLM, folder / "hub")
    loaded = read_model(str(folder / "hub"))
    for name, kind in (("a.ckpt", None), ("a.safetensors", None), ("zoo", "zoo")):
        write_model(loaded, str(folder / name), kind)
    return folder


@pytest.mark.parametrize("source", ["hub", "a.ckpt", "a.safetensors", "zoo"])
def test_params_accept_any_format(everywhere, source):
    original = load_model(str(everywhere / "hub"))
    config = original.config
    whole = assemble(replace(config, params=str(everywhere / source)))
    encoder = replace(config.encoder, params=str(everywhere / source))
    part = assemble(replace(config, encoder=encoder))
    for name, value in original.state_dict().items():
        assert torch.equal(whole.state_dict()[name], value), name
        if name.startswith(("encoder.", "input_adapter.")):
            assert torch.equal(part.state_dict()[name], value), name
    assert not torch.equal(part.state_dict()["decoder.cross_attention_layer.attention.o_proj.weight"], torch.zeros(()))


def test_training_starts_from_converted_checkpoint(everywhere, perceiver, fit, trainer, tmp_path):
    (tmp_path / "t.txt").write_text("some text to learn " * 40)
    data = ["--data=text-files", "--data.train_files=t.txt", "--data.max_seq_len=33", "--data.batch_size=4"]
    folder = fit("--task=mlm", *data, f"--model.params={everywhere / 'a.ckpt'}", *trainer, "--trainer.max_steps=1")
    assert (folder / "checkpoints" / "last.ckpt").exists()


def test_weights_without_description_need_a_model_name(perceiver, tmp_path):
    model = create_model("mnist-classifier")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    error = perceiver("convert", str(tmp_path / "w.safetensors"), str(tmp_path / "a.ckpt")).error
    assert error.endswith("(set --model=NAME to read them as those of a named model)")
    flags = [str(tmp_path / "w.safetensors"), str(tmp_path / "a.ckpt"), "--model=mnist-classifier"]
    assert difference_in(perceiver("convert", *flags)) < 1e-5
    back = load_model(str(tmp_path / "a.ckpt"))
    assert all(torch.equal(back.state_dict()[name], value) for name, value in model.state_dict().items())
    assert "does not fit the model" in perceiver("convert", *flags[:1], "b.ckpt", "--model=small-text-classifier").error


def test_model_without_hugging_face_equivalent_becomes_zoo_folder(perceiver, tmp_path):
    model = create_model("mnist-classifier")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    flags = ["convert", str(tmp_path / "w.safetensors"), "--model=mnist-classifier"]
    result = perceiver(*flags, str(tmp_path / "out"))
    assert difference_in(result) < 1e-5
    assert f"{tmp_path / 'out'} (zoo)\n" in result.out
    refused = perceiver(*flags, str(tmp_path / "other"), "--format=huggingface").error
    assert "cannot express this model" in refused
    assert not (tmp_path / "other").exists()


# What is there already


def test_existing_target_is_overwritten_on_request_only(everywhere, perceiver, tmp_path):
    source = str(everywhere / "hub")
    target = tmp_path / "a.ckpt"
    target.write_text("precious")
    taken = f"{target}: already exists (--overwrite replaces it)"
    assert perceiver("convert", source, str(target)).error == taken
    assert target.read_text() == "precious"
    assert perceiver("convert", source, str(target), "--overwrite").code == 0
    assert load_model(str(target))
    folder = tmp_path / "folder"
    folder.mkdir()
    assert perceiver("convert", source, str(folder)).code == 0  # it was empty
    (folder / "notes.txt").write_text("precious")
    assert "already exists" in perceiver("convert", source, str(folder)).error
    assert perceiver("convert", source, str(folder), "--overwrite").code == 0
    assert (folder / "notes.txt").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "folder"]  # and no draft is left


LOSSY = """
from pathlib import Path
from perceiver_registry import Format, FormatSpec, UserError, hookimpl

@hookimpl
def perceiver_formats():
    return [FormatSpec("lossy", "MODULE:Lossy", "rounds", reads=True, writes=True, suffixes=(".lossy",))]

class Lossy(Format):
    def recognises(self, source):
        return source.endswith(".lossy") and Path(source).read_bytes()[:2] == b"PK"

    def read(self, source):
        from perceiver_plugins.checkpoints.formats import CheckpointFormat
        return CheckpointFormat().read(source)

    def write(self, loaded, target):
        from perceiver_plugins.checkpoints.formats import CheckpointFormat
        import copy
        model = copy.deepcopy(loaded.model)
        for parameter in model.parameters():
            parameter.data = parameter.data.DTYPE().float()
        CheckpointFormat().write(loaded._replace(model=model), target)
"""


def test_file_that_computes_something_else_is_removed(everywhere, perceiver, tmp_path):
    for module, dtype in {"lossy_format": "bfloat16", "exact_format": "float"}.items():
        (tmp_path / f"{module}.py").write_text(LOSSY.replace("DTYPE", dtype).replace("MODULE", module))
    flags = ["convert", str(everywhere / "hub"), "a.lossy"]
    assert "a.lossy: removed the written model, whose outputs differ (by 0." in (
        perceiver(*flags, "--plugin=lossy_format.py").error
    )
    assert not (tmp_path / "a.lossy").exists()
    assert difference_in(perceiver(*flags, "--plugin=exact_format.py")) < 1e-5
    assert "a.lossy (lossy)" in perceiver("convert", "a.lossy", "back.ckpt", "--plugin=exact_format.py").out


# Checkpoints of the newest run by name


def test_best_is_the_checkpoint_of_the_newest_run(trained, perceiver, monkeypatch, tmp_path):
    monkeypatch.chdir(trained.folder.parents[2])
    result = perceiver("convert", "best", str(tmp_path / "best.safetensors"))
    assert result.code == 0, result.err
    assert f"read       {trained.best.relative_to(trained.folder.parents[2])} (checkpoint)" in result.out
    best = torch.load(trained.best, weights_only=True)["state_dict"]
    written = load_file(tmp_path / "best.safetensors")
    for name, weight in written.items():
        torch.testing.assert_close(weight, best[f"model.{name}"], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["best", "last"])
def test_named_checkpoint_needs_a_run(name, perceiver):
    assert perceiver("convert", name, "out.ckpt").error == f"{name}: no run in logs (give the path of a checkpoint)"
    flag = f"--ckpt_path={name}"
    assert perceiver("export", flag, "--output=out.pt2").error == (
        f"{flag}: no run in logs (give the path of a checkpoint)"
    )


# Hostile inputs


def _config_only(folder: Path, hub: Path) -> str:
    folder.mkdir()
    shutil.copy(hub / "config.json", folder)
    return str(folder)


def _changed(name: str, text: str | bytes) -> Any:
    def change(folder: Path, hub: Path) -> str:
        shutil.copytree(hub, folder)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(folder)

    return change


def _file(name: str, content: bytes) -> Any:
    def write(folder: Path, hub: Path) -> str:
        folder.mkdir()
        (folder / name).write_bytes(content)
        return str(folder / name)

    return write


def _half(name: str) -> Any:
    def cut(folder: Path, hub: Path) -> str:
        whole = (hub.parent / name).read_bytes()
        return _file(name, whole[: len(whole) // 2])(folder, hub)

    return cut


def _description(text: str) -> Any:
    def write(folder: Path, hub: Path) -> str:
        folder.mkdir()
        state = load_file(hub.parent / "a.safetensors")
        save_file(state, folder / "a.safetensors", {"perceiver": text})
        return str(folder / "a.safetensors")

    return write


def _another_class(folder: Path, hub: Path) -> str:
    shutil.copytree(hub, folder)
    config = json.loads((hub / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [CLASSIFIER]}))
    return str(folder)


def _other(architecture: str) -> Any:
    return _changed("config.json", json.dumps({"model_type": "perceiver", "architectures": [architecture]}))


HOSTILE = {
    "nothing": (lambda folder, hub: str(folder), "no such file or folder"),
    "no-file": (lambda folder, hub: str(folder / "a.ckpt"), "no such checkpoint"),
    "no-safetensors": (lambda folder, hub: str(folder / "a.safetensors"), "no such file"),
    "empty-folder": (lambda folder, hub: folder.mkdir() or str(folder), "not a model in a readable format"),
    "a-text": (_file("a.txt", b"text"), "not a model in a readable format"),
    "no-checkpoint": (_file("a.ckpt", b"text"), "not a readable checkpoint"),
    "no-weights": (_file("a.safetensors", b"text"), "not a readable safetensors file"),
    "half-a-checkpoint": (_half("a.ckpt"), "not a readable checkpoint"),
    "half-of-weights": (_half("a.safetensors"), "not a readable safetensors file"),
    "config-only": (_config_only, "cannot load a Perceiver language model"),
    "no-json": (_changed("config.json", "{"), "its config.json cannot be read"),
    "a-list": (_changed("config.json", "[]"), "its config.json is not a JSON object"),
    "another-model": (_changed("config.json", '{"model_type": "bert"}'), "not a model in a readable format"),
    "no-architecture": (
        _changed("config.json", '{"model_type": "perceiver"}'),
        "Perceiver without a task cannot be converted",
    ),
    "unknown-class": (
        _other("PerceiverForPoetry"),
        "PerceiverForPoetry cannot be converted",
    ),
    "wrong-class": (_another_class, "not a Perceiver for classification of texts: its weights lack 'perceiver.decoder"),
    "wrong-activation": (
        _changed("config.json", json.dumps({"model_type": "perceiver", "architectures": [MLM], "hidden_act": "relu"})),
        "cannot convert the configuration: hidden_act='relu'",
    ),
    "broken-weights": (_changed("model.safetensors", b"broken"), "cannot load a Perceiver language model"),
    "broken-description": (_description("{"), "cannot read its description of the model"),
    "empty-description": (_description("{}"), "its description of the model is damaged: format is missing"),
    "description-of-the-future": (_description('{"format": 99}'), "written by a newer perceiver (format 99)"),
    "missing-plugin": (
        _description(
            '{"format": 1, "task": "mlm", "data": {}, "run": {}, '
            '"model": {"encoder": {"adapter": "wave"}, "decoder": {"adapter": "text"}}, '
            '"plugins": [{"kind": "input", "name": "wave", "distribution": "acme", "version": "1.2"}]}'
        ),
        "needs the input adapter 'wave' of acme 1.2: pip install acme==1.2",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_invalid_source_is_reported(case, everywhere, perceiver, tmp_path):
    make, message = HOSTILE[case]
    source = make(tmp_path / "source", everywhere / "hub")
    error = perceiver("convert", source, str(tmp_path / "out.ckpt")).error
    assert message in error
    assert source in error
    assert not (tmp_path / "out.ckpt").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["x"], "the following arguments are required: DST"),
        (["hub", "out", "--format=zo"], "unknown format 'zo'; did you mean 'zoo'"),
        (["hub", "out.pt", "--format=zoo"], "format 'zoo' writes a folder, but the target has a file suffix"),
        (["hub", "out", "--format=checkpoint"], "a file of format 'checkpoint' ends with .ckpt or .pt"),
        (["hub", "out", "--model=language-percever"], "did you mean 'language-perceiver'"),
        (["hub", "a.ckpt/out.ckpt"], "a.ckpt/out.ckpt: cannot be written: "),
    ],
)
def test_wrong_use_is_one_line(argv, message, everywhere, perceiver, monkeypatch):
    monkeypatch.chdir(everywhere)
    assert message in perceiver("convert", *argv).error


def test_model_with_infinite_weights_is_not_written(everywhere, tmp_path):
    loaded = read_model(str(everywhere / "hub"))
    assert not loaded.model.training
    with torch.no_grad():
        loaded.model.encoder.latents.fill_(float("nan"))
    with pytest.raises(UserError, match=r"'encoder\.latents' is not finite"):
        write_model(LoadedModel(*loaded), str(tmp_path / "a.ckpt"))
    assert [*tmp_path.iterdir()] == []
