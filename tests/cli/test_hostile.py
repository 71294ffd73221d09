"""Config files, checkpoints, folders and images that try to run code, detected by a marker file."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from PIL import Image

from perceiver_registry.checkpoint import KEY

ROOT = Path(__file__).parents[2]
TOUCH = "touch marker"

MODULE = """
from os import system
from pathlib import Path
from pytorch_lightning import Callback
from perceiver_plugins.text.data.local import TextFilesDataModule

Path("marker").touch()


class Mine(Callback):
    def __init__(self, name: str = "called"):
        self.name = name

    def on_fit_start(self, *_):
        Path(self.name).touch()


class Texts(TextFilesDataModule):
    pass
"""


class Payload:
    """Object that runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, (TOUCH,)


@pytest.fixture
def marker(tmp_path) -> Path:
    """File that hostile content creates if it runs."""
    return tmp_path / "marker"


@pytest.fixture(autouse=True)
def _nothing_has_run(marker):
    yield
    assert not marker.exists(), "hostile code has run"


@pytest.fixture
def refused(perceiver, small):
    """Return the error line of ``fit`` with further flags."""

    def refused(*argv: str) -> str:
        return perceiver("fit", *small, "--trainer.max_steps=1", *argv).error

    return refused


@pytest.fixture
def user_module(tmp_path, monkeypatch) -> str:
    """Name of a module that is not allowed. Importing it creates the marker."""
    name = f"module_of_{tmp_path.name}"
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return name


def spec(path: str, **arguments: object) -> dict[str, object]:
    return {"class_path": path, "init_args": arguments}


def write_config(values: object) -> str:
    Path("c.yaml").write_text(yaml.safe_dump(values))
    return "--config=c.yaml"


def test_payloads_work(marker, user_module):
    """Check that the payloads create the marker if they run."""
    pickle.loads(pickle.dumps(Payload()))
    assert marker.exists()
    marker.unlink()
    __import__(user_module)
    assert marker.exists()
    marker.unlink()


# Names in config files and flags

HOSTILE = {
    "os.system": {"command": TOUCH},
    "posix.system": {"command": TOUCH},
    "subprocess.Popen": {"args": TOUCH, "shell": True},
    "builtins.exec": {"source": "open('marker', 'w')"},
    "builtins.eval": {"source": "open('marker', 'w')"},
    "pathlib.Path.touch": {"self": "marker"},
    "torch.hub.load": {"repo_or_dir": ".", "model": "evil", "source": "local"},
    "torch.load": {"f": "evil.pt", "weights_only": False},
    "torch.utils.cpp_extension.load": {"name": "evil", "sources": ["evil.cpp"]},
    "torch.distributed.run.run_script_path": {"training_script": "evil.py"},
    "torchvision.datasets.folder.DatasetFolder": {"root": ".", "loader": "os.system"},
    "timm.models.load_checkpoint": {"checkpoint_path": "evil.pt"},
    "pytorch_lightning.cli.LightningCLI": {},
    "pytorch_lightning.Trainer": {},
    "transformers.AutoModel.from_pretrained": {"pretrained_model_name_or_path": ".", "trust_remote_code": True},
    "jsonargparse.set_parsing_settings": {"import_path_allowlist": ["os"]},
}


@pytest.mark.parametrize("path", HOSTILE)
def test_config_file_with_callable_that_runs_code_is_refused(refused, path):
    with open("evil.pt", "wb") as file:
        pickle.dump(Payload(), file)
    Path("hubconf.py").write_text(f"import os\nos.system({TOUCH!r})\ndef evil(): pass\n")
    line = refused(write_config({"trainer": {"callbacks": [spec(path, **HOSTILE[path])]}}))
    assert line.startswith(
        f"--config=c.yaml, line 2: trainer.callbacks: {path} is refused: only classes of plugins, torch,"
    )
    # The message must not suggest to allow os.
    assert ("--allow" in line) == (path.partition(".")[0] == "jsonargparse"), line


@pytest.mark.parametrize("section", ["callbacks", "logger", "profiler", "plugins", "strategy", "accelerator"])
def test_trainer_options_refuse_code(perceiver, small, section):
    values = {"trainer": {section: spec("subprocess.Popen", args=TOUCH, shell=True)}}
    line = perceiver("fit", *small, write_config(values)).error
    if section == "accelerator":  # takes a name only
        assert "unknown key 'trainer.accelerator.class_path'" in line
    else:
        assert f"c.yaml, line 2: trainer.{section}: subprocess.Popen is refused" in line


@pytest.mark.parametrize(
    "values",
    [
        {"trainer": {"callbacks": [spec("LambdaCallback", on_fit_start="os.getcwd")]}},
        {"trainer": {"callbacks": [spec("LambdaCallback", on_fit_start=spec("functools.partial", func="os.getcwd"))]}},
        # Options of a strategy.
        {"trainer": {"strategy": spec("DDPStrategy", checkpoint_io=spec("subprocess.Popen", args=TOUCH, shell=True))}},
        {"trainer": {"strategy": spec("DDPStrategy", ddp_comm_hook="os.system")}},
        {"lr_scheduler": {"name": "LambdaLR", "lr_lambda": "os.system"}},
        # Through an allowed module that imports a refused one.
        {"trainer": {"callbacks": [spec("torch.nn.modules.module.torch.load", f="evil.pt")]}},
        {"trainer": {"callbacks": [spec("perceiver_plugins.sdk.data.opening.gzip.open", filename="x")]}},
    ],
)
def test_nested_and_indirect_names_are_refused(refused, values):
    line = refused(write_config(values))
    assert line.startswith("--config=c.yaml, line 2: "), line
    assert " is refused: " in line, line


def test_class_in_untyped_option_is_not_created(perceiver, small):
    payload = spec("pytorch_lightning.callbacks.LambdaCallback", on_fit_start=spec("subprocess.Popen", args=TOUCH))
    hostile = {"file": spec("subprocess.Popen", args=TOUCH, shell=True), "theme": payload}
    values = {"trainer": {"callbacks": [spec("RichProgressBar", console_kwargs=hostile)]}}
    config = [flag for flag in small if flag != "--trainer.enable_progress_bar=false"]
    result = perceiver("fit", *config, write_config(values), "--trainer.max_steps=1")
    assert result.code in (1, 2)  # rich rejects dicts


def test_nested_config_files_are_checked(refused):
    hostile = spec("os.system", command=TOUCH)
    Path("other.yaml").write_text(yaml.safe_dump({"callbacks": [hostile]}))
    Path("callback.yaml").write_text(yaml.safe_dump(hostile))
    assert refused("--trainer=other.yaml").startswith("--trainer=other.yaml, line 1: trainer.callbacks: os.system is")
    by_config = refused(write_config({"trainer": "other.yaml"}))
    assert by_config.startswith("--config=c.yaml, line 1: trainer.callbacks: os.system is refused")
    for argument in ("--trainer.callbacks=callback.yaml", write_config({"trainer": {"callbacks": "callback.yaml"}})):
        assert "callback.yaml" in refused(argument)


@pytest.mark.parametrize(
    "text",
    [
        f'trainer: !!python/object/apply:os.system ["{TOUCH}"]',
        f'!!python/object/apply:subprocess.Popen [["touch", "marker"]]: 1\n{TOUCH}: 2',
        "trainer:\n  callbacks: !!python/name:os.system",
        "trainer: !!python/module:antigravity",
    ],
)
def test_yaml_object_tags_are_refused(refused, text):
    Path("c.yaml").write_text(text)
    expected = r"--config=c.yaml, line [12]: not YAML: could not determine a constructor for"
    assert re.match(expected, refused("--config=c.yaml"))


@pytest.mark.parametrize(
    "flag",
    [
        "--trainer.callbacks=os.system",
        "--trainer.callbacks+=os.system",
        '--trainer.callbacks={"class_path": "os.system", "init_args": {"command": "touch marker"}}',
        '--trainer.callbacks=!!python/object/apply:os.system ["touch marker"]',
        "--trainer.logger=os.system",
        "--data=os.system",
        "--optimizer=os.system",
        "--lr_scheduler=os.system",
        "--model.encoder=os.system",
        "--task=os.system",
    ],
)
def test_flags_refuse_code(refused, flag):
    assert "os.system" in refused(flag)


def test_describe_imports_registered_names_only(perceiver, user_module):
    for name in ("os.system", f"{user_module}.Texts"):
        result = perceiver("describe", name)
        assert result.code == 2
        assert f"unknown name {name!r}" in result.err


# What the user allows


@pytest.mark.slow
def test_allowed_callback_runs(perceiver, small, user_module, marker):
    flags = ["fit", *small, "--trainer.max_steps=1", "--trainer.limit_val_batches=0"]
    mine = [f"--trainer.callbacks={user_module}.Mine", "--trainer.callbacks.name=was_called"]
    line = perceiver(*flags, *mine).error
    assert line.startswith(f"--trainer.callbacks: {user_module}.Mine is refused: ")
    assert line.endswith(f" (--allow={user_module} if you trust it)")
    assert not marker.exists(), "it was imported"

    result = perceiver(*flags, *mine, f"--allow=nothing,{user_module}")
    assert result.code == 0, result.err
    assert Path("was_called").exists()
    marker.unlink()

    assert "is refused" in perceiver(*flags, *mine).error, "an earlier command's --allow still applies"


def test_data_module_by_import_path_must_be_allowed(perceiver, small, data, user_module, marker):
    named = [*small, f"--data={user_module}.Texts", *data[1:], "--print_config"]
    line = perceiver("fit", *named).error
    assert line.startswith(f"--data: {user_module}.Texts is refused: ")
    assert line.endswith(f" (--allow={user_module} if you trust it)")
    config = write_config({"data": spec(f"{user_module}.Texts")})
    assert perceiver("fit", *[flag for flag in small if not flag.startswith("--data")], config).error.startswith(
        f"--config=c.yaml, line 1: data: {user_module}.Texts is refused: "
    )
    assert not marker.exists(), "it was imported"

    result = perceiver("fit", *named, f"--allow={user_module}")
    assert result.code == 0, result.err
    assert yaml.safe_load(result.out)["data"]["name"] == f"{user_module}.Texts"
    marker.unlink()


def test_imports_of_an_allowed_module_stay_refused(refused, user_module, marker):
    hostile = write_config({"trainer": {"callbacks": [spec(f"{user_module}.system", command=TOUCH)]}})
    assert "posix.system is refused" in refused(hostile, f"--allow={user_module}")
    marker.unlink()  # created by the allowed import


@pytest.mark.parametrize("name", ["my-package", "*", "a/b.py", "jsonargparse", "jsonargparse.typing"])
def test_wrong_name_to_allow_is_reported(refused, name):
    assert refused(f"--allow={name}").startswith(f"--allow={name}: not the import name of a package")


def test_missing_option_of_a_class_is_reported(refused):
    assert refused("--trainer.logger=CSVLogger") == "--trainer.logger.save_dir: missing"


def test_missing_allowed_module_is_reported(refused):
    assert "needs nowhere, which is not installed" in refused("--trainer.callbacks=nowhere.Mine", "--allow=nowhere")


@pytest.mark.slow
def test_documented_classes_are_allowed(perceiver, small):
    values = {
        "trainer": {
            "logger": spec("CSVLogger", save_dir="."),
            "callbacks": [
                spec("LearningRateMonitor"),
                spec("pytorch_lightning.callbacks.EarlyStopping", monitor="val_loss"),
                spec("LambdaCallback", on_fit_start="torch.nn.functional.relu"),
            ],
            "plugins": spec("AsyncCheckpointIO"),
            "profiler": spec("SimpleProfiler"),
            "strategy": spec("FSDPStrategy", mixed_precision=spec("torch.distributed.fsdp.MixedPrecision")),
        },
        "optimizer": spec("timm.optim.Lamb"),
        "lr_scheduler": spec("torch.optim.lr_scheduler.StepLR", step_size=3),
        "data": spec("perceiver_plugins.text.data.local.TextFilesDataModule"),
    }
    result = perceiver("fit", *small, write_config(values), "--print_config")
    assert result.code == 0, result.err
    printed = yaml.safe_load(result.out)["trainer"]
    assert printed["callbacks"][1]["class_path"] == "pytorch_lightning.callbacks.EarlyStopping"
    assert printed["strategy"]["init_args"]["timeout"] == "0:30:00"
    assert (
        perceiver(
            "fit",
            *small,
            "--trainer.strategy=ddp",
            "--trainer.logger=CSVLogger",
            "--trainer.logger.save_dir=x",
            "--print_config",
        ).code
        == 0
    )


# Checkpoints and weights


@pytest.fixture(scope="module")
def pickles() -> dict[str, bytes]:
    """Pickles with code, in each form that a file of weights may have."""
    written = {}
    for name, options in {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}.items():
        torch.save({"state_dict": {"weight": Payload()}}, file := io.BytesIO(), **options)
        written[name] = file.getvalue()
    return written | {"plain": pickle.dumps(Payload())}


@pytest.mark.parametrize(
    ("command", "form"),
    [("fit", "zip"), ("fit", "legacy"), ("fit", "plain"), ("validate", "zip"), ("predict", "legacy")],
)
def test_checkpoint_with_code_is_refused(perceiver, pickles, command, form):
    Path("evil.ckpt").write_bytes(pickles[form])
    line = perceiver(command, "--ckpt_path=evil.ckpt").error
    assert line.startswith("evil.ckpt: not a readable checkpoint: "), line
    assert form != "zip" or "its pickle calls posix.system, but only plain data is read" in line


@pytest.mark.parametrize(
    ("part", "file", "form"),
    [
        ("model", "evil.pt", "zip"),
        ("model", "evil.ckpt", "legacy"),
        ("model", "evil.bin", "plain"),
        ("model", "evil.safetensors", "zip"),
        ("model", "evil.pth", "legacy"),
        ("model.encoder", "evil.pt", "plain"),
        ("model.encoder", "evil.ckpt", "zip"),
        ("model.encoder", "evil.safetensors", "plain"),
    ],
)
def test_weights_with_code_are_refused(refused, pickles, file, form, part):
    Path(file).write_bytes(pickles[form])
    assert file in refused(f"--{part}.params={file}")


def test_run_config_of_a_checkpoint_cannot_run_code(perceiver, trained, load, user_module):
    checkpoint = load(trained.last)
    run = checkpoint[KEY]["run"]
    for path in ("os.system", f"{user_module}.Mine"):
        run["trainer"] = {**run["trainer"], "callbacks": [spec(path, **{})]}
        torch.save(checkpoint, "evil.ckpt")
        line = perceiver("fit", "--ckpt_path=evil.ckpt", "--trainer.max_steps=13").error
        assert line.startswith(f"evil.ckpt: --trainer.callbacks: {path} is refused: "), line
    run["data"] = {"name": f"{user_module}.Texts"}
    torch.save(checkpoint, "evil.ckpt")
    for command in ("fit", "validate", "test"):
        line = perceiver(command, "--ckpt_path=evil.ckpt").error
        assert line.startswith(f"evil.ckpt: --data: {user_module}.Texts is refused: "), line


def test_predict_calls_nothing_named_in_a_checkpoint(perceiver, trained, load, user_module):
    checkpoint = load(trained.last)
    checkpoint["hyper_parameters"]["_instantiator"] = f"{user_module}.Mine"
    torch.save(checkpoint, "evil.ckpt")
    result = perceiver("predict", "--ckpt_path=evil.ckpt", "word[MASK]")
    assert result.code == 0, result.err


def write_published(folder: Path, **values: object) -> None:
    """Folder in the hub's layout whose weights contain code."""
    folder.mkdir()
    config = transformers.PerceiverConfig(num_latents=4, d_latents=16, d_model=16, num_self_attends_per_block=1)
    plain = config.to_dict() | {"architectures": ["PerceiverForMaskedLM"]} | values
    (folder / "config.json").write_text(json.dumps(plain))
    torch.save({"perceiver.embeddings.latents": Payload()}, folder / "pytorch_model.bin")


EVIL_CODE = f"import os\nos.system({TOUCH!r})\nclass Evil:\n    pass\n"


@pytest.fixture
def _says_yes(monkeypatch):
    """Answer "y" to all prompts."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))


def test_published_model_with_pickled_code_is_refused(refused):
    write_published(Path("published"))
    assert "params='published': cannot load a Perceiver language model" in refused("--model.params=published")


@pytest.mark.usefixtures("_says_yes")
def test_published_model_with_remote_code_is_refused(refused):
    names = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoModelForMaskedLM": "evil.Evil"}
    write_published(Path("published"), model_type="evil", auto_map=names)
    Path("published", "evil.py").write_text(EVIL_CODE)
    assert "published: not a model in a readable format" in refused("--model.params=published")


@pytest.mark.usefixtures("_says_yes")
def test_tokenizer_with_remote_code_is_refused(refused):
    folder = Path("tokenizer")
    folder.mkdir()
    names = {"AutoTokenizer": ["evil.Evil", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil", "auto_map": names}))
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}))
    (folder / "evil.py").write_text(EVIL_CODE)
    assert "--data.tokenizer: 'tokenizer' could not be loaded from folder" in refused("--data.tokenizer=tokenizer")


# Data


@pytest.mark.parametrize("task", [["mlm", "hub-text"], ["image-classification", "hub-images"]])
@pytest.mark.parametrize("pickled", [False, True])
def test_data_set_with_script_is_refused(perceiver, trainer, task, pickled):
    folder = Path("evil")
    folder.mkdir()
    (folder / "evil.py").write_text(EVIL_CODE)
    if pickled:
        (folder / "train.pkl").write_bytes(pickle.dumps(Payload()))
        (folder / "train.pt").write_bytes(pickle.dumps(Payload()))
    name, data = task
    flags = [f"--task={name}", f"--data={data}", "--data.dataset=evil", "--trainer.max_steps=1", *trainer]
    assert "evil" in perceiver("fit", *flags).error


def test_cifar10_files_with_other_checksums_are_not_unpickled(perceiver, trainer):
    Path("cifar").mkdir()
    for name in ("data_batch_1", "data_batch_2", "test_batch", "batches.meta"):
        Path("cifar", name).write_bytes(pickle.dumps(Payload()))
    flags = ["--task=image-classification", "--data=cifar10", "--data.root=cifar", "--trainer.max_steps=1", *trainer]
    assert "their checksums differ" in perceiver("fit", *flags).error


def png(width: int, height: int) -> bytes:
    """Encode the header of an image of a size."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(bytes(1000))}
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (chunks | {b"IEND": b""}).items()
    )
    return b"\x89PNG\r\n\x1a\n" + content


@pytest.fixture
def with_image(perceiver, trainer):
    """Return the error of training with a given image among those of two classes."""

    def with_image(content: bytes) -> str:
        for number in range(8):
            file = Path("photos", "ab"[number % 2], f"{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(file)
        Path("photos", "a", "evil.png").write_bytes(content)
        flags = ["--task=image-classification", "--data=image-folder", "--data.path=photos", "--data.image_size=8"]
        return perceiver("fit", *flags, "--trainer.max_epochs=1", *trainer, "--data.num_workers=0").error

    return with_image


def test_image_with_too_many_pixels_is_refused(with_image):
    line = with_image(png(60_000, 60_000))
    assert line.startswith("photos/a/evil.png: the image cannot be read (Image size (3600000000 pixels) exceeds limit")


def test_postscript_image_is_refused(with_image, monkeypatch):
    """Pillow runs PostScript in Ghostscript, whatever the file's suffix."""
    Path("bin").mkdir()
    Path("bin", "gs").write_text(f"#!/bin/sh\ncd {Path.cwd()}\n{TOUCH}\n")
    Path("bin", "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    assert with_image(program).startswith("photos/a/evil.png: not an image, or of an unknown format")


def test_archive_with_false_sizes_is_refused(perceiver, trainer, tmp_path):
    photo = io.BytesIO()
    Image.new("RGB", (8, 8)).save(photo, "PNG")
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png", "../marker", f"{tmp_path}/marker", "a/../../marker"):
            archive.writestr(name, photo.getvalue())
        with archive.open(zipfile.ZipInfo("a/bomb.png"), "w", force_zip64=True) as file:
            file.write(png(8, 8))
    content = Path("photos.zip").read_bytes()
    # Set the size in the last entry of the archive's directory to 3 GB.
    start = content.rindex(b"PK\x01\x02")
    Path("photos.zip").write_bytes(content[: start + 24] + struct.pack("<I", 3 * 10**9) + content[start + 28 :])
    flags = ["--task=image-classification", "--data=image-folder", "--data.path=photos.zip", "--data.image_size=8"]
    line = perceiver("fit", *flags, "--trainer.max_epochs=1", *trainer, "--data.num_workers=0").error
    assert line.startswith("photos.zip/a/bomb.png: 3,000,000,000 bytes are above the limit of 1,073,741,824")


# The project itself

UNSAFE = {
    "code of a repository": r"trust_remote_code\s*=\s*True",
    "an unrestricted unpickler": r"weights_only\s*=\s*(False|None)|allow_pickle\s*=\s*True",
    # All but a copy by way of a pickle.
    "a pickle": r"\b(pickle|dill|joblib|marshal|shelve)\.(load|loads|open|Unpickler)\b(?!\(pickle\.dumps)|read_pickle",
    "YAML with objects": r"yaml\.(load|load_all|unsafe_load|full_load|unsafe_load_all|full_load_all)\(|UnsafeLoader",
    "text as code": r"(?<![\w.])(eval|exec)\(",
    "a shell": r"os\.(system|popen)\(|shell\s*=\s*True",
}


def sources() -> list[Path]:
    folders = ("perceiver_core", "perceiver_plugins", "registry", "cli", "benchmarks", "examples")
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("what", UNSAFE)
def test_sources_contain_no_unsafe_calls(what):
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in sources()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(UNSAFE[what], line)
    ]
    assert not found, "\n".join(found)


def test_all_torch_loads_are_restricted():
    """Defaults of torch.load and Lightning are not safe in all versions."""
    loads = re.compile(r"(?:torch\.load|load_from_checkpoint)\((?:[^()]|\([^()]*\))*\)")
    calls = [(file, call) for file in sources() for call in loads.findall(file.read_text(encoding="utf-8"))]
    assert len(calls) >= 3
    assert [call for call in calls if "weights_only=True" not in call[1]] == []


def test_unsafe_patterns_match_examples():
    lines = {
        "code of a repository": "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "an unrestricted unpickler": "torch.load(path, weights_only=False)",
        "a pickle": "pickle.loads(data)",
        "YAML with objects": "yaml.load(text, Loader)",
        "text as code": "return eval(text)",
        "a shell": "os.system(line)",
    }
    for what, line in lines.items():
        assert re.search(UNSAFE[what], line)
    assert len(sources()) > 50


def test_remote_path_in_a_checkpoint_is_ignored(perceiver, trained, load, tmp_path):
    checkpoint = load(trained.last)
    checkpoint[KEY]["run"]["trainer"]["default_root_dir"] = "s3://bucket/folder"
    torch.save(checkpoint, tmp_path / "hostile.ckpt")
    result = perceiver("fit", "--ckpt_path=hostile.ckpt", "--trainer.max_steps=14")
    assert result.code == 0, result.err
    assert "--trainer.default_root_dir=s3://bucket/folder: ignored, as it is outside the current folder" in result.err
    assert not (tmp_path / "s3:").exists()
