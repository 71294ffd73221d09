"""Fixtures: small models of all kinds, trained on the command line, as checkpoints and as folders for the hub."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from perceiver_cli.main import main
from perceiver_plugins.huggingface import from_checkpoint

TINY = (
    "--model.num_latents=4",
    "--model.num_latent_channels=16",
    "--model.encoder.num_cross_attention_heads=1",
    "--model.encoder.num_self_attention_layers_per_block=1",
    # With smaller weights, the outputs would hardly depend on the inputs.
    "--model.encoder.init_scale=0.3",
    "--model.decoder.init_scale=0.3",
    "--trainer.accelerator=cpu",
    "--trainer.max_steps=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.val_check_interval=1",
    "--trainer.limit_val_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)
QUERY = "--model.decoder.num_output_query_channels=16"
CHANNELS = "--model.encoder.num_input_channels=16"

PROCESS_CODE = """
import json, os, sys
results, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr

import torch
from transformers import AutoModel, pipeline

before = {*sys.modules}
import perceiver_plugins.huggingface.auto
imported = sorted({*sys.modules} - before)

torch.set_num_threads(1)

def compute(tag, folder, inputs, options):
    if tag == "modules":
        return None, imported
    if tag is None:
        model = AutoModel.from_pretrained(folder)
        with torch.no_grad():
            return model, model(**{name: torch.tensor(value) for name, value in inputs.items()}).output
    pipe = pipeline(tag, model=folder, device="cpu")
    return pipe.model, [pipe(tuple(each) if isinstance(each, list) else each, **options) for each in inputs]

for line in sys.stdin:
    model, result = compute(*json.loads(line))
    plain = lambda value: value.tolist() if hasattr(value, "tolist") else float(value)
    print(json.dumps([type(model).__name__, result], default=plain), file=results, flush=True)
"""
"""Code of a process that imports only ``perceiver_plugins.huggingface.auto``, and runs models in folders."""

TEXTS = ["Ein Bär näht [MASK] €5.", "a [MASK] cat"]


@dataclass(frozen=True)
class Exported:
    """Trained model.

    Attributes:
        checkpoint: the checkpoint.
        folder: the folder for the hub.
        inputs: inputs to predict for.
    """

    checkpoint: Path
    folder: Path
    inputs: list[str]


@dataclass(frozen=True)
class OtherProcess:
    """Process that only imported ``perceiver_plugins.huggingface.auto``.

    Attributes:
        process: the process.
        errors: file with its standard error.
    """

    process: subprocess.Popen[str]
    errors: Path

    def run(self, tag: str | None, folder: Path, inputs: Any, **options: Any) -> tuple[str, Any]:
        """Return the class of the model in a folder, and the outputs of its pipeline.

        Without a ``tag``, the inputs are a batch, and the result is the model's output.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([tag, str(folder), inputs, options]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        assert "not supported for" not in self.errors.read_text()
        name, results = json.loads(line)
        return name, results


@pytest.fixture(scope="session")
def other_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherProcess]:
    """Process that only imported ``perceiver_plugins.huggingface.auto``."""
    errors = tmp_path_factory.mktemp("other_process") / "errors.txt"
    command, pipe = [sys.executable, "-c", PROCESS_CODE], subprocess.PIPE
    with (
        errors.open("w") as file,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=file, text=True) as process,
    ):
        yield OtherProcess(process, errors)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="session")
def predicted() -> Callable[[Exported], Any]:
    """Function that runs ``perceiver predict`` on the inputs of a model."""

    def predicted(exported: Exported, *options: str) -> Any:
        out = io.StringIO()
        flags = [f"--ckpt_path={exported.checkpoint}", "--format=json", "--trainer.accelerator=cpu", *options]
        with contextlib.redirect_stdout(out):
            assert main(["predict", *flags, *exported.inputs]) == 0
        return json.loads(out.getvalue())

    return predicted


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Function that trains a model and writes it to a folder."""

    def export(task: str, inputs: list[str], *flags: str) -> Exported:
        cwd = tmp_path_factory.mktemp(task)
        quiet = contextlib.redirect_stdout(io.StringIO())
        with contextlib.chdir(cwd), quiet, pytest.MonkeyPatch.context() as patch:
            for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
                patch.setenv(variable, "0")
            patch.setenv("PERCEIVER_CACHE", str(cwd / "cache"))
            assert main(["fit", f"--task={task}", *flags, *TINY]) == 0
            [checkpoint] = cwd.glob("logs/*/version_0/checkpoints/best.ckpt")
        folder = cwd / f"tiny-{task}"
        from_checkpoint(checkpoint).save_pretrained(folder)
        return Exported(checkpoint, folder, inputs)

    return export


@pytest.fixture(scope="session")
def language_model(export: Callable[..., Exported], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Masked language model of bytes, with tied embeddings."""
    file = tmp_path_factory.mktemp("texts") / "train.txt"
    file.write_text(" ".join(f"word{number % 37} näh" for number in range(100)), encoding="utf-8")
    data = ["--data=text-files", f"--data.train_files={file}", "--data.max_seq_len=32"]
    return export("mlm", TEXTS, *data, "--data.batch_size=2", CHANNELS, "--model.decoder.num_cross_attention_heads=2")


@pytest.fixture(scope="session")
def subwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a subword tokenizer that adds [CLS] and [SEP], and has an EOS token."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[EOS]"]
    texts = ["the cat sat on the mat", "sewing is better than sitting", "not bad at all"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=80, special_tokens=special))
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    folder = tmp_path_factory.mktemp("subwords")
    names = dict(zip(("pad", "unk", "cls", "sep", "mask", "eos"), special, strict=True))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{kind}_token": token for kind, token in names.items()}
    ).save_pretrained(folder)
    return folder


def _reviews(folder: Path) -> Path:
    file = folder / "train.jsonl"
    rows = [{"text": f"not bad {n}" if n % 3 else f"sat {n}", "label": "bad" if n % 3 else "good"} for n in range(20)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def text_classifier(
    export: Callable[..., Exported], subwords: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Text classifier of subwords with special tokens and EOS."""
    file = _reviews(tmp_path_factory.mktemp("reviews"))
    data = ["--data=text-files", f"--data.train_files={file}", "--data.max_seq_len=24", "--data.batch_size=8"]
    ends = ["--data.add_special_tokens=true", "--data.add_eos_token=true", f"--data.tokenizer={subwords}"]
    inputs = ["The cat is not sewing", "better", "mat 7 [SEP] on"]
    return export("text-classification", inputs, *data, *ends, CHANNELS, QUERY)


@pytest.fixture(scope="session")
def token_classifier(export: Callable[..., Exported], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Token classifier of bytes for names of people and cities."""
    file = tmp_path_factory.mktemp("words") / "train.jsonl"
    labels = ["person", "other", "other", "city"]
    cities = ["Ulm", "Köln", "Bonn", "Kiel", "Trier", "Essen"]
    rows = [{"tokens": ["Anna", "lives", "in", city], "label": labels} for city in cities]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = ["--data=text-files", f"--data.train_files={file}", "--data.max_seq_len=32", "--data.batch_size=5"]
    return export("token-classification", ["Jörg in Köln"], *data, CHANNELS)


@pytest.fixture(scope="session")
def image_classifier(export: Callable[..., Exported], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Classifier of handwritten digits, with RGB, RGBA and grey images as inputs."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, shape in {"photo.png": (30, 41, 3), "drawing.png": (9, 8, 4), "grey.png": (13, 17)}.items():
        pixels = rng.integers(256, size=shape, dtype=np.uint8)
        if shape[2:] == (4,):
            pixels[..., 3] = 255  # opaque: pipelines of transformers drop the alpha channel before the processor
        Image.fromarray(pixels).save(folder / name)
    encoder = ["--model.encoder=image-pixels", "--model.encoder.num_frequency_bands=3", "--task.ema_decay=null", QUERY]
    return export("image-classification", [str(path) for path in sorted(folder.iterdir())], "--data=digits", *encoder)


@pytest.fixture(scope="session")
def regressor(export: Callable[..., Exported], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Regression model in units of its data, for which only AutoModel exists."""
    file = tmp_path_factory.mktemp("table") / "train.csv"
    rows = [f"{a},{a % 5},{100 + 2 * a},{-a % 5 / 100}" for a in range(40)]
    file.write_text("\n".join(["a,b,y,z", *rows]))
    data = ["--data=table-files", f"--data.train_files={file}", '--data.label_column=["y", "z"]']
    return export("regression", ["a=3,b=4", "a=30,b=0.5"], *data, "--data.batch_size=12", CHANNELS, QUERY)


@pytest.fixture
def quiet_transformers() -> Iterator[None]:
    """Disable the progress bars of transformers."""
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()
