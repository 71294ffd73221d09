"""Folders of causal models for the hub: tokenizer, generation config, pipeline and conversion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import perceiver_plugins.huggingface.auto  # noqa: F401
from perceiver_cli.main import main
from perceiver_core import PerceiverAR
from perceiver_plugins.huggingface import ZooForCausalLM, from_checkpoint, load, to_zoo_model
from perceiver_plugins.text.continuation import PromptReader
from perceiver_registry import read_model

BEGIN, END, FIRST_BYTE = 1, 2, 6


@pytest.fixture(scope="session")
def causal_model(export: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Causal language model of bytes."""
    file = tmp_path_factory.mktemp("texts") / "train.txt"
    file.write_text(" ".join(f"word{number % 37} näh" for number in range(100)), encoding="utf-8")
    data = ["--data=text-files", f"--data.train_files={file}", "--data.max_seq_len=16", "--data.batch_size=2"]
    channels = ["--model.encoder.num_input_channels=16", "--model.max_seq_len=16"]
    return export("clm", ["Ein Bär näht viel", "word", ""], *data, *channels)


@pytest.mark.usefixtures("quiet_transformers")
def test_pipeline_equals_predict(other_process: Any, causal_model: Any, predicted: Callable[..., Any]) -> None:
    expected = predicted(causal_model, "--temperature=0", "--max_new_tokens=30")
    name, ours = other_process.run(
        "text-generation", causal_model.folder, causal_model.inputs, max_new_tokens=30, do_sample=False
    )
    assert name == "ZooForCausalLM"
    whole = [each["prompt"] + each["continuations"][0] for each in expected]
    assert [each[0]["generated_text"] for each in ours] == whole


@pytest.mark.usefixtures("quiet_transformers")
def test_prompts_begin_as_documents_and_their_ends_are_known(causal_model: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(causal_model.folder)
    batch = tokenizer(["a", "", "é" * 40], padding=True, return_tensors="pt")
    assert batch["input_ids"][:2, -2:].tolist() == [[BEGIN, ord("a") + FIRST_BYTE], [0, BEGIN]]
    assert batch["input_ids"].shape == (3, 81)  # the window slides over longer prompts
    model = AutoModelForCausalLM.from_pretrained(causal_model.folder)
    config = model.generation_config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (BEGIN, [END, BEGIN], 0)
    assert GenerationConfig.from_pretrained(causal_model.folder).eos_token_id == [END, BEGIN]
    found = model.generate(**batch, max_new_tokens=5)
    assert found.shape[0] == 3


@pytest.mark.usefixtures("quiet_transformers")
def test_round_trip(causal_model: Any) -> None:
    model, description = load(causal_model.folder)
    original = read_model(str(causal_model.checkpoint))
    assert type(model) is PerceiverAR
    assert model.config == original.model.config
    for name, value in original.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    readers = [PromptReader(each.data, model.input_adapter) for each in (description, original.description)]
    for text in ("", "näht <s>"):
        one, other = (reader.read(text).input_ids.tolist() for reader in readers)
        assert one == other


@pytest.mark.usefixtures("quiet_transformers")
def test_card(causal_model: Any) -> None:
    card = (causal_model.folder / "README.md").read_text()
    assert "pipeline_tag: text-generation" in card
    assert 'predict = pipeline("text-generation", model="tiny-clm")' in card
    assert "A [Perceiver AR](https://arxiv.org/abs/2202.07765) model of" in card


@pytest.mark.usefixtures("quiet_transformers")
def test_folders_are_converted_and_predicted(causal_model: Any, tmp_path: Path, capsys: Any) -> None:
    for source, target in (
        (causal_model.checkpoint, tmp_path / "folder"),
        (tmp_path / "folder", tmp_path / "again.ckpt"),
    ):
        assert main(["convert", str(source), str(target)]) == 0
        assert "difference 0.0e+00" in capsys.readouterr().out
    outputs = []
    for source in (causal_model.checkpoint, tmp_path / "folder", tmp_path / "again.ckpt"):
        flags = ["--format=json", "--temperature=0", "--max_new_tokens=9", "--trainer.accelerator=cpu"]
        assert main(["predict", f"--ckpt_path={source}", "näh", *flags]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    assert outputs[0] == outputs[1] == outputs[2]


def test_prompts_of_models_without_a_first_token(causal_model: Any) -> None:
    loaded = read_model(str(causal_model.checkpoint))
    loaded.description.data["add_bos_token"] = False
    model = to_zoo_model(loaded)
    assert isinstance(model, ZooForCausalLM)
    assert model.processor("a")["input_ids"] == [ord("a") + FIRST_BYTE]
    assert from_checkpoint(causal_model.checkpoint).processor("a")["input_ids"] == [BEGIN, ord("a") + FIRST_BYTE]
