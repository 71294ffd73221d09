"""Input adapters for audio, video and labels, and for all three as one input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from perceiver_core import AdaptedInput, Batch, FourierPositions, InputAdapter
from perceiver_plugins.audio.adapters import AudioPatchesInputAdapter, check_stream
from perceiver_plugins.composite.adapters import CompositeInputAdapter
from perceiver_plugins.multimodal.config import (
    NUM_COLOURS,
    AudioVideoLabelEncoderConfig,
    VideoPatchesEncoderConfig,
)
from perceiver_plugins.sdk.data.loading import IGNORED

AUDIO, VIDEO, LABEL = "audio", "image", "label"
"""Names of the modalities, as in Hugging Face's model, in the order in which they are concatenated."""


def space_to_depth(frames: Tensor, patch_size: Sequence[int]) -> Tensor:
    """Move the patches of a video into the channel dimension.

    Args:
        frames: (b, time, channels, height, width); time, height and width are multiples of the patch's.
        patch_size: time t, height h and width w of a patch.

    Returns:
        (b, time / t, height / h, width / w, t h w channels), with channels in the order (t, h, w, channel).
    """
    t, h, w = patch_size
    patches = frames.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(1, (-1, t))
    return patches.permute(0, 1, 4, 6, 2, 5, 7, 3).flatten(4)


class ClipAudioInputAdapter(AudioPatchesInputAdapter):
    """Patches of the audio of a clip, all of which are reconstructed: the length is a multiple of the patch size."""

    def check_data(self, data: Any) -> None:
        """Check that a data module has audio whose length is a multiple of the patch size.

        Raises:
            ValueError: if it has not.
        """
        super().check_data(data)
        number = getattr(data, "num_audio_samples", None)
        if number is not None and number % self.samples_per_patch:
            raise ValueError(
                f"the data's num_audio_samples={number} must be a multiple of the model's "
                f"samples_per_patch={self.samples_per_patch}"
            )

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        return {"input_values": 2 * torch.rand(batch_size, self.num_samples, generator=generator) - 1}

    def samples_of(self, batch: Batch) -> Tensor:
        samples = super().samples_of(batch)
        if samples.shape[1] % self.samples_per_patch:
            raise ValueError(
                f"input_values of shape {tuple(samples.shape)}: must be (recordings, samples), the samples a multiple "
                f"of samples_per_patch={self.samples_per_patch}"
            )
        return samples


class VideoPatchesInputAdapter(InputAdapter):
    """Space-time patches of video with Fourier positions. Reads ``pixel_values_videos`` of a batch.

    Args:
        num_frames: frames per video of the example batch; other lengths are accepted.
        frame_size: height and width of its frames; other sizes are accepted.
        patch_size: frames, height and width of the patch at an input position.
        num_bands: frequencies of the Fourier positions per dimension.
        max_resolution: resolution of the Fourier positions in time, height and width.
    """

    def __init__(
        self,
        num_frames: int,
        frame_size: tuple[int, int],
        patch_size: tuple[int, int, int],
        num_bands: int,
        max_resolution: tuple[int, int, int],
    ):
        fourier_positions = FourierPositions(num_bands, max_resolution)
        time, height, width = patch_size
        super().__init__(time * height * width * NUM_COLOURS + fourier_positions.num_channels)
        self.shape = (num_frames, *frame_size)
        self.patch_size = patch_size
        self.fourier_positions = fourier_positions

    @classmethod
    def from_config(cls, config: VideoPatchesEncoderConfig) -> VideoPatchesInputAdapter:
        assert config.max_resolution is not None
        return cls(
            config.num_frames, config.frame_size, config.patch_size, config.num_frequency_bands, config.max_resolution
        )

    def check_data(self, data: Any) -> None:
        """Check that a data module has videos whose shape is a multiple of the patch size.

        Raises:
            ValueError: if it has not.
        """
        check_stream(data, "video")
        num_frames, frame_size = getattr(data, "num_frames", None), getattr(data, "frame_size", None)
        if num_frames is not None and frame_size is not None and not self._fits((num_frames, *frame_size)):
            raise ValueError(
                f"the data's num_frames={num_frames} and frame_size={tuple(frame_size)} must be multiples of the "
                f"model's patch_size={self.patch_size}"
            )

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        time, *size = self.shape
        return {"pixel_values_videos": torch.rand(batch_size, time, NUM_COLOURS, *size, generator=generator)}

    def forward(self, batch: Batch) -> AdaptedInput:
        """Adapt ``batch["pixel_values_videos"]`` (b, frames, 3, height, width), floating point.

        Raises:
            ValueError: if it has another shape or type, or if its shape is not a multiple of ``patch_size``.
        """
        frames: Tensor = batch["pixel_values_videos"]
        is_video = frames.dim() == 5 and frames.shape[2] == NUM_COLOURS
        if not is_video or not self._fits((frames.shape[1], *frames.shape[3:])):
            raise ValueError(
                f"pixel_values_videos of shape {tuple(frames.shape)}: must be (videos, frames, {NUM_COLOURS}, height, "
                f"width); frames, height and width multiples of patch_size={self.patch_size}"
            )
        if not frames.is_floating_point():
            raise ValueError(f"pixel_values_videos of type {frames.dtype}: must be floating point")
        patches = space_to_depth(frames, self.patch_size)
        return AdaptedInput(_with_positions(patches.flatten(1, 3), self.fourier_positions, patches.shape[1:4]))

    def _fits(self, shape: Sequence[int]) -> bool:
        return all(length % part == 0 for length, part in zip(shape, self.patch_size, strict=True))


class LabelInputAdapter(InputAdapter):
    """Label as a one-hot vector at a single input position. Reads ``labels`` of a batch.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int):
        super().__init__(num_classes)

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        return {"labels": torch.randint(self.num_input_channels, (batch_size,), generator=generator)}

    def forward(self, batch: Batch) -> AdaptedInput:
        """Adapt ``batch["labels"]`` (b), class indices; an unknown label (-100) is a vector of zeros."""
        labels: Tensor = batch["labels"]
        known = (labels != IGNORED)[:, None]
        return AdaptedInput((one_hot(labels.clamp(min=0), self.num_input_channels) * known)[:, None].float())


class AudioVideoLabelInputAdapter(CompositeInputAdapter):
    """Audio, video and label as one input, concatenated and padded with modality embeddings.

    Each modality has a mask token, which replaces masked positions. The label is always masked in evaluation, so that
    the model has to predict it: ``labels`` (class indices) are only read in training, and only if
    ``label_mask_probability`` is less than 1.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: AudioVideoLabelEncoderConfig):
        assert config.audio_max_resolution is not None
        assert config.video_max_resolution is not None
        parts: dict[str, InputAdapter] = {
            AUDIO: ClipAudioInputAdapter(
                config.num_audio_samples,
                config.samples_per_patch,
                config.num_audio_frequency_bands,
                config.audio_max_resolution,
            ),
            VIDEO: VideoPatchesInputAdapter(
                config.num_frames,
                config.frame_size,
                config.patch_size,
                config.num_video_frequency_bands,
                config.video_max_resolution,
            ),
            LABEL: LabelInputAdapter(config.num_classes),
        }
        probabilities = {
            AUDIO: config.audio_mask_probability,
            VIDEO: config.video_mask_probability,
            LABEL: config.label_mask_probability,
        }
        super().__init__(parts, config.min_padding, config.init_scale, probabilities)
        for vectors in (self.embeddings, self.mask_tokens):
            for modality, vector in vectors.items():
                # A row, as in Hugging Face's state dict.
                vectors[modality] = nn.Parameter(vector.detach()[None], requires_grad=vector.requires_grad)

    @classmethod
    def from_config(cls, config: AudioVideoLabelEncoderConfig) -> AudioVideoLabelInputAdapter:  # type: ignore[override]
        return cls(config)

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        batch = dict(super().example_batch(batch_size, generator))
        del batch["labels"]  # labels are created by the task
        return batch

    def mask_probability(self, modality: str) -> float:
        return 1.0 if modality == LABEL and not self.training else super().mask_probability(modality)

    def forward(self, batch: Batch) -> AdaptedInput:
        if self.mask_probability(LABEL) < 1:
            return super().forward(batch)
        samples: Tensor = batch["input_values"]
        unknown = torch.full((samples.shape[0],), IGNORED, device=samples.device)
        return super().forward({AUDIO: batch, VIDEO: batch, LABEL: {"labels": unknown}})


def _with_positions(patches: Tensor, fourier_positions: FourierPositions, grid: Sequence[int]) -> Tensor:
    """Append Fourier positions to the channels of patches (b, m, c) on a grid with m cells."""
    positions = fourier_positions(grid, patches.device, patches.dtype)
    return torch.cat([patches, positions.expand(patches.shape[0], -1, -1)], dim=-1)
