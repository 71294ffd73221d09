"""Loaded models, which predict and embed inputs as the command does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from perceiver_cli.command_line import read_command_line
from perceiver_cli.export import find_serving_format
from perceiver_cli.flags import build_parser
from perceiver_cli.input_commands import COMMANDS_BY_NAME
from perceiver_cli.library_warnings import without_library_warnings
from perceiver_cli.predict_config import read_prediction
from perceiver_cli.prediction import (
    READER_OPTIONS,
    create_predictor,
    load_module,
    predictor_arguments,
    stream,
)
from perceiver_cli.run import wrong_use
from perceiver_cli.run_config import Run
from perceiver_cli.sources import find_source
from perceiver_cli.trainer import find_device
from perceiver_cli.validation import validate
from perceiver_registry import UserError, write_model
from perceiver_registry.formats import check_free, open_source, shared_sources
from perceiver_zoo.commands import as_flags, run_command
from perceiver_zoo.inputs import single_inputs, sources_of

Source = str | os.PathLike[str]
"""Model to load: path or hub id."""

SEARCH_OPTIONS = ("similar_to", "top_k", "vectors")
"""Options of ``perceiver embed`` that search instead of returning embeddings."""

MAX_FAILURES_SHOWN = 3
"""Most failed inputs that an error names. Arbitrary."""


def load(source: Source, device: str = "auto") -> LoadedModel:
    """Load a model from a checkpoint, a folder or the hub, for prediction and embeddings.

    >>> perceiver_zoo.load("best.ckpt").predict(["a text"])

    Args:
        source: checkpoint, folder or hub id, as for ``--ckpt_path`` of the command; "last" or "best": that checkpoint
            of the newest run.
        device: "auto", "cpu", "gpu" or another accelerator of Lightning.

    Raises:
        UserError: if ``source`` is not a model.
        PluginError: if the model needs a plugin that is not installed.
    """
    if not isinstance(source, str | os.PathLike):
        raise UserError(f"source: must be a path or hub id, got {type(source).__name__}")
    found = find_source(os.fspath(source))
    model = LoadedModel(os.path.abspath(found) if os.path.exists(found) else found, device)
    _ = model.task  # reports a source that is not a model
    return model


def embed(source: Source, inputs: Any, device: str = "auto", **options: Any) -> Any:
    """Load a model and embed inputs: :func:`load` and :meth:`LoadedModel.embed` in one call."""
    return load(source, device).embed(inputs, **options)


class LoadedModel:
    """Model with the reader of its inputs. Its weights are loaded at their first use.

    Args:
        source: checkpoint, folder or hub id. None: the run saved no checkpoint, and using the model raises UserError.
        device: as for :func:`load`.
    """

    def __init__(self, source: str | None, device: str = "auto"):
        self.source = source
        self._device_flag = f"--trainer.accelerator={device}"
        self._predictors: dict[tuple[str, ...], Any] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r})"

    @cached_property
    def _run(self) -> Run:
        with shared_sources():
            return read_prediction("predict", [f"--ckpt_path={self._require_source()}"])

    def _require_source(self) -> str:
        if self.source is None:
            raise UserError("the run saved no checkpoint, so it has no model (train with checkpoints to use it)")
        return self.source

    @property
    def task(self) -> str:
        """Name of the model's task."""
        assert self._run.task is not None
        return self._run.task.name

    @cached_property
    def module(self) -> Any:
        """The task's Lightning module in evaluation mode; ``module.model`` is the PyTorch model."""
        values = self._values("predict", ())
        with wrong_use():
            device = find_device(values["trainer"])
        return load_module(self._run, device)

    @property
    def model(self) -> Any:
        """The PyTorch model in evaluation mode."""
        return self.module.model

    def predict(self, inputs: Any, **options: Any) -> list[dict[str, Any]]:
        """Predict for inputs.

        Args:
            inputs: one or several. Strings and paths are texts, files, folders and rows, as for ``perceiver predict``.
                Objects in memory are read like files with their content: Pillow images or arrays (height, width[,
                channels]) of uint8; recordings, as arrays of samples or pairs of one and its sample rate; table rows,
                as dicts or as a table of pandas, polars or pyarrow; pairs of images for optical flow. The first axis of
                an array is the batch; pass a single image or recording in a list.
            options: flags of ``perceiver predict``: ``top_k=3``, or ``text_column="review"`` for a table of texts.

        Returns:
            The predictions as plain data, one for each input: ``[{"input": "a text", "label": "pos", ...}]``. The
            ``"input"`` of objects is ``"inputs[0]"`` and so on.

        Raises:
            UserError: if an option is wrong or an input cannot be read.
        """
        return self._predict("predict", inputs, options)

    @overload
    def embed(self, inputs: Any, pool: Literal["mean"] = "mean", **options: Any) -> np.ndarray: ...
    @overload
    def embed(self, inputs: Any, pool: Literal["none"], **options: Any) -> list[np.ndarray]: ...
    def embed(self, inputs: Any, pool: str = "mean", **options: Any) -> Any:
        """Embed inputs.

        Args:
            inputs: as for :meth:`predict`.
            pool: "mean": the mean of the latents. "none": all latents.
            options: ``batch_size``, and ``delimiter`` and ``text_column`` of tables.

        Returns:
            Embeddings (inputs, d), or a list of arrays (n, d) without pooling.

        Raises:
            UserError: if an option is wrong or an input cannot be read.
        """
        for name in SEARCH_OPTIONS:
            if name in options:
                raise UserError(f"{name}: not an option of embed (use similar)")
        embeddings = [each["embedding"] for each in self._predict("embed", inputs, {"pool": pool, **options})]
        if pool != "mean":
            return embeddings
        return np.stack(embeddings) if embeddings else np.empty((0, 0), np.float32)

    def similar(self, inputs: Any, to: Any, top_k: int = 10, **options: Any) -> list[dict[str, Any]]:
        """Find the inputs that are most similar to a given one.

        Args:
            inputs: as for :meth:`predict`.
            to: a single input: a text, a path or an object in memory.
            top_k: number of inputs to return.
            options: as for :meth:`embed`.

        Returns:
            The ``"input"`` and the cosine ``"similarity"`` of each input found, the most similar one first.

        Raises:
            UserError: if an option is wrong or an input cannot be read.
        """
        if isinstance(to, str | os.PathLike):
            return self._predict("embed", inputs, {"similar_to": to, "top_k": top_k, **options})
        if top_k < 1:
            raise UserError(f"top_k={top_k} must be at least 1")
        from perceiver_plugins.sdk.prediction.embedding import most_similar  # deferred: imports Lightning

        reference = self._predict("embed", [to], options, "to")[0]["embedding"]
        return most_similar(self._predict("embed", inputs, options), reference, top_k)

    def validate(self, **options: Any) -> dict[str, float]:
        """Compute the metrics of the checkpoint on its validation data, by name.

        Args:
            options: flags of ``perceiver validate``: ``data={"val_files": "new.csv"}``.

        Raises:
            UserError: if an option is wrong, or if data cannot be read.
        """
        return self._evaluate("validate", options)

    def test(self, **options: Any) -> dict[str, float]:
        """Compute the metrics of the checkpoint on its test data, by name.

        Args:
            options: flags of ``perceiver test``: ``data={"test_files": "new.csv"}``.

        Raises:
            UserError: if an option is wrong, or if data cannot be read.
        """
        return self._evaluate("test", options)

    def export(self, file: Source, format: str | None = None, overwrite: bool = False) -> Path:
        """Export the model to a file for serving, as ``perceiver export`` does.

        Args:
            file: the file.
            format: "onnx" or "torch-export". None: by the suffix of the file, ``.onnx`` or ``.pt2``.
            overwrite: replace an existing file.

        Raises:
            UserError: if the format cannot represent the model, or if the file exists.
        """
        target = os.path.expanduser(file)
        entry = find_serving_format(format, target)
        check_free(target, overwrite)
        with without_library_warnings():
            write_model(open_source(self._require_source()).read(), target, entry.full_name, overwrite=overwrite)
        return Path(target)

    def _evaluate(self, command: str, options: dict[str, Any]) -> dict[str, float]:
        if "ckpt_path" in options:
            raise UserError(f"ckpt_path: not an option of {command} (load the other checkpoint)")
        flags = [f"--ckpt_path={self._require_source()}", self._device_flag, *as_flags(options)]
        return dict(run_command(command, flags).metrics)

    def _predict(
        self, command: str, inputs: Any, options: dict[str, Any], names: str = "inputs[{}]"
    ) -> list[dict[str, Any]]:
        given = single_inputs(inputs)
        if not given:
            return []
        key = (command, *as_flags(options))
        predictor = self._predictors.get(key) or self._create_predictor(command, options)
        if not set(SEARCH_OPTIONS) & options.keys():  # the predictor of a search keeps its reference
            self._predictors[key] = predictor
        predictor.failures.clear()
        predictions = list(map(_plain, stream(predictor, sources_of(predictor.reader, given, names))))
        if predictor.failures:
            raise UserError(_describe_failures(predictor.failures))
        return predictions

    def _create_predictor(self, command: str, options: dict[str, Any]) -> Any:
        predictor_class = COMMANDS_BY_NAME[command].find_predictor(self._run.task)
        known = predictor_arguments(predictor_class) if predictor_class else []
        known = [*known, *(name for name in READER_OPTIONS if name != "keep_columns")]  # predictions have no others
        for name in options:
            if name not in known:
                raise UserError(f"{name}: not an option of {command} (known: {', '.join(known)})")
        if predictor_class is None:
            raise UserError(f"task {self.task!r}: has no predictor (embed returns embeddings)")
        return create_predictor(predictor_class, self.module, self._run, self._values(command, as_flags(options)))

    def _values(self, command: str, flags: Iterable[str]) -> dict[str, Any]:
        chosen = replace(self._run, line=read_command_line([self._device_flag, *flags]))
        return validate(build_parser(command, chosen), chosen)


def _plain(prediction: dict[str, Any]) -> dict[str, Any]:
    """Return a prediction with the name of its input, without the input itself."""
    return prediction | {"input": str(prediction["input"])} if "input" in prediction else prediction


def _describe_failures(failures: Sequence[str]) -> str:
    """Join the messages of the first failed inputs, and count the others."""
    num_others = len(failures) - MAX_FAILURES_SHOWN
    others = f" (and {num_others} more)" if num_others > 0 else ""
    return "; ".join(failures[:MAX_FAILURES_SHOWN]) + others
