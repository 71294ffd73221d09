"""Input and output adapters of optical flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import (
    AdaptedInput,
    Batch,
    FourierPositions,
    InputAdapter,
    InputQueryProvider,
    Linear,
    QueryProvider,
)
from perceiver_plugins.classification.adapters import LinearOutputAdapter
from perceiver_plugins.flow.config import FlowPatchesEncoderConfig, OpticalFlowDecoderConfig

NUM_FRAMES = 2
NUM_COLOURS = 3


def extract_patches(frames: Tensor, patch_size: int) -> Tensor:
    """Extract the patch around each pixel of each frame, zero-padded at the borders.

    Args:
        frames: (b, frames, channels, height, width).
        patch_size: height and width of a patch; odd.

    Returns:
        (b, frames, height, width, patch_size * patch_size * channels), each patch row by row with its channels last:
        the order of TensorFlow's ``tf.image.extract_patches``, which the published weights use.
    """
    border = patch_size // 2
    padded = nn.functional.pad(frames, (border,) * 4)
    windows = padded.unfold(3, patch_size, 1).unfold(4, patch_size, 1)
    # windows: (b, frames, channels, height, width, rows, columns)
    return windows.permute(0, 1, 3, 4, 5, 6, 2).flatten(4)


class FlowPatchesInputAdapter(InputAdapter):
    """Linearly embedded patches around each pixel of two frames, with Fourier position encodings.

    Reads ``frames`` of a batch.

    Args:
        config: the encoder's configuration.
    """

    def __init__(self, config: FlowPatchesEncoderConfig):
        positions = FourierPositions(config.num_frequency_bands, config.image_size)
        super().__init__(config.num_patch_channels + positions.num_channels)
        self.image_size = config.image_size
        self.patch_size = config.patch_size
        self.fourier_positions = positions
        self.linear = Linear(NUM_FRAMES * NUM_COLOURS * config.patch_size**2, config.num_patch_channels)
        nn.init.normal_(self.linear.weight, 0.0, config.init_scale)
        nn.init.zeros_(self.linear.bias)

    @classmethod
    def from_config(cls, config: FlowPatchesEncoderConfig) -> FlowPatchesInputAdapter:
        return cls(config)

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        return {"frames": torch.randn(batch_size, NUM_FRAMES, NUM_COLOURS, *self.image_size, generator=generator)}

    def forward(self, batch: Batch) -> AdaptedInput:
        """Adapt ``batch["frames"]`` (b, 2, 3, height, width), floating point, of any height and width.

        Returns:
            An input position for each pixel of the first frame, row by row.

        Raises:
            ValueError: if the shape or type is wrong.
        """
        frames: Tensor = batch["frames"]
        if frames.dim() != 5 or frames.shape[1:3] != (NUM_FRAMES, NUM_COLOURS):
            raise ValueError(
                f"frames of shape {tuple(frames.shape)}: must be (pairs, {NUM_FRAMES}, {NUM_COLOURS}, height, width)"
            )
        if not frames.is_floating_point():
            raise ValueError(f"frames of type {frames.dtype}: must be floating point numbers")
        patches = extract_patches(frames, self.patch_size).permute(0, 2, 3, 1, 4).flatten(3)
        features = self.linear(patches).flatten(1, 2)
        positions = self.fourier_positions(frames.shape[3:], features.device, features.dtype)
        return AdaptedInput(torch.cat([features, positions.expand(features.shape[0], -1, -1)], dim=-1))


class OpticalFlowOutputAdapter(LinearOutputAdapter):
    """Linear output adapter for the optical flow at each input position.

    Args:
        query_provider: provider of the output queries, f channels each.
        rescale_factor: divisor of the linear layer's output.
        init_scale: standard deviation of the normal initialisation.
    """

    output_name = "flow"

    def __init__(self, query_provider: QueryProvider, rescale_factor: float = 100.0, init_scale: float = 0.02):
        super().__init__(query_provider, 2, init_scale)
        self.rescale_factor = rescale_factor

    @classmethod
    def from_config(cls, config: OpticalFlowDecoderConfig, input_adapter: InputAdapter) -> OpticalFlowOutputAdapter:
        queries = InputQueryProvider(input_adapter.num_input_channels)
        return cls(queries, config.rescale_factor, config.init_scale)

    def forward(self, decoded: Tensor) -> Tensor:
        """Compute the flow (..., 2), to the right and down, from the decoder's output (..., f).

        The unit is ``flow_scale_factor`` pixels.
        """
        return super().forward(decoded) / self.rescale_factor

    def serve(self, model: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Compute ``flow`` in pixels, to the right and down: (b, 2, height, width).

        Without ``frames`` in the batch, it is the model's unscaled output.
        """
        if "frames" not in batch:
            return super().serve(model, batch)
        pixels = getattr(model.config.decoder, "flow_scale_factor", 1.0)
        flow = model(batch).transpose(1, 2).unflatten(2, batch["frames"].shape[3:])
        return {self.output_name: flow * pixels}
