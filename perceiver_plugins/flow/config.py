"""Configurations of the optical flow adapters."""

from __future__ import annotations

from dataclasses import dataclass

from perceiver_core.config import DecoderConfig, EncoderConfig, require, require_positive
from perceiver_plugins.image.config import require_size


@dataclass
class FlowPatchesEncoderConfig(EncoderConfig):
    """An encoder of two frames: small patches around each pixel (Perceiver IO, arXiv 2107.14795, section 4.3).

    Args:
        patch_size: height and width of the patch around each pixel of both frames; odd.
        num_patch_channels: channels that the patches of both frames at a place are mapped to.
        num_frequency_bands: frequencies of the positions in each of the two dimensions; each is a sine and a cosine.
        image_size: height and width of the frames in training. Half of it is the highest frequency of the positions,
            whatever the size of the input; prediction goes through larger frames in parts of that size.
    """

    patch_size: int = 3
    num_patch_channels: int = 64
    num_frequency_bands: int = 64
    image_size: tuple[int, int] = (368, 496)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "patch_size", "num_patch_channels", "num_frequency_bands")
        require(self.patch_size % 2 == 1, self, "patch_size", "must be odd, so that a pixel is in the middle")
        require_size(self, "image_size")


@dataclass
class OpticalFlowDecoderConfig(DecoderConfig):
    """A decoder that tells, for each place of the input, where it moves to.

    The adapted input itself asks the decoder. Its channels are those of the output queries.

    Args:
        num_cross_attention_heads: heads of the cross-attention; they must divide the input's channels, or
            ``num_cross_attention_qk_channels`` and ``num_cross_attention_v_channels`` be given.
        cross_attention_residual: whether the array that looks is added to what the cross-attention found.
        rescale_factor: what the last layer's numbers are divided by.
        flow_scale_factor: pixels that 1 of the model's output stands for.
    """

    num_cross_attention_heads: int = 1
    cross_attention_residual: bool = False
    rescale_factor: float = 100.0
    flow_scale_factor: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("rescale_factor", "flow_scale_factor"):
            require(getattr(self, field) > 0.0, self, field, "must be greater than 0")
