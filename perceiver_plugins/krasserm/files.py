"""Reading of the folders, hub ids and Lightning checkpoints of krasserm/perceiver-io.

Reading executes no code in the files, and does not need an installation of perceiver-io.
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

MODEL_TYPE_PREFIXES = ("perceiver-io-", "perceiver-ar-")
"""Prefixes of ``model_type`` in ``config.json``."""

FOLDER_PREFIX, CHECKPOINT_PREFIX = "backend_model.", "model."
"""Prefixes of the names of weights in folders and in checkpoints."""

PACKAGE = "perceiver"

KNOWN_PACKAGES = (
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
"""Packages of the classes that checkpoints of perceiver-io may contain, in configurations and Lightning's state."""

TEXT_OPTIONS = ("tokenizer", "padding_side", "add_special_tokens", "add_eos_token")
"""Options of perceiver-io's text data modules that prediction needs."""

BYTES = "PerceiverTokenizer"
"""Class of the byte tokenizer in transformers."""


@dataclass(frozen=True)
class Original:
    """Model of perceiver-io. Functions read its weights and data options on demand.

    Attributes:
        source: file, folder or hub id.
        config: fields of its configuration, with mappings for encoder and decoder.
        state: returns the state dict of its PyTorch model.
        text_options: returns the known text options: ``tokenizer`` (a name), ``padding_side``, ``add_special_tokens``
            and ``add_eos_token``.
        image_options: returns the known image options: ``mean``, ``std`` and ``crop_pct``.
        label_names: names of the classes, if known.
    """

    source: str
    config: Mapping[str, Any]
    state: Callable[[], Mapping[str, Tensor]]
    text_options: Callable[[], Mapping[str, Any]]
    image_options: Callable[[], Mapping[str, Any]]
    label_names: list[str] | None = None


class PickledObject(dict[str, Any]):
    """Attributes of a pickled object. Replaces every class that a checkpoint names, so that no code is executed."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.update(state if isinstance(state, dict) else {})


def find_model(source: str) -> Original | None:
    """Find the model of perceiver-io in a checkpoint, folder or hub id; None for models of other projects.

    Raises:
        UserError: if the model cannot be read.
    """
    return _find_in_checkpoint(source) if source.endswith(SUFFIXES) else _find_in_folder(source)


def _find_in_folder(source: str) -> Original | None:
    config = config_of(source)
    if not str(config.get("model_type", "")).startswith(MODEL_TYPE_PREFIXES):
        return None
    with _reporting_invalid(source, CONFIG):
        return Original(
            source,
            dict(config["model_config"]),
            state=lambda: _folder_state(source),
            text_options=lambda: _folder_text_options(source, config),
            image_options=lambda: _folder_image_options(source),
            label_names=_label_names(config.get("id2label") or {}),
        )


@contextmanager
def _reporting_invalid(source: str, name: str) -> Iterator[None]:
    """Context manager that converts errors in the content of a file to UserErrors that name the file."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        raise UserError(f"{source}: invalid {name} of perceiver-io: {in_one_line(error)}") from error


def _label_names(names: Mapping[Any, Any]) -> list[str] | None:
    """Return the names of classes by index; None for the default names of transformers."""
    ordered = [str(names[number]) for number in sorted(names, key=int)]
    return None if ordered == [f"LABEL_{number}" for number in range(len(ordered))] else ordered


def _folder_text_options(source: str, config: Mapping[str, Any]) -> dict[str, Any]:
    saved = _read_json(source, "tokenizer_config.json")
    if not saved and "tokenizer_class" not in config:
        return {}
    names_bytes = BYTES in (saved.get("tokenizer_class"), config.get("tokenizer_class"))
    # The pipelines of perceiver-io add special tokens.
    return {"tokenizer": BYTES if names_bytes else source, "add_special_tokens": True}


def _folder_image_options(source: str) -> dict[str, Any]:
    name = "preprocessor_config.json"
    saved = _read_json(source, name)
    if not saved:
        return {}
    with _reporting_invalid(source, name):
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
    """Read a JSON file of a folder or hub id; an empty dict if it is missing."""
    path = file_of(source, name)
    with _reporting_invalid(source, name):
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
        except UserError as error:  # offline: the hub may have this file
            unreachable = error
            continue
        if path is None:
            continue
        try:
            return _without_prefix(load(path), FOLDER_PREFIX)
        except Exception as error:  # files of other kinds can raise any error
            surface_own_fault(error)
            raise UserError(f"{source}: cannot read {name}: {in_one_line(error)}") from error
    raise unreachable or UserError(f"{source}: neither model.safetensors nor pytorch_model.bin found")


def _load_bin(path: Path) -> dict[str, Tensor]:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _find_in_checkpoint(source: str) -> Original | None:
    checkpoint = _load_checkpoint(source)
    if checkpoint is None or KEY in checkpoint:
        return None
    hyper_parameters = checkpoint.get("hyper_parameters")
    if not isinstance(hyper_parameters, Mapping) or "state_dict" not in checkpoint:
        return None
    if not ({"encoder", "decoder", "num_latents"} <= {*hyper_parameters} or is_causal(hyper_parameters)):
        return None
    data_options = checkpoint.get("datamodule_hyper_parameters") or {}
    return Original(
        source,
        hyper_parameters,
        state=lambda: _without_prefix(checkpoint["state_dict"], CHECKPOINT_PREFIX),
        text_options=lambda: {key: data_options[key] for key in TEXT_OPTIONS if data_options.get(key) is not None},
        image_options=lambda: {} if data_options.get("normalize", True) else {"mean": 0.0, "std": 1.0},
    )


def _load_checkpoint(path: str) -> dict[str, Any] | None:
    """Load a Lightning checkpoint, with a :class:`PickledObject` for each class; None for other projects."""
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    try:
        names = get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # missing files and files of other kinds can raise any error
        surface_own_fault(error)
        return None
    packages = {name: name.partition(".")[0] for name in names}
    unknown = [name for name in names if packages[name] not in KNOWN_PACKAGES]
    if unknown:
        if PACKAGE not in packages.values():
            return None
        raise UserError(f"{path}: refused to read a checkpoint of perceiver-io whose pickle calls {unknown[0]}")
    try:
        with safe_globals([(PickledObject, name) for name in names]):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        surface_own_fault(error)
        if PACKAGE not in packages.values():
            return None
        raise UserError(f"{path}: cannot read the checkpoint of perceiver-io: {in_one_line(error)}") from error
    return checkpoint if isinstance(checkpoint, dict) else None


def is_causal(config: Mapping[str, Any]) -> bool:
    """Check whether a configuration describes a Perceiver AR model."""
    return {"max_latents", "num_channels", "num_self_attention_rotary_layers"} <= {*config}


def _without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
