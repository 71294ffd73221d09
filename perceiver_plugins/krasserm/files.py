"""Finding and reading what krasserm's perceiver-io wrote: folders, hub ids and Lightning's checkpoints.

No code of a file is run, and that project need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_plugins.sdk.hub import CONFIG, config_of, file_of
from perceiver_registry import UserError
from perceiver_registry.checkpoint import KEY, SUFFIXES
from perceiver_registry.errors import in_one_line, surface_own_fault
from perceiver_registry.plain_data import load_json, read_settings

if TYPE_CHECKING:
    from torch import Tensor

TYPES = ("perceiver-io-", "perceiver-ar-")
"""What ``model_type`` in its ``config.json`` begins with."""

OF_FOLDER, OF_CHECKPOINT = "backend_model.", "model."
"""What the names of a model's weights begin with in a folder and in a checkpoint."""

PACKAGE = "perceiver"

KNOWN = (
    PACKAGE,
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "jsonargparse",
    "torch",
    "torchmetrics",
    "numpy",
    "pathlib",
    "_codecs",
)
"""Packages of which something may stand in its checkpoints: configurations, and what Lightning keeps of a run."""

OF_TEXTS = ("tokenizer", "padding_side", "add_special_tokens", "add_eos_token")
"""What its data modules for texts keep in a checkpoint, and a reader of texts must know."""

BYTES = "PerceiverTokenizer"
"""What transformers calls the tokenizer of UTF-8 bytes."""


@dataclass(frozen=True)
class Original:
    """A model as perceiver-io left it. What its inputs need, and its weights, are read when they are asked for.

    Attributes:
        source: where it was found.
        config: the fields of its configuration; those of encoder and decoder in mappings of their own.
        state: its weights, under the names of the PyTorch model there.
        texts: how its texts are read, as far as that is known: ``tokenizer`` (a name), ``padding_side``,
            ``add_special_tokens`` and ``add_eos_token``.
        images: how its images are read, as far as that is known: ``mean``, ``std`` and ``crop_pct``.
        label_names: what its classes are called, if that is known.
    """

    source: str
    config: Mapping[str, Any]
    state: Callable[[], Mapping[str, Tensor]]
    texts: Callable[[], Mapping[str, Any]]
    images: Callable[[], Mapping[str, Any]]
    label_names: list[str] | None = None


class StandIn(dict[str, Any]):
    """What takes the place of every class that a checkpoint names: it holds what was pickled, and runs nothing."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.update(state if isinstance(state, dict) else {})


def find(source: str) -> Original | None:
    """The model at ``source``: a checkpoint, a folder or a hub id. None: there is none of perceiver-io.

    Raises:
        UserError: if there is one that cannot be read.
    """
    return _in_checkpoint(source) if source.endswith(SUFFIXES) else _in_folder(source)


def _in_folder(source: str) -> Original | None:
    config = config_of(source)
    if not str(config.get("model_type", "")).startswith(TYPES):
        return None
    with _as_it_writes(source, CONFIG):
        return Original(
            source,
            dict(config["model_config"]),
            state=lambda: _folder_state(source),
            texts=lambda: _folder_texts(source, config),
            images=lambda: _folder_images(source),
            label_names=_label_names(config.get("id2label") or {}),
        )


@contextmanager
def _as_it_writes(source: str, name: str) -> Iterator[None]:
    """Within this context, errors in what a file holds are the file's."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{source}: its {name} is not as perceiver-io writes it: {in_one_line(error)}") from error


def _label_names(names: Mapping[Any, Any]) -> list[str] | None:
    """Names of classes in the order of their numbers; None if transformers made them up."""
    ordered = [str(names[number]) for number in sorted(names, key=int)]
    return None if ordered == [f"LABEL_{number}" for number in range(len(ordered))] else ordered


def _folder_texts(source: str, config: Mapping[str, Any]) -> dict[str, Any]:
    saved = _read_json(source, "tokenizer_config.json")
    if not saved and "tokenizer_class" not in config:
        return {}
    names_bytes = BYTES in (saved.get("tokenizer_class"), config.get("tokenizer_class"))
    # Pipelines put special tokens around a text.
    return {"tokenizer": BYTES if names_bytes else source, "add_special_tokens": True}


def _folder_images(source: str) -> dict[str, Any]:
    name = "preprocessor_config.json"
    saved = _read_json(source, name)
    if not saved:
        return {}
    with _as_it_writes(source, name):
        normalises = saved.get("do_normalize", True)
        crop = saved.get("do_center_crop", True)
        return {
            "mean": saved["image_mean"] if normalises else 0.0,
            "std": saved["image_std"] if normalises else 1.0,
            "crop_pct": _height(saved["size"]) / _height(saved["crop_size"]) if crop else 1.0,
        }


def _height(size: Any) -> int:
    return size["height"] if isinstance(size, Mapping) else size


def _read_json(source: str, name: str) -> dict[str, Any]:
    """A file of plain data in a folder or at a hub id; nothing if it is not there."""
    path = file_of(source, name)
    with _as_it_writes(source, name):
        return {} if path is None else dict(load_json(read_settings(path)))


def _folder_state(source: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    unreachable: UserError | None = None
    readers: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        "model.safetensors": load_file,
        "pytorch_model.bin": _load_bin,
    }
    for name, load in readers.items():
        try:
            path = file_of(source, name)
        except UserError as error:  # without a network, nobody knows whether the hub has it
            unreachable = error
            continue
        if path is None:
            continue
        try:
            return _without_prefix(load(path), OF_FOLDER)
        except Exception as error:  # a file that is something else fails in any way
            surface_own_fault(error)
            raise UserError(f"{source}: its {name} cannot be read: {in_one_line(error)}") from error
    raise unreachable or UserError(f"{source}: neither model.safetensors nor pytorch_model.bin is there")


def _load_bin(path: Path) -> dict[str, Tensor]:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _in_checkpoint(source: str) -> Original | None:
    checkpoint = _load_checkpoint(source)
    if checkpoint is None or KEY in checkpoint:
        return None
    hyper_parameters = checkpoint.get("hyper_parameters")
    if not isinstance(hyper_parameters, Mapping) or "state_dict" not in checkpoint:
        return None
    if not ({"encoder", "decoder", "num_latents"} <= {*hyper_parameters} or is_causal(hyper_parameters)):
        return None
    of_data = checkpoint.get("datamodule_hyper_parameters") or {}
    return Original(
        source,
        hyper_parameters,
        state=lambda: _without_prefix(checkpoint["state_dict"], OF_CHECKPOINT),
        texts=lambda: {key: of_data[key] for key in OF_TEXTS if of_data.get(key) is not None},
        images=lambda: {} if of_data.get("normalize", True) else {"mean": 0.0, "std": 1.0},
    )


def _load_checkpoint(path: str) -> dict[str, Any] | None:
    """What a file of Lightning's holds, with stand-ins for the classes that it names; None if it is none."""
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    try:
        names = get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # a file that is something else, or not there, fails in any way
        surface_own_fault(error)
        return None
    packages = {name: name.partition(".")[0] for name in names}
    foreign = [name for name in names if packages[name] not in KNOWN]
    if foreign:
        if PACKAGE not in packages.values():
            return None
        raise UserError(f"{path}: a checkpoint of perceiver-io that is not read: its pickle calls {foreign[0]}")
    try:
        with safe_globals([(StandIn, name) for name in names]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        surface_own_fault(error)
        if PACKAGE not in packages.values():
            return None
        raise UserError(f"{path}: a checkpoint of perceiver-io that cannot be read: {in_one_line(error)}") from error
    return checkpoint if isinstance(checkpoint, dict) else None


def is_causal(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of a Perceiver AR, which predicts what comes next in a sequence."""
    return {"max_latents", "num_channels", "num_self_attention_rotary_layers"} <= {*config}


def _without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
