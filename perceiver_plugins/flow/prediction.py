"""What optical flow models say in ``perceiver predict``."""

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
from perceiver_plugins.flow.parts import OVERLAP, flow_of_frames
from perceiver_plugins.flow.reading import in_order
from perceiver_plugins.sdk.data.module import check_positive
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.predictor import MAX_FILE_STEM, Prediction, Predictor
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_registry import UserError


class FlowPredictor(Predictor):
    """Predicts the motion between each frame and the next one, for frames of any size.

    Frames larger than those of training go through the model in overlapping parts of that size, which are blended into
    each other.

    Args:
        module: the optical flow model.
        reader: reads the pairs of frames.
        output: a folder, made if need be, to write the flow of each pair to, as a .flo file in the Middlebury format
            and as a picture of colours. Null: nothing is written.
        flow: the true flow, to tell the end-point error: a .flo file, or a .png of KITTI, or a folder with one for
            each pair, in their order.
        overlap: pixels that neighbouring parts overlap by at least; half of a part at most.
        downscale: so many pixels, in height and in width, are averaged into one before the model sees them, and its
            flow is enlarged accordingly. Null: as in training.
        batch_size: parts that go through the model together.
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
        self.truths = _flow_files(flow) if flow else None

    def stream(self, inputs: Iterable[str]) -> Iterator[Prediction]:
        """Predicts for each pair of frames; those that cannot be read are left out and named in :attr:`failures`.

        Args:
            inputs: what the reader expands to pairs of frames.

        Raises:
            UserError: if an argument stands for no pair at all, if there are more or fewer true flows than pairs, or if
                the folder for the results cannot be made.
        """
        inputs = list(inputs)
        if self.truths is not None and len(self.truths) != (num_pairs := len(self.reader.expand(inputs))):
            raise UserError(f"flow: {len(self.truths)} flow files for {num_pairs} pairs of frames; one each is needed")
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
        truth = None if self.truths is None else self._truth(self.truths[number], frames)
        flow = self.flow(frames)
        (answer,) = self.answers(flow[None], [frames])
        if truth is not None:
            errors = (
                end_point_errors(each.movedim(0, -1), truth.movedim(0, -1)) for each in (flow, torch.zeros_like(flow))
            )
            answer["end_point_error"], answer["without_motion"] = (float(error.mean) for error in errors)
        if self.output is not None:
            answer |= self._write(flow, source, number)
        return answer

    def flow(self, frames: Tensor) -> Tensor:
        """The flow (2, h, w), in pixels, between frames (2, 3, h, w)."""
        height, width = frames.shape[2:]
        small = avg_pool2d(frames.to(self.module.device), self.downscale, ceil_mode=True)
        adapter: Any = self.module.model.input_adapter
        part = getattr(adapter, "image_size", (small.shape[2], small.shape[3]))
        flow = flow_of_frames(self.module.flow, small, part, self.overlap, self.batch_size)
        if self.downscale > 1:
            flow = interpolate(flow[None] * self.downscale, scale_factor=self.downscale, mode="bilinear")[0]
        return flow[:, :height, :width].cpu()

    def answers(self, output: Tensor, examples: Sequence[Any]) -> list[Prediction]:
        """What there is to say of flows (b, 2, h, w): their size, and how long and where to the motion is."""
        answers = []
        for flow in output:
            length = torch.linalg.vector_norm(flow, dim=0)
            answers.append(
                {
                    "height": flow.shape[1],
                    "width": flow.shape[2],
                    "mean_to_the_right": float(flow[0].mean()),
                    "mean_down": float(flow[1].mean()),
                    "mean_length": float(length.mean()),
                    "max_length": float(length.max()),
                }
            )
        return answers

    def _truth(self, path: Path, frames: Tensor) -> Tensor:
        truth = flow_tensor(read_flow(path))
        if truth.shape[1:] != frames.shape[2:]:
            sizes = [f"{height}x{width}" for height, width in (truth.shape[1:], frames.shape[2:])]
            raise DataError(f"{path}: a flow of {sizes[0]} pixels, where the frames have {sizes[1]}")
        return truth

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
    for suffix in SUFFIXES:  # beside .flo files, .png are pictures of them
        if files := in_order([file for file in path.iterdir() if file.suffix.lower() == suffix]):
            return files
    raise UserError(f"flow={name!r}: there are no .flo or .png files in the folder")
