"""Learning speed: validation loss against seconds of training, from different initial weights.

Curves of `init: normal`, of `init: local` and of krasserm's model with its own initialisation: the same sizes, data,
optimizer and schedule, one thread. Losses are divided by that of a trivial model, which knows how frequent the bytes or
classes of the training data are and nothing else. Seconds are those of the processor in training, without validation,
so that a machine that does other work at the same time tells the same; the schedule follows them.

    python benchmarks/learning_speed.py --data-folder FOLDER              # what is not in results/ already
    python benchmarks/learning_speed.py --cases python-docs --seeds 0     # some of it
    python benchmarks/learning_speed.py --ablation                        # which parts of `local` matter
    python benchmarks/learning_speed.py --report                          # table and picture alone

FOLDER has imdb/train.jsonl.xz and mnist/*-ubyte.gz. Runs that are finished are kept and not repeated: after a change of
the models or the cases, give other --results or delete the old ones.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from perceiver_core import Batch, PerceiverConfig, PerceiverIO
from perceiver_plugins.classification.config import ClassificationDecoderConfig
from perceiver_plugins.image.config import ImagePixelsEncoderConfig
from perceiver_plugins.image.data import DigitsDataModule, MNISTDataModule
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.data.module import PerceiverDataModule
from perceiver_plugins.text import LanguageModel
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_plugins.text.data import PythonDocsDataModule, TextFilesDataModule
from perceiver_registry import build_adapters

RESULTS = Path(__file__).parent / "results" / "learning-speed"
MODELS = {"normal": "init: normal", "local": "init: local", "krasserm": "krasserm's"}
COLOURS = {"normal": "tab:orange", "local": "tab:blue", "krasserm": "tab:gray"}
NUM_VALIDATIONS = 20
MAX_VALIDATION_BATCHES = 20
COUNTED_BATCHES = 500
WARMUP = 0.05
"""Share of the seconds in which the learning rate rises."""
NUM_CHANNELS = 128
"""Channels of the latents."""

# The default language model of `perceiver fit --task=mlm`.
TEXT_ENCODER = {
    "num_input_channels": 128,
    "num_cross_attention_heads": 4,
    "num_self_attention_heads": 4,
    "num_self_attention_layers_per_block": 4,
    "init_scale": 0.08,
}
TEXT_DECODER = {"num_cross_attention_heads": 4, "init_scale": 0.08}
PIXEL_WIDTHS = ("num_cross_attention_qk_channels", "num_cross_attention_v_channels")
# The model `mnist-classifier`, a third as deep.
PIXEL_ENCODER = {
    "num_frequency_bands": 32,
    "num_cross_attention_heads": 1,
    **dict.fromkeys(PIXEL_WIDTHS, 131),
    "num_self_attention_heads": 8,
    "num_self_attention_layers_per_block": 3,
    "init_scale": 0.1,
}
PIXEL_DECODER = {"num_output_query_channels": 128, "num_cross_attention_heads": 1, "init_scale": 0.1}

LossSum = tuple[Tensor, int]
"""The summed loss of a batch, and of how many predictions."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A data set and what is trained on it.

    Attributes:
        title: what it is called in the table.
        data: makes the data module from the folder of data sets and the seed.
        threshold: the seconds until this share of the trivial model's loss stand in the table.
        seconds: how long a run trains.
        encoder: fields of the encoder's configuration.
        decoder: fields of the decoder's configuration.
        num_latents: length of the latent array.
        optimizer: arguments of AdamW.
    """

    title: str
    data: Callable[[Path, int], PerceiverDataModule]
    threshold: float
    seconds: float = 60.0
    encoder: dict[str, Any]
    decoder: dict[str, Any]
    num_latents: int
    optimizer: dict[str, Any]

    def peer(self, data: Any) -> nn.Module:
        """krasserm's model, as large."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> Tensor:
        """Return the targets of a batch."""
        raise NotImplementedError

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        """The logits (p, number of values) of what is to be predicted."""
        raise NotImplementedError

    def loss_sum(self, model: nn.Module, batch: Batch) -> LossSum:
        targets = self.targets(batch)
        return cross_entropy(self.output(model, batch), targets, reduction="sum"), len(targets)

    def own(self, data: Any, init: str) -> nn.Module:
        """This project's model."""
        raise NotImplementedError

    def model(self, name: str, data: Any) -> nn.Module:
        return self.peer(data) if name == "krasserm" else self.own(data, name)


@dataclass(frozen=True, kw_only=True)
class MaskedText(Case):
    """Masked language modelling."""

    threshold: float = 0.9
    encoder: dict[str, Any] = field(default_factory=lambda: TEXT_ENCODER)
    decoder: dict[str, Any] = field(default_factory=lambda: TEXT_DECODER)
    num_latents: int = 64
    optimizer: dict[str, Any] = field(default_factory=lambda: {"lr": 2e-3})

    def own(self, data: Any, init: str) -> nn.Module:
        tokens = {"vocab_size": data.vocab_size, "max_seq_len": data.max_seq_len}
        encoder, decoder = TextEncoderConfig(**tokens, **self.encoder), TextDecoderConfig(**tokens, **self.decoder)
        config = PerceiverConfig(encoder, decoder, self.num_latents, NUM_CHANNELS, init=init)  # type: ignore[arg-type]
        return LanguageModel(config)

    def peer(self, data: Any) -> nn.Module:
        from perceiver.model.core import PerceiverIOConfig
        from perceiver.model.text.common import TextEncoderConfig
        from perceiver.model.text.mlm.backend import MaskedLanguageModel, TextDecoderConfig

        tokens = {"vocab_size": data.vocab_size, "max_seq_len": data.max_seq_len}
        encoder, decoder = own_scale(self.encoder) | tokens, own_scale(self.decoder) | tokens
        parts = TextEncoderConfig(**encoder), TextDecoderConfig(**decoder)
        return MaskedLanguageModel(PerceiverIOConfig(*parts, self.num_latents, NUM_CHANNELS))

    def targets(self, batch: Batch) -> Tensor:
        return batch["labels"][batch["labels"] != IGNORED]

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        masked = batch["labels"] != IGNORED
        if isinstance(model, LanguageModel):
            return model(batch["input_ids"], batch["attention_mask"], positions=masked)
        return model(batch["input_ids"], ~batch["attention_mask"].bool())[masked]


@dataclass(frozen=True, kw_only=True)
class Pixels(Case):
    """Classification of pixels with Fourier positions."""

    threshold: float = 0.5
    encoder: dict[str, Any] = field(default_factory=lambda: PIXEL_ENCODER)
    decoder: dict[str, Any] = field(default_factory=lambda: PIXEL_DECODER)
    num_latents: int = 32
    optimizer: dict[str, Any] = field(default_factory=lambda: {"lr": 1e-3})

    def own(self, data: Any, init: str) -> nn.Module:
        encoder = ImagePixelsEncoderConfig(num_channels=1, max_resolution=data.image_size, **self.encoder)
        decoder = ClassificationDecoderConfig(num_classes=data.num_classes, **self.decoder)
        config = PerceiverConfig(encoder, decoder, self.num_latents, NUM_CHANNELS, init=init)  # type: ignore[arg-type]
        return PerceiverIO(config, *build_adapters(config))

    def peer(self, data: Any) -> nn.Module:
        from perceiver.model.core import ClassificationDecoderConfig, PerceiverIOConfig
        from perceiver.model.vision.image_classifier.backend import ImageClassifier, ImageEncoderConfig

        encoder = ImageEncoderConfig(image_shape=(*data.image_size, 1), **own_scale(self.encoder))
        decoder = ClassificationDecoderConfig(num_classes=data.num_classes, **own_scale(self.decoder))
        return ImageClassifier(PerceiverIOConfig(encoder, decoder, self.num_latents, NUM_CHANNELS))

    def targets(self, batch: Batch) -> Tensor:
        return batch["labels"]

    def output(self, model: nn.Module, batch: Batch) -> Tensor:
        if isinstance(model, PerceiverIO):
            return model(batch)
        return model(batch["pixel_values"].permute(0, 2, 3, 1))


def own_scale(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields without the initialisation's scale: the peer has its own."""
    return {name: value for name, value in fields.items() if name != "init_scale"}


def mnist(folder: Path, seed: int) -> PerceiverDataModule:
    return MNISTDataModule(root=str(folder / "mnist"), batch_size=64, valid_batch_size=40, random_shift=2, seed=seed)


def imdb(folder: Path, seed: int) -> PerceiverDataModule:
    return TextFilesDataModule(
        str(folder / "imdb" / "train.jsonl.xz"),
        val_fraction=0.02,
        max_seq_len=256,
        mask_words=False,
        batch_size=32,
        valid_batch_size=16,
        seed=seed,
    )


CASES: dict[str, Case] = {
    "python-docs": MaskedText(
        title="masked bytes of Python's documentation, 128 bytes",
        data=lambda folder, seed: PythonDocsDataModule(seed=seed),
    ),
    "imdb": MaskedText(
        title="masked bytes of IMDb's reviews, 256 bytes",
        data=imdb,
        seconds=200.0,
        num_latents=128,
        optimizer={"lr": 2e-3, "betas": (0.9, 0.95)},
    ),
    "mnist": Pixels(title="MNIST's pixels, 28x28", data=mnist),
    "python-docs-words": MaskedText(
        title="masked words of Python's documentation, 128 bytes",
        data=lambda folder, seed: PythonDocsDataModule(mask_words=True, seed=seed),
        seconds=150.0,
    ),
    "digits": Pixels(
        title="scikit-learn's digits, 8x8 pixels",
        data=lambda folder, seed: DigitsDataModule(batch_size=32, random_rotation=10, seed=seed),
        seconds=30.0,
        encoder=PIXEL_ENCODER | {"num_frequency_bands": 8} | dict.fromkeys(PIXEL_WIDTHS, 35),
    ),
}
MAIN_CASES = ("python-docs", "imdb", "mnist", "python-docs-words")

ABLATION_CASE, ABLATION_SEED = "python-docs", 0
TABLES = ("input_adapter.position_embedding.weight", "output_adapter.query_provider.queries")
CROSS_ATTENTIONS = ("encoder.cross_attention_layers.0.attention", "decoder.cross_attention_layer.attention")
SELF_ATTENTIONS = tuple(
    f"encoder.self_attention_blocks.0.{layer}" for layer in range(TEXT_ENCODER["num_self_attention_layers_per_block"])
)
LAST_WEIGHTS = ("attention.o_proj.weight", "mlp.output.weight")
"""Names of the last weights of a layer's residual branches."""

PARTS = {
    "positions": TABLES,
    "latents": ("encoder.latents",),
    "maps": tuple(f"{attention}.{name}_proj.weight" for attention in CROSS_ATTENTIONS for name in "qk"),
    "values": tuple(f"{attention}.{name}_proj.weight" for attention in CROSS_ATTENTIONS for name in "vo"),
    "offsets": (),
    "last weights": tuple(f"{layer}.{name}" for layer in SELF_ATTENTIONS for name in LAST_WEIGHTS),
}
"""The weights of each part of `local`. Without offsets, query projections are the key projections."""

ABLATION = {
    "all but the small last weights in self-attention layers": {*PARTS} - {"last weights"},
    "all but the value and output maps": {*PARTS} - {"values"},
    "all but the query and key maps": {*PARTS} - {"maps", "offsets"},
    "all but the heads' offsets": {*PARTS} - {"offsets"},
    "all but the latents": {*PARTS} - {"latents"},
    "all but positions and queries": {*PARTS} - {"positions"},
    "positions, queries, latents, and maps without offsets": {"positions", "latents", "maps"},
    "positions, queries and latents": {"positions", "latents"},
    "positions and queries": {"positions"},
    "small last weights in self-attention layers": {"last weights"},
}


def partly_local(case: Case, data: Any, parts: set[str], seed: int) -> nn.Module:
    """A normal model with the weights of some parts of the local one."""
    models = {}
    for init in ("normal", "local"):
        torch.manual_seed(seed)
        models[init] = case.model(init, data)
    weights, local = (models[init].state_dict() for init in ("normal", "local"))
    for part in parts:
        weights |= {name: local[name] for name in PARTS[part]}
    if "maps" in parts and "offsets" not in parts:
        for attention in CROSS_ATTENTIONS:
            weights[f"{attention}.q_proj.weight"] = weights[f"{attention}.k_proj.weight"]
    models["normal"].load_state_dict(weights)
    return models["normal"]


def trivial_log_probabilities(case: Case, data: PerceiverDataModule, num_values: int) -> Tensor:
    """The logarithms of how frequent each value is among what is to be predicted of the training data."""
    counts = torch.ones(num_values, dtype=torch.float64)  # one of each, so that none is impossible
    for batch in islice(data.train_dataloader(), COUNTED_BATCHES):
        counts += torch.bincount(case.targets(batch), minlength=num_values)
    return (counts / counts.sum()).log()


def endless(loader: Any) -> Iterator[Batch]:
    while True:
        yield from loader


@torch.no_grad()
def validation_loss(case: Case, model: nn.Module, batches: Sequence[Batch]) -> float:
    model.eval()
    losses = [case.loss_sum(model, batch) for batch in batches]
    model.train()
    return sum(float(total) for total, _ in losses) / sum(count for _, count in losses)


def train(case: Case, model: nn.Module, data: PerceiverDataModule, seconds: float) -> dict[str, Any]:
    """Trains a model for so many seconds of the processor.

    Returns:
        The number of optimizer steps, the trivial model's loss and the curve: seconds and share of this loss.
    """
    validation = list(islice(data.val_dataloader(), MAX_VALIDATION_BATCHES))
    log_probabilities = trivial_log_probabilities(case, data, case.output(model, validation[0]).shape[-1])
    trivial_loss = -float(torch.cat([log_probabilities[case.targets(batch)] for batch in validation]).mean())

    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **case.optimizer)
    learning_rate = optimizer.param_groups[0]["lr"]
    batches = endless(data.train_dataloader())
    curve = [(0.0, validation_loss(case, model, validation) / trivial_loss)]
    num_steps, elapsed = 0, 0.0
    while elapsed < seconds:
        start = time.process_time()
        share = elapsed / seconds
        optimizer.param_groups[0]["lr"] = learning_rate * min(share / WARMUP, (1 + math.cos(math.pi * share)) / 2)
        total, count = case.loss_sum(model, next(batches))
        optimizer.zero_grad()
        (total / count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        num_steps += 1
        elapsed += time.process_time() - start
        if elapsed >= len(curve) / NUM_VALIDATIONS * seconds:
            curve.append((round(elapsed, 2), validation_loss(case, model, validation) / trivial_loss))
    return {"num_steps": num_steps, "trivial_loss": trivial_loss, "curve": curve}


def load_runs(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["runs"] if path.exists() else []


def save_run(path: Path, run: dict[str, Any]) -> None:
    """Adds a run to those that are there now, where another process may have added some."""
    runs = [*load_runs(path), run]
    about = {
        "seconds": "of the processor in training, one thread",
        "loss": "of validation, over that of a trivial model",
        "machine": machine(),
        "runs": sorted(runs, key=lambda each: (each["case"], each["model"], each["seed"])),
    }
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(about, indent=1) + "\n")
    temporary.replace(path)


def machine() -> str:
    names = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line
    ]
    return f"{names[0] if names else platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"


def seconds_until(run: dict[str, Any], threshold: float) -> float:
    """When the curve first crosses a share of the trivial loss, between the measured points."""
    for (before, higher), (after, lower) in zip(run["curve"], run["curve"][1:], strict=False):
        if lower <= threshold:
            return before + (after - before) * (higher - threshold) / (higher - lower)
    return math.inf


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and range."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def header(first: str, case: Case) -> list[str]:
    columns = [first, "seeds", "steps", "final loss / trivial", f"seconds until {case.threshold}"]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def row(case: Case, name: str, runs: list[dict[str, Any]]) -> str:
    finals = [run["curve"][-1][1] for run in runs]
    times = [seconds_until(run, case.threshold) for run in runs]
    steps = statistics.mean(run["num_steps"] for run in runs)
    reached = [value for value in times if value < math.inf]
    until = "not reached" if not reached else spread(reached, 0)
    if 0 < len(reached) < len(times):
        until += f", in {len(reached)} of {len(times)} runs"
    return f"| {name} | {len(runs)} | {steps:.0f} | {spread(finals, 3)} | {until} |"


def report(runs: list[dict[str, Any]]) -> str:
    """Tables in markdown, one a data set."""
    lines = [
        "Validation loss over that of a trivial model (byte or class frequencies): mean over seeds, and range. Seconds",
        "are the processor's in training, one thread.",
    ]
    for name, case in CASES.items():
        of_case = [run for run in runs if run["case"] == name and run["model"] in MODELS]
        if not of_case:
            continue
        lines += ["", f"**{case.title}**, {of_case[0]['seconds']:.0f} seconds", ""]
        lines += header("model", case)
        for model, title in MODELS.items():
            if those := [run for run in of_case if run["model"] == model]:
                lines.append(row(case, title, those))
    case = CASES[ABLATION_CASE]
    by_model = {run["model"]: run for run in runs if run["case"] == ABLATION_CASE and run["seed"] == ABLATION_SEED}
    if any(name in by_model for name in ABLATION):
        lines += ["", f"**Parts of `local`**, {case.title}, one seed", ""]
        lines += header("parts", case)
        names = {"local": "all: init: local", **{name: name for name in ABLATION}, "normal": "none: init: normal"}
        lines += [row(case, title, [by_model[name]]) for name, title in names.items() if name in by_model]
    return "\n".join(lines) + "\n"


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """One panel a data set: the mean of the seeds, and their range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in MAIN_CASES if any(run["case"] == name for run in runs)]
    figure, panels = pyplot.subplots(1, len(names), figsize=(5 * len(names), 4), squeeze=False, layout="constrained")
    for name, axes in zip(names, panels[0], strict=True):
        for model, title in MODELS.items():
            curves = [run["curve"] for run in runs if run["case"] == name and run["model"] == model]
            if not curves:
                continue
            moments = [statistics.mean(point[0] for point in points) for points in zip(*curves, strict=False)]
            losses = [[point[1] for point in points] for points in zip(*curves, strict=False)]
            axes.plot(moments, [statistics.mean(values) for values in losses], color=COLOURS[model], label=title)
            axes.fill_between(
                moments, list(map(min, losses)), list(map(max, losses)), color=COLOURS[model], alpha=0.2, linewidth=0
            )
        axes.set(title=CASES[name].title, xlabel="processor seconds of training (one thread)", ylim=(0, 1.2))
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("validation loss / trivial model's")
    panels[0][-1].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-folder", type=Path, default=Path(), help="folder with imdb/ and mnist/ (default: .)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(MAIN_CASES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, help="of training in each run (default: those of the case)")
    parser.add_argument("--ablation", action="store_true", help=f"the parts of `local`, on {ABLATION_CASE}")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to, without suffix")
    arguments = parser.parse_args()
    path = arguments.results.with_suffix(".json")

    todo = [(case, model, seed) for seed in arguments.seeds for case in arguments.cases for model in arguments.models]
    if arguments.ablation:
        todo = [(ABLATION_CASE, model, ABLATION_SEED) for model in ("normal", *ABLATION, "local")]
    if importlib.util.find_spec("perceiver") is None:
        todo = [each for each in todo if each[1] != "krasserm"]
        print("krasserm's perceiver-io is not installed and is left out; see benchmarks/README.md for its installation")
    torch.set_num_threads(1)
    for name, model_name, seed in [] if arguments.report else todo:
        key = {"case": name, "model": model_name, "seed": seed}
        if any(key.items() <= run.items() for run in load_runs(path)):
            continue
        case = CASES[name]
        seconds = arguments.seconds or case.seconds
        data: Any = case.data(arguments.data_folder, seed)
        data.prepare_data()
        data.setup()
        torch.manual_seed(seed)
        if model_name in ABLATION:
            model = partly_local(case, data, ABLATION[model_name], seed)
        else:
            model = case.model(model_name, data)
        size = sum(parameter.numel() for parameter in model.parameters())
        run = key | {"seconds": seconds, "num_parameters": size} | train(case, model, data, seconds)
        save_run(path, run)
        print(
            f"{name}, {model_name}, seed {seed}: {run['curve'][-1][1]:.3f} after {run['num_steps']} steps", flush=True
        )

    runs = load_runs(path)
    arguments.results.with_suffix(".md").write_text(report(runs))
    print(report(runs))
    if importlib.util.find_spec("matplotlib") is not None:
        draw(runs, arguments.results.with_suffix(".png"))


if __name__ == "__main__":
    main()
