"""Configurations of the optical flow adapters."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import DecoderConfig, EncoderConfig, require, require_positive
from perceiver_plugins.image.config import require_size


@dataclass
class FlowPatchesEncoderConfig(EncoderConfig):
    """Encoder of patches around each pixel of two frames (Perceiver IO, arXiv 2107.14795, section 4.3).

    Args:
        patch_size: height and width of the patch around each pixel of both frames; odd.
        num_patch_channels: channels of the embedded patches of both frames at a pixel.
        num_frequency_bands: frequencies per dimension; each contributes a sine and a cosine.
        image_size: height and width of the frames in training. The highest frequency of the position encodings is half
            of it for inputs of any size. Prediction splits larger frames into tiles of that size.
    """

    patch_size: int = 3
    num_patch_channels: int = 64
    num_frequency_bands: int = 64
    image_size: tuple[int, int] = (368, 496)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "patch_size", "num_patch_channels", "num_frequency_bands")
        require(self.patch_size % 2 == 1, self, "patch_size", "must be odd, so that a patch has a central pixel")
        require_size(self, "image_size")


@dataclass
class OpticalFlowDecoderConfig(DecoderConfig):
    """Decoder of the optical flow at each input position. The adapted input provides the output queries.

    Args:
        num_cross_attention_heads: attention heads. Their number must divide the input channels, unless
            ``num_cross_attention_qk_channels`` and ``num_cross_attention_v_channels`` are given.
        cross_attention_residual: add a residual connection around the cross-attention.
        rescale_factor: divisor of the last layer's output.
        flow_scale_factor: unit of the model's output in pixels.
    """

    num_cross_attention_heads: int = 1
    cross_attention_residual: bool = False
    rescale_factor: float = 100.0
    flow_scale_factor: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("rescale_factor", "flow_scale_factor"):
            require(getattr(self, field) > 0.0, self, field, "must be greater than 0")
