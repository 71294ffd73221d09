"""Model card, and uploads to a fake hub."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load
from torch.utils.tensorboard import SummaryWriter

from perceiver_plugins.huggingface import from_checkpoint
from perceiver_plugins.huggingface.model_card import _read_logged_metrics
from perceiver_registry import read_checkpoint
from perceiver_registry.checkpoint import KEY


def test_card_describes_the_run(text_classifier: Any) -> None:
    card = ModelCard.load(text_classifier.folder / "README.md")
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.library_name == "transformers"
    checkpoint = read_checkpoint(text_classifier.checkpoint)
    [state] = [each for name, each in checkpoint["callbacks"].items() if "ModelCheckpoint" in name]
    metrics = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert {"loss", "accuracy", "f1"} <= {*metrics}
    assert metrics["loss"] == pytest.approx(float(state["current_score"]), abs=1e-6)
    assert {result.dataset_split for result in card.data.eval_results} == {"validation"}
    assert {result.dataset_name for result in card.data.eval_results} == {"text-files"}
    parameters = sum(value.numel() for name, value in checkpoint["state_dict"].items() if name.startswith("model."))
    for words in (
        f"{parameters:,} parameters",
        "add_eos_token: true",  # data
        "name: AdamW",  # optimizer
        "num_latents: 4",  # model
        f"for {checkpoint['global_step']} steps",
        f"| validation | loss | {metrics['loss']:.4g} |",
        'pipeline("text-classification", model="tiny-text-classification")',
        f"- torch {torch.__version__.partition('+')[0]}",
        "- perceiver-zoo ",
        "pip install perceiver-zoo\n",
    ):
        assert words in card.text, words


def test_card_has_the_metrics_of_the_checkpoints_step(image_classifier: Any) -> None:
    checkpoint = read_checkpoint(image_classifier.checkpoint)
    card = ModelCard.load(image_classifier.folder / "README.md")
    [loss] = [result.metric_value for result in card.data.eval_results if result.metric_type == "loss"]
    scores = [each["current_score"] for each in checkpoint["callbacks"].values() if "current_score" in each]
    assert loss == pytest.approx(float(scores[0]), abs=1e-6)


def test_card_has_no_local_paths(text_classifier: Any) -> None:
    files = read_checkpoint(text_classifier.checkpoint)[KEY]["run"]["data"]["train_files"]
    text = (text_classifier.folder / "README.md").read_text()
    assert str(Path(files).parent) not in text
    assert "train_files: train.jsonl" in text


def test_card_of_a_task_without_pipeline(regressor: Any) -> None:
    card = ModelCard.load(regressor.folder / "README.md")
    assert card.data.pipeline_tag is None
    assert 'AutoModel.from_pretrained("tiny-regression")' in card.text
    assert {result.task_type for result in card.data.eval_results} == {"regression"}


def test_without_events_the_card_has_the_monitored_metric(language_model: Any, tmp_path: Path) -> None:
    alone = tmp_path / "run" / "checkpoints" / "best.ckpt"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(language_model.checkpoint.read_bytes())
    run = from_checkpoint(alone).run
    assert run is not None
    assert [*run.metrics] == ["val_loss"]


def test_events_of_a_resumed_run_are_read_without_warnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for first, value in ((0, 3.0), (2, 1.0)):  # the second writer replaces the steps from 2
        writer = SummaryWriter(str(tmp_path), purge_step=first, filename_suffix=str(first))
        for step in range(first, 5):
            writer.add_scalar("val_loss", value, step)
        writer.close()
    with caplog.at_level("INFO"):
        assert dict(_read_logged_metrics(tmp_path, 5)) == {"val_loss": 1.0}
    assert [record.message for record in caplog.records if record.name == "tensorboard"] == []


class Hub(BaseHTTPRequestHandler):
    """Fake hub for uploads, which records requests."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.requests.append((self.path, body, self.headers.get("Authorization")))
        url = f"http://127.0.0.1:{server.server_port}/somebody/tiny"
        if self.path == "/api/repos/create":
            response: dict[str, Any] = {"url": url, "name": "somebody/tiny"}
        elif "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            response = {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]}
        elif "/commit/" in self.path:
            response = {"success": True, "commitUrl": f"{url}/commit/abc", "commitOid": "abc", "hookOutput": ""}
        else:
            response = {"errors": [], "warnings": []}
        self.answer(response)

    def do_GET(self) -> None:  # huggingface_hub 0.30 asks for the storage of the repository
        self.answer({"id": "somebody/tiny", "xetEnabled": False})

    def answer(self, response: dict[str, Any]) -> None:
        text = json.dumps(response).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


def test_upload_has_model_processor_and_card(language_model: Any, hub: Any) -> None:
    model = from_checkpoint(language_model.checkpoint)
    commit = model.push_to_hub("tiny", token="hf_secret", private=True, commit_message="Better")
    assert commit.oid == "abc"
    (_, created, token), *_ = [request for request in hub.requests if request[0] == "/api/repos/create"]
    assert json.loads(created)["name"] == "tiny"
    assert json.loads(created).get("private") or json.loads(created).get("visibility") == "private"
    assert token == "Bearer hf_secret"
    [(path, body, _)] = [request for request in hub.requests if "/commit/" in request[0]]
    assert path.startswith("/api/models/somebody/tiny/commit/main")
    lines = [json.loads(line) for line in body.splitlines()]
    assert lines[0]["value"]["summary"] == "Better"
    uploaded = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines[1:]}
    assert {*uploaded} == {path.name for path in language_model.folder.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= {*uploaded}
    for name in ("config.json", "tokenizer.json"):
        assert uploaded[name] == (language_model.folder / name).read_bytes()
    state = {name: value for name, value in model.state_dict().items() if "output_adapter.embedding" not in name}
    torch.testing.assert_close(load(uploaded["model.safetensors"]), state, rtol=0, atol=0)
    assert 'pipeline("fill-mask", model="tiny")' in uploaded["README.md"].decode()


def test_save_and_upload(image_classifier: Any, hub: Any, tmp_path: Path) -> None:
    model = from_checkpoint(image_classifier.checkpoint)
    model.save_pretrained(tmp_path / "digits", push_to_hub=True, token="hf_secret")
    [body] = [request[1] for request in hub.requests if "/commit/" in request[0]]
    uploaded = {json.loads(line)["value"].get("path") for line in body.splitlines()} - {None}
    assert uploaded == {path.name for path in (tmp_path / "digits").iterdir()}
    assert "preprocessor_config.json" in uploaded
