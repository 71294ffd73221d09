"""Training of autoencoders of clips with Lightning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.image import PeakSignalNoiseRatio

from perceiver_core import Batch
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
from perceiver_registry import UserError

Places = Mapping[str, Tensor | None]


class LitMultimodalAutoencoder(DecodedClasses, LitPerceiver):
    """Reconstructs audio and video of clips, and tells their class, which the encoder does not see in evaluation.

    The loss is a weighted sum, of the mean errors of audio and video and the cross-entropy of the label, in nats. In
    training it is that of some places, drawn at random for each clip. Loss and weights, and how many places, are those
    of the Perceiver IO paper (arXiv 2107.14795, section 4.3 and appendix I), where a label weight of 1 made a better
    classifier of the model.

    Logged beside the loss are, for validation and test data, the peak signal-to-noise ratio of audio and video in dB
    (peak to peak 2 and 1), and the accuracy of the label. Validation looks at as many places as training, always the
    same; test at all.

    The arguments up to ``patience`` are those of :class:`~perceiver_plugins.sdk.tasks.lightning.LitPerceiver`.

    Args:
        encoder: the encoder's configuration, of clips.
        decoder: the decoder's configuration, of clips.
        audio_weight: weight of the audio's error.
        video_weight: weight of the video's error.
        label_weight: weight of the label's cross-entropy.
        error: how audio and video differ from what they should be: the absolute ("l1") or squared error ("mse").
        audio_places: patches of audio that are decoded in training. None: all.
        video_places: pixels that are decoded in training. None: all.
        chunk_size: output places that are decoded at once where all are.

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
                "must be at least 0, and one of them more"
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

    @property
    def adapter(self) -> AudioVideoLabelOutputAdapter:
        """The model's output adapter."""
        return self.model.output_adapter  # type: ignore[return-value]

    def check_data(self, datamodule: Any) -> None:
        """Check that the clips of a data module have video and audio, and the model's shape and classes.

        Raises:
            UserError: if they have not.
        """
        super().check_data(datamodule)
        streams = getattr(datamodule, "streams", STREAMS)
        if set(streams) != set(STREAMS):
            raise UserError(f"an autoencoder needs clips with {' and '.join(STREAMS)}, the data has {streams[0]} alone")
        decoder = self.config.decoder
        for name in ("num_frames", "frame_size", "num_audio_samples", "num_classes", "label_names"):
            theirs, ours = getattr(datamodule, name, None), getattr(decoder, name)
            if theirs is not None and ours is not None and list(_listed(theirs)) != list(_listed(ours)):
                raise UserError(f"the data's {name} ({list_first(theirs)}) is not the model's ({list_first(ours)})")

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return torch.randint(self.num_classes, (num_examples(batch),), generator=generator)

    def num_tokens(self, batch: Batch) -> Tensor | int:
        return len(batch["labels"])

    # Places

    def random_places(self, batch: Batch) -> Places:
        """The places that training looks at: for each clip its own, drawn with replacement."""
        labels = batch["labels"]
        return self._some_places(lambda number, some: torch.randint(number, (len(labels), some), device=labels.device))

    def fixed_places(self) -> Places:
        """The places that validation looks at: drawn once, the same for all clips."""
        generator = torch.Generator().manual_seed(0)
        return self._some_places(lambda number, some: torch.randperm(number, generator=generator)[:some])

    def _some_places(self, draw: Callable[[int, int], Tensor]) -> Places:
        numbers = self.adapter.query_provider.num_places
        limits = {modality: limit or numbers[modality] for modality, limit in self.limits.items()}
        some = {
            modality: draw(numbers[modality], limit) if limit < numbers[modality] else None
            for modality, limit in limits.items()
        }
        return {**some, LABEL: None}

    def targets(self, batch: Batch, places: Places) -> dict[str, Tensor]:
        """What audio (b, p, samples per patch) and video (b, p, 3) should be at some places."""
        samples = batch["input_values"].unflatten(1, (-1, self.adapter.num_channels[AUDIO]))
        pixels = batch["pixel_values_videos"].movedim(2, -1).flatten(1, 3)
        return {AUDIO: _at(samples, places[AUDIO]), VIDEO: _at(pixels, places[VIDEO])}

    # Losses

    def loss_sum(self, batch: Batch) -> LossSum:
        """The summed loss of the clips at random places."""
        places = self.random_places(batch)
        outputs = decode(self.model, batch, places)  # type: ignore[arg-type]
        return self._loss_sum(outputs, self.targets(batch, places), batch["labels"])

    def evaluate(self, batch: Batch, stage: str) -> LossSum:
        """The summed loss at the same places for all clips; updates the metrics."""
        places = self.fixed_places() if stage == "val" else dict.fromkeys((AUDIO, VIDEO, LABEL))
        outputs = decode(self.model, batch, places, self.chunk_size)  # type: ignore[arg-type]
        targets, labels = self.targets(batch, places), batch["labels"]
        known = labels != IGNORED
        metrics: Any = self.metrics[stage]
        if known.any():
            metrics["audio_psnr"].update(outputs[AUDIO][known].float(), targets[AUDIO][known].float())
            metrics["video_psnr"].update(outputs[VIDEO][known].float(), targets[VIDEO][known].float())
            metrics["accuracy"].update(outputs[LABEL][known, 0].float(), labels[known])
        return self._loss_sum(outputs, targets, labels)

    def _loss_sum(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], labels: Tensor) -> LossSum:
        known = labels != IGNORED  # the others only fill up a batch
        losses = {
            LABEL: cross_entropy(outputs[LABEL][:, 0].float(), labels, reduction="none", ignore_index=IGNORED),
            **{modality: self._error(outputs[modality].float(), target) for modality, target in targets.items()},
        }
        total = sum(self.weights[modality] * (loss * known).sum() for modality, loss in losses.items())
        return LossSum(total, known.sum())  # type: ignore[arg-type]

    def _error(self, output: Tensor, target: Tensor) -> Tensor:
        """(b), the mean error of each clip."""
        difference = output - target.float()
        return (difference.abs() if self.error == "l1" else difference.square()).mean(dim=(1, 2))


def _at(values: Tensor, places: Tensor | None) -> Tensor:
    """Values (b, places, c) at some places: all (None), the same for all examples (p) or for each its own (b, p)."""
    if places is None:
        return values
    if places.dim() == 1:
        return values[:, places.to(values.device)]
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


def _listed(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]
