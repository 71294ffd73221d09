"""Lightning module of the multimodal autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.image import PeakSignalNoiseRatio

from perceiver_core import Batch, Model, ModelConfig
from perceiver_core.config import Init
from perceiver_plugins.checkpoints.random_data import num_examples
from perceiver_plugins.classification.lightning import DecodedClasses
from perceiver_plugins.multimodal.adapters import AUDIO, LABEL, VIDEO
from perceiver_plugins.multimodal.config import AudioVideoLabelDecoderConfig, AudioVideoLabelEncoderConfig
from perceiver_plugins.multimodal.data.format import STREAMS
from perceiver_plugins.multimodal.decoding import CHUNK_SIZE, decode
from perceiver_plugins.multimodal.output import AudioVideoLabelOutputAdapter
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.data.module import check_positive
from perceiver_plugins.sdk.errors import list_first
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver, LossSum
from perceiver_registry import UserError, assemble
from perceiver_registry.assemble import require_perceiver_io

Positions = Mapping[str, Tensor | None]
"""Indices of output positions by modality, as :func:`~perceiver_plugins.multimodal.decoding.decode` takes them."""


class LitMultimodalAutoencoder(DecodedClasses, LitPerceiver):
    """Reconstruct audio and video of clips and predict their class, which the encoder does not see in evaluation.

    The loss is a weighted sum of the mean errors of audio and video and the cross-entropy of the label in nats. In
    training it is computed at positions drawn randomly for each clip. Loss, weights and number of positions are those
    of the Perceiver IO paper (arXiv 2107.14795, section 4.3 and appendix I), in which a label weight of 1 improved the
    classification.

    Validation and test also log the peak signal-to-noise ratio of audio and video in dB (peak to peak 2 and 1) and the
    accuracy of the label. Validation decodes as many positions as training, the same for all clips; test decodes all.

    The arguments up to ``patience`` are those of :class:`~perceiver_plugins.sdk.tasks.lightning.LitPerceiver`.

    Args:
        encoder: the encoder's configuration.
        decoder: the decoder's configuration.
        audio_weight: weight of the audio's error.
        video_weight: weight of the video's error.
        label_weight: weight of the label's cross-entropy.
        error: error of audio and video, absolute ("l1") or squared ("mse").
        audio_places: number of audio patches to decode in training. None: all.
        video_places: number of pixels to decode in training. None: all.
        chunk_size: number of output positions to decode at once in test and prediction.

    Raises:
        UserError: if a value is out of range.
    """

    task = "multimodal-autoencoding"
    throughput = "examples_per_second"

    def __init__(
        self,
        encoder: AudioVideoLabelEncoderConfig,
        decoder: AudioVideoLabelDecoderConfig,
        num_latents: int = 256,
        num_latent_channels: int = 512,
        activation_checkpointing: bool = False,
        activation_offloading: bool = False,
        init: Init = "normal",
        params: str | None = None,
        compile: bool = False,
        optimizer: Mapping[str, Any] | None = None,
        lr_scheduler: Mapping[str, Any] | None = None,
        task: str | None = None,
        ema_decay: float | None = None,
        patience: int | None = None,
        audio_weight: float = 1.0,
        video_weight: float = 0.03,
        label_weight: float = 0.0001,
        error: Literal["l1", "mse"] = "l1",
        audio_places: int | None = 32,
        video_places: int | None = 512,
        chunk_size: int = CHUNK_SIZE,
    ):
        super().__init__(
            encoder,
            decoder,
            num_latents,
            num_latent_channels,
            activation_checkpointing,
            activation_offloading,
            init,
            params,
            compile,
            optimizer,
            lr_scheduler,
            task,
            ema_decay,
            patience,
        )
        self.weights = {AUDIO: audio_weight, VIDEO: video_weight, LABEL: label_weight}
        if min(self.weights.values()) < 0 or max(self.weights.values()) == 0:
            raise UserError(
                f"audio_weight={audio_weight}, video_weight={video_weight}, label_weight={label_weight}: "
                "must be at least 0, and at least one must be greater"
            )
        if error not in ("l1", "mse"):
            raise UserError(f"error={error!r} must be l1 or mse")
        check_positive(audio_places=audio_places, video_places=video_places, chunk_size=chunk_size)
        self.error = error
        self.limits = {AUDIO: audio_places, VIDEO: video_places}
        self.chunk_size = chunk_size
        self.add_metrics(
            {
                "audio_psnr": PeakSignalNoiseRatio(data_range=(-1.0, 1.0)),
                "video_psnr": PeakSignalNoiseRatio(data_range=(0.0, 1.0)),
                "accuracy": MulticlassAccuracy(self.num_classes, average="micro"),
            }
        )

    def build(self, config: ModelConfig[Any, Any]) -> Model:
        require_perceiver_io(config, f"--task={self.task}")
        return assemble(config)

    @property
    def adapter(self) -> AudioVideoLabelOutputAdapter:
        """The model's output adapter."""
        return self.model.output_adapter  # type: ignore[return-value]

    def check_data(self, datamodule: Any) -> None:
        """Check that a data module has clips with video and audio, in the model's shape and with its classes.

        Raises:
            UserError: if it has not.
        """
        super().check_data(datamodule)
        streams = getattr(datamodule, "streams", STREAMS)
        if set(streams) != set(STREAMS):
            raise UserError(f"an autoencoder needs clips with {' and '.join(STREAMS)}, the data has only {streams[0]}")
        decoder = self.config.decoder
        for name in ("num_frames", "frame_size", "num_audio_samples", "num_classes", "label_names"):
            actual, expected = getattr(datamodule, name, None), getattr(decoder, name)
            if actual is not None and expected is not None and _as_list(actual) != _as_list(expected):
                raise UserError(f"the data's {name} ({list_first(actual)}) is not the model's ({list_first(expected)})")

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return torch.randint(self.num_classes, (num_examples(batch),), generator=generator)

    def num_tokens(self, batch: Batch) -> Tensor | int:
        return len(batch["labels"])

    # Positions

    def random_positions(self, batch: Batch) -> Positions:
        """Draw positions for training, for each clip separately and with replacement."""
        labels = batch["labels"]
        return self._draw_positions(lambda size, limit: torch.randint(size, (len(labels), limit), device=labels.device))

    def fixed_positions(self) -> Positions:
        """Return the positions for validation, which are the same for all clips and in all epochs."""
        generator = torch.Generator().manual_seed(0)
        return self._draw_positions(lambda size, limit: torch.randperm(size, generator=generator)[:limit])

    def _draw_positions(self, draw: Callable[[int, int], Tensor]) -> Positions:
        sizes = self.adapter.query_provider.num_positions
        limits = {modality: limit or sizes[modality] for modality, limit in self.limits.items()}
        positions = {
            modality: draw(sizes[modality], limit) if limit < sizes[modality] else None
            for modality, limit in limits.items()
        }
        return {**positions, LABEL: None}

    def targets(self, batch: Batch, positions: Positions) -> dict[str, Tensor]:
        """Return the targets of audio (b, p, samples per patch) and video (b, p, 3) at the given positions."""
        samples = batch["input_values"].unflatten(1, (-1, self.adapter.num_channels[AUDIO]))
        pixels = batch["pixel_values_videos"].movedim(2, -1).flatten(1, 3)
        return {AUDIO: _select(samples, positions[AUDIO]), VIDEO: _select(pixels, positions[VIDEO])}

    # Losses

    def loss_sum(self, batch: Batch) -> LossSum:
        """Compute the summed loss of the clips at random positions."""
        positions = self.random_positions(batch)
        outputs = decode(self.model, batch, positions)  # type: ignore[arg-type]
        return self._loss_sum(outputs, self.targets(batch, positions), batch["labels"])

    def evaluate(self, batch: Batch, stage: str) -> LossSum:
        """Compute the summed loss, in validation at :meth:`fixed_positions`, and update the metrics."""
        positions = self.fixed_positions() if stage == "val" else dict.fromkeys((AUDIO, VIDEO, LABEL))
        outputs = decode(self.model, batch, positions, self.chunk_size)  # type: ignore[arg-type]
        targets, labels = self.targets(batch, positions), batch["labels"]
        known = labels != IGNORED
        metrics: Any = self.metrics[stage]
        if known.any():
            metrics["audio_psnr"].update(outputs[AUDIO][known].float(), targets[AUDIO][known].float())
            metrics["video_psnr"].update(outputs[VIDEO][known].float(), targets[VIDEO][known].float())
            metrics["accuracy"].update(outputs[LABEL][known, 0].float(), labels[known])
        return self._loss_sum(outputs, targets, labels)

    def _loss_sum(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], labels: Tensor) -> LossSum:
        known = labels != IGNORED  # other examples only pad the batch
        losses = {
            LABEL: cross_entropy(outputs[LABEL][:, 0].float(), labels, reduction="none", ignore_index=IGNORED),
            **{modality: self._error(outputs[modality].float(), target) for modality, target in targets.items()},
        }
        total = sum(self.weights[modality] * (loss * known).sum() for modality, loss in losses.items())
        return LossSum(total, known.sum())  # type: ignore[arg-type]

    def _error(self, output: Tensor, target: Tensor) -> Tensor:
        """Compute the mean error (b) of each clip."""
        difference = output - target.float()
        return (difference.abs() if self.error == "l1" else difference.square()).mean(dim=(1, 2))


def _select(values: Tensor, positions: Tensor | None) -> Tensor:
    """Select positions of values (b, o, c): all (None), the same for all examples (p), or per example (b, p)."""
    if positions is None:
        return values
    if positions.dim() == 1:
        return values[:, positions.to(values.device)]
    return values.gather(1, positions[..., None].expand(-1, -1, values.shape[-1]))


def _as_list(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]
