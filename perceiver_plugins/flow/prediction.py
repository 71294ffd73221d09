"""Predictor of optical flow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from perceiver_plugins.flow.data.pairs import flow_tensor
from perceiver_plugins.flow.files import SUFFIXES, draw_flow, read_flow, write_flo
from perceiver_plugins.flow.lightning import LitOpticalFlow, end_point_errors
from perceiver_plugins.flow.reading import natural_order
from perceiver_plugins.flow.tiling import OVERLAP, predict_tiled_flow
from perceiver_plugins.sdk.data.module import check_positive
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.predictor import MAX_FILE_STEM, Prediction, Predictor
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_registry import UserError


class FlowPredictor(Predictor):
    """Predictor of the flow from each frame to the next one, for frames of any size.

    Frames larger than those of training are split into overlapping tiles of that size, which are blended.

    Args:
        module: the optical flow model.
        reader: reader of the pairs of frames.
        output: folder to write the flow of each pair to, as a .flo file in the Middlebury format and as a coloured
            picture. It is created if it does not exist. Null: nothing is written.
        flow: true flow, to compute the end-point error: a .flo file, a KITTI .png, or a folder with a file for each
            pair, in the order of the pairs.
        overlap: smallest overlap of neighbouring tiles in pixels, limited to half of a tile.
        downscale: factor by which height and width of frames are reduced by averaging; the flow is enlarged by it.
            Null: as in training.
        batch_size: tiles per batch.
    """

    module: LitOpticalFlow

    def __init__(
        self,
        module: LitOpticalFlow,
        reader: Reader,
        output: str | None = None,
        flow: str | None = None,
        overlap: int = OVERLAP,
        downscale: int | None = None,
        batch_size: int = 1,
    ):
        super().__init__(module, reader, batch_size)
        check_positive(downscale=downscale)
        if overlap < 0:
            raise UserError(f"overlap={overlap} must be at least 0")
        self.output = Path(output).expanduser() if output else None
        self.overlap = overlap
        self.downscale: int = downscale or reader.data.get("downscale", 1)
        self.flow_files = _flow_files(flow) if flow else None

    def stream(self, inputs: Iterable[str]) -> Iterator[Prediction]:
        """Predict for each pair of frames. Pairs that cannot be read are reported in :attr:`failures`.

        Args:
            inputs: arguments that the reader expands to pairs of frames.

        Raises:
            UserError: if an argument names no pair, if the numbers of true flows and of pairs differ, or if the output
                folder cannot be created.
        """
        inputs = list(inputs)
        if self.flow_files is not None and len(self.flow_files) != (num_pairs := len(self.reader.expand(inputs))):
            raise UserError(
                f"flow: {len(self.flow_files)} flow files for {num_pairs} pairs of frames (give one for each pair)"
            )
        if self.output is not None:
            try:
                self.output.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"output={str(self.output)!r}: the folder cannot be created ({error.strerror})"
                ) from error
        return super().stream(inputs)

    def _predict_batch(self, sources: Sequence[str], start: int) -> list[Prediction]:
        predictions = []
        for number, source in enumerate(sources, start):
            try:
                predictions.append({"input": str(source), **self._predict_pair(source, number)})
            except UserError as error:
                self.failures.append(str(error))
        return predictions

    def _predict_pair(self, source: str, number: int) -> Prediction:
        frames = self.reader.collate([self.reader.read(source)])["frames"][0]
        target = None if self.flow_files is None else self._read_target(self.flow_files[number], frames)
        flow = self.flow(frames)
        (prediction,) = self.answers(flow[None], [frames])
        if target is not None:
            error, zero_error = (
                end_point_errors(each.movedim(0, -1), target.movedim(0, -1)) for each in (flow, torch.zeros_like(flow))
            )
            prediction |= {"end_point_error": float(error.mean), "without_motion": float(zero_error.mean)}
        if self.output is not None:
            prediction |= self._write(flow, source, number)
        return prediction

    def flow(self, frames: Tensor) -> Tensor:
        """Predict the flow (2, height, width), in pixels, between frames (2, 3, height, width)."""
        height, width = frames.shape[2:]
        small = avg_pool2d(frames.to(self.module.device), self.downscale, ceil_mode=True)
        adapter: Any = self.module.model.input_adapter
        tile = getattr(adapter, "image_size", (small.shape[2], small.shape[3]))
        flow = predict_tiled_flow(self.module.flow, small, tile, self.overlap, self.batch_size)
        if self.downscale > 1:
            flow = interpolate(flow[None] * self.downscale, scale_factor=self.downscale, mode="bilinear")[0]
        return flow[:, :height, :width].cpu()

    def answers(self, output: Tensor, examples: Sequence[Any]) -> list[Prediction]:
        """Summarise flows (b, 2, height, width): size, mean direction, mean and largest length."""
        predictions = []
        for flow in output:
            length = torch.linalg.vector_norm(flow, dim=0)
            predictions.append(
                {
                    "height": flow.shape[1],
                    "width": flow.shape[2],
                    "mean_to_the_right": float(flow[0].mean()),
                    "mean_down": float(flow[1].mean()),
                    "mean_length": float(length.mean()),
                    "max_length": float(length.max()),
                }
            )
        return predictions

    def _read_target(self, path: Path, frames: Tensor) -> Tensor:
        target = flow_tensor(read_flow(path))
        if target.shape[1:] != frames.shape[2:]:
            sizes = [f"{height}x{width}" for height, width in (target.shape[1:], frames.shape[2:])]
            raise DataError(f"{path}: flow of {sizes[0]} pixels for frames of {sizes[1]}")
        return target

    def _write(self, flow: Tensor, source: str, number: int) -> dict[str, str]:
        assert self.output is not None
        first = str(getattr(source, "first", source))
        name = "-".join(re.findall(r"\w+", Path(first).stem))[:MAX_FILE_STEM] or "frames"
        path = self.output / f"{number:04d}-{name}"
        write_flo(f"{path}.flo", flow.permute(1, 2, 0).numpy())
        draw_flow(flow).save(f"{path}.png")
        return {"flow": f"{path}.flo", "picture": f"{path}.png"}

    @classmethod
    def rows(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        for record in cls.records(predictions):
            yield {name: f"{value:.3f}" if isinstance(value, float) else str(value) for name, value in record.items()}

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        for prediction in predictions:
            yield {name.replace("_", " "): value for name, value in prediction.items()}


def _flow_files(name: str) -> list[Path]:
    path = Path(name).expanduser()
    if not path.is_dir():
        return [path]
    for suffix in SUFFIXES:  # .png files beside .flo files are pictures of them
        if files := natural_order([file for file in path.iterdir() if file.suffix.lower() == suffix]):
            return files
    raise UserError(f"flow={name!r}: no .flo or .png files in the folder")
