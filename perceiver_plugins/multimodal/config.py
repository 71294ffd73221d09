"""Configurations of the clip adapters: video, audio and label.

The modalities are named "audio", "image" (the video) and "label", as in Hugging Face's model, and are concatenated in
this order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from perceiver_core.config import DecoderConfig, EncoderConfig, require, require_positive
from perceiver_plugins.audio.config import AudioPatchesEncoderConfig as AudioPatchesEncoderConfig

NUM_COLOURS = 3
"""Channels of a video: red, green and blue."""


def require_shape(config: Any, field: str, num_dimensions: int) -> None:
    """Check that ``field`` has ``num_dimensions`` positive integers and convert it to a tuple.

    Raises:
        ValueError: if it has not.
    """
    value = getattr(config, field)
    is_shape = isinstance(value, list | tuple) and len(value) == num_dimensions
    is_shape = is_shape and all(type(length) is int and length >= 1 for length in value)
    require(is_shape, config, field, f"must be {num_dimensions} whole numbers of at least 1")
    setattr(config, field, tuple(value))


def require_multiple(config: Any, field: str, factor: int | tuple[int, ...], of: str) -> None:
    """Check that ``field``, a number or a shape, is a multiple of ``factor``.

    Args:
        config: the configuration.
        field: name of the field.
        factor: divisor, one for each dimension of a shape.
        of: name of the divisor in the error message.

    Raises:
        ValueError: if it is not a multiple.
    """
    value = getattr(config, field)
    pairs = zip(value, factor, strict=True) if isinstance(factor, tuple) else [(value, factor)]
    require(all(length % part == 0 for length, part in pairs), config, field, f"must be a multiple of {of}={factor}")


@dataclass
class VideoPatchesEncoderConfig(EncoderConfig):
    """Encoder of video in space-time patches, with Fourier positions (Perceiver IO, section 4.3).

    Args:
        num_frames: frames per video in the training data; other lengths are accepted.
        frame_size: height and width of a frame; other sizes are accepted.
        patch_size: frames, height and width of the patch at an input position.
        num_frequency_bands: frequencies of the Fourier positions per dimension, each with a sine and a cosine.
        max_resolution: resolution of the Fourier positions in time, height and width; their highest frequency is half
            of it. None: the number of patches per dimension.
    """

    num_frames: int = 16
    frame_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int, int] = (1, 4, 4)
    num_frequency_bands: int = 32
    max_resolution: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_frames", "num_frequency_bands")
        require_shape(self, "frame_size", 2)
        require_shape(self, "patch_size", 3)
        require_multiple(self, "num_frames", self.patch_size[0], "patch_size[0]")
        require_multiple(self, "frame_size", self.patch_size[1:], "patch_size[1:]")
        if self.max_resolution is None:
            self.max_resolution = grid_of((self.num_frames, *self.frame_size), self.patch_size)
        require_shape(self, "max_resolution", 3)


@dataclass
class ClipConfig:
    """Fields that encoder and decoder share: shape of a clip, and its Fourier positions.

    Args:
        num_frames: frames of the video.
        frame_size: height and width of a frame.
        num_audio_samples: samples of the audio.
        samples_per_patch: audio samples per position.
        num_classes: number of classes of the label.
        num_audio_frequency_bands: frequencies of the audio's Fourier positions, each with a sine and a cosine.
        num_video_frequency_bands: the same for each of the three dimensions of the video.
        audio_max_resolution: resolution of the audio's Fourier positions in samples; their highest frequency is half
            of it. None: ``num_audio_samples``.
        video_max_resolution: the same in time, height and width of the video. None: the number of positions per
            dimension, which are patches in an encoder and pixels in a decoder.
    """

    num_frames: int = 16
    frame_size: tuple[int, int] = (224, 224)
    num_audio_samples: int = 30720
    samples_per_patch: int = 16
    num_classes: int = 2
    num_audio_frequency_bands: int = 192
    num_video_frequency_bands: int = 32
    audio_max_resolution: int | None = None
    video_max_resolution: tuple[int, int, int] | None = None

    def complete(self, patch_size: tuple[int, int, int] = (1, 1, 1)) -> None:
        """Check the fields and replace None by the defaults.

        Args:
            patch_size: frames, height and width of the video patch at a position.

        Raises:
            ValueError: if a value is out of range.
        """
        bands = ("num_audio_frequency_bands", "num_video_frequency_bands")
        require_positive(self, "num_frames", "num_audio_samples", "samples_per_patch", "num_classes", *bands)
        require_positive(self, "audio_max_resolution")
        require_shape(self, "frame_size", 2)
        require_multiple(self, "num_audio_samples", self.samples_per_patch, "samples_per_patch")
        require_multiple(self, "num_frames", patch_size[0], "patch_size[0]")
        require_multiple(self, "frame_size", patch_size[1:], "patch_size[1:]")
        self.audio_max_resolution = self.audio_max_resolution or self.num_audio_samples
        if self.video_max_resolution is None:
            self.video_max_resolution = grid_of((self.num_frames, *self.frame_size), patch_size)
        require_shape(self, "video_max_resolution", 3)

    @property
    def audio_position_channels(self) -> int:
        """Channels of an audio position."""
        return 2 * self.num_audio_frequency_bands + 1

    @property
    def video_position_channels(self) -> int:
        """Channels of a video position."""
        return 3 * (2 * self.num_video_frequency_bands + 1)

    @property
    def num_audio_patches(self) -> int:
        """Number of audio positions."""
        return self.num_audio_samples // self.samples_per_patch

    @property
    def video_shape(self) -> tuple[int, int, int]:
        """Frames, height and width of the video."""
        return (self.num_frames, *self.frame_size)


@dataclass
class AudioVideoLabelEncoderConfig(ClipConfig, EncoderConfig):
    """Encoder of audio, video and label as one input (Perceiver IO, section 4.3 and appendix I).

    Args:
        patch_size: frames, height and width of the video patch at an input position.
        min_padding: channels of the modality embedding of the widest modality. Embeddings of the others are longer and
            pad all modalities to the same number of channels.
        audio_mask_probability: probability of masking an audio position in training. 1 masks all of them in evaluation
            as well; any other value masks nothing in evaluation.
        video_mask_probability: the same for the video.
        label_mask_probability: probability of masking the label in training. In evaluation it is always masked. The
            paper trained with 0.5; Hugging Face's model uses 1.
    """

    patch_size: tuple[int, int, int] = (1, 4, 4)
    min_padding: int = 4
    audio_mask_probability: float = 0.0
    video_mask_probability: float = 0.0
    label_mask_probability: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shape(self, "patch_size", 3)
        self.complete(self.patch_size)
        require_positive(self, "min_padding")
        for modality in ("audio", "video", "label"):
            field = f"{modality}_mask_probability"
            require(0 <= getattr(self, field) <= 1, self, field, "must be from 0 to 1")

    @property
    def num_input_channels(self) -> int:
        """Channels of the input array."""
        audio = self.samples_per_patch + self.audio_position_channels
        video = NUM_COLOURS * math.prod(self.patch_size) + self.video_position_channels
        return max(audio, video, self.num_classes) + self.min_padding


@dataclass
class AudioVideoLabelDecoderConfig(ClipConfig, DecoderConfig):
    """Decoder of audio, video and label (Perceiver IO, section 4.3 and appendix I).

    Args:
        num_cross_attention_heads: heads of the cross-attention.
        cross_attention_residual: add the output queries to the output of the cross-attention.
        num_label_query_channels: channels of the learned query of the label.
        num_output_channels: channels of the hidden layer from which the outputs of all modalities are projected.
        min_padding: channels of the modality embedding of the modality with the widest queries.
        label_names: names of the classes, by class index.
    """

    num_cross_attention_heads: int = 1
    cross_attention_residual: bool = False
    num_label_query_channels: int = 1024
    num_output_channels: int = 512
    min_padding: int = 2
    label_names: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.complete()
        require_positive(self, "num_label_query_channels", "num_output_channels", "min_padding")
        names = self.label_names
        if names is not None and len(names) != self.num_classes:
            raise ValueError(
                f"{type(self).__name__}.label_names: {len(names)} names do not go with num_classes={self.num_classes}"
            )

    @property
    def num_query_channels(self) -> int:
        """Channels of the output queries."""
        channels = (self.audio_position_channels, self.video_position_channels, self.num_label_query_channels)
        return max(channels) + self.min_padding


def grid_of(shape: tuple[int, ...], patch_size: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the number of patches in time, height and width."""
    time, height, width = (length // part for length, part in zip(shape, patch_size, strict=True))
    return time, height, width
