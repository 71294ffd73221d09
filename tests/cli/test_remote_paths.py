"""Remote paths are refused by every command, and nothing is written under their names."""

from __future__ import annotations

import pytest

from perceiver_cli.main import main
from perceiver_registry import UserError
from perceiver_registry.formats import check_free, open_source
from perceiver_registry.remote import is_remote, refuse_remote

URL = "s3://bucket/folder"


def arguments(words: str) -> list[str]:
    return words.replace("URL", URL).split()


@pytest.mark.parametrize(
    "words",
    [
        "fit --data.train_files=URL",
        "fit --data.train_files URL",
        "fit --data.train_files=[URL,b.txt]",
        "fit --data.val_files=URL",
        "fit --data.cache_dir=URL",
        "fit --trainer.default_root_dir=URL",
        "fit --trainer.logger=CSVLogger --trainer.logger.save_dir=URL",
        "fit --trainer.callbacks=ModelCheckpoint --trainer.callbacks.dirpath=URL",
        "fit --ckpt_path=URL/last.ckpt",
        "fit --model.params=URL",
        "fit --model.encoder.params=URL",
        "fit --config=URL/c.yaml",
        "fit --plugin=URL/p.py",
        "validate --ckpt_path=URL",
        "test --ckpt_path URL",
        "predict --ckpt_path=URL text",
        "embed --ckpt_path=deepmind/language-perceiver URL/a.png",
        "predict --ckpt_path=deepmind/language-perceiver URL/a.png",
        "predict --ckpt_path=deepmind/language-perceiver --input=URL/texts.txt",
        "predict --ckpt_path=deepmind/language-perceiver --output=URL",
        "predict --ckpt_path=deepmind/language-perceiver --attention=URL text",
        "convert URL out/",
        "convert model.ckpt URL",
        "export --ckpt_path=URL --format=onnx",
        "export --ckpt_path=model.ckpt --output=URL/model.onnx",
        "new-plugin URL",
    ],
)
def test_remote_path_in_a_flag_is_refused(perceiver, small, tmp_path, words):
    command, *flags = arguments(words)
    given = small if command == "fit" else []
    error = perceiver(command, *given, *flags).error
    assert "remote paths are not supported, got s3://bucket" in error
    assert "copy or mount it" in error
    assert not [path for path in tmp_path.rglob("*") if "s3" in path.name]


def test_refused_flag_is_named(perceiver, small):
    error = perceiver("fit", *small, f"--trainer.default_root_dir={URL}").error
    assert error.startswith(f"--trainer.default_root_dir: remote paths are not supported, got {URL} (")
    assert perceiver("convert", "model.ckpt", URL).error.startswith("convert: remote paths")


@pytest.mark.parametrize(
    ("content", "option"),
    [
        (f"trainer: {{default_root_dir: '{URL}'}}", "trainer.default_root_dir"),
        (f"ckpt_path: {URL}", "ckpt_path"),
        (f"data: {{train_files: [a.txt, '{URL}']}}", "data.train_files"),
        (f"model: {{params: {URL}}}", "model.params"),
        (f"trainer: {{logger: {{class_path: CSVLogger, init_args: {{save_dir: '{URL}'}}}}}}", "save_dir"),
    ],
)
def test_remote_path_in_a_config_file_is_refused(perceiver, small, tmp_path, content, option):
    (tmp_path / "c.yaml").write_text(content)
    error = perceiver("fit", *small, "--config=c.yaml").error
    assert error.startswith("--config=c.yaml: ")
    assert f"{option}: remote paths are not supported" in error


def test_remote_cache_is_refused(perceiver, small, monkeypatch):
    monkeypatch.setenv("PERCEIVER_CACHE", URL)
    assert perceiver("fit", *small).error.startswith("PERCEIVER_CACHE: remote paths")


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("hf://owner/name", "use the hub id: owner/name"),
        ("https://huggingface.co/owner/name", "use the hub id: owner/name"),
        ("file:///data/a.txt", "use the path: /data/a.txt"),
        ("gs://bucket", "copy or mount it"),
    ],
)
def test_message_suggests_a_local_path(path, advice):
    with pytest.raises(UserError, match=advice):
        refuse_remote("--ckpt_path", path)


@pytest.mark.parametrize("path", ["S3://b", "simplecache::s3://b", "memory://runs", " az://x", "abfs+ssl://x"])
def test_remote_paths_are_recognised(path):
    assert is_remote(path)


@pytest.mark.parametrize(
    "path", ["C:\\data\\a.txt", "C:/data", "C://data", "owner/name", "a:b", "http://x.org is down", "", None, 3]
)
def test_local_paths_and_text_are_accepted(path):
    assert not is_remote(path)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--trainer.logger.tracking_uri", "http://localhost:5000"),
        ("--data.dataset", "http://mattmahoney.net/dc/enwik8.zip"),
        ("--data.label_names", ["http://schema.org/Person", "http://schema.org/Event"]),
        ("--data.text_column", "http://schema.org/text"),
    ],
)
def test_addresses_of_other_options_are_accepted(option, value):
    refuse_remote(option, value)


def test_address_as_text_is_read_from_standard_input(capsys):
    assert main(["predict", "--ckpt_path=a.ckpt", "https://example.org"]) == 2
    assert "standard input" in capsys.readouterr().err


def test_remote_models_are_refused_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for check in (check_free, open_source):
        with pytest.raises(UserError, match="remote paths are not supported"):
            check(URL)
