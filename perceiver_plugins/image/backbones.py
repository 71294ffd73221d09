"""Feature maps of timm models. A module of its own because importing timm takes seconds."""

from __future__ import annotations

import contextlib
from typing import Any

import timm
import torch
from torch import Tensor, nn

from perceiver_plugins.image.config import ImageTimmEncoderConfig
from perceiver_plugins.sdk.errors import one_line
from perceiver_plugins.sdk.evaluation_mode import evaluating
from perceiver_plugins.sdk.hub import hub
from perceiver_registry import UnknownNameError, UserError
from perceiver_registry.errors import near, surface_own_fault


class TimmBackbone(nn.Module):
    """Backbone that returns one feature map of a timm model.

    Args:
        config: configuration with the names of the model and the feature map.

    Raises:
        UnknownNameError: if timm has no model of that name.
        UserError: if the model has no such feature map, or if its weights cannot be loaded.
    """

    def __init__(self, config: ImageTimmEncoderConfig):
        super().__init__()
        self.name = config.timm_model
        self.num_input_channels = config.num_channels
        if not timm.is_model(self.name):
            # The message does not list all names: there are more than a thousand.
            hint = near(self.name, timm.list_models(), listed=["timm.list_models()"])
            raise UnknownNameError(f"unknown timm_model {self.name!r}; {hint}")
        try:
            self.image_size = self._fixed_size(config)
            size: dict[str, Any] = {} if self.image_size is None else {"img_size": self.image_size}
            with hub() if config.pretrained else contextlib.nullcontext():
                model = timm.create_model(
                    self.name,
                    pretrained=config.pretrained,
                    features_only=True,
                    out_indices=(config.out_index,),
                    in_chans=config.num_channels,
                    **size,
                )
        except Exception as error:  # models and downloads raise errors of any type
            surface_own_fault(error)
            raise UserError(
                f"timm_model={self.name!r} with pretrained={config.pretrained}, out_index={config.out_index}, "
                f"num_channels={config.num_channels}: cannot be created: {one_line(error)}"
            ) from error
        self.model = model
        info: Any = model.feature_info
        self.num_channels: int = info.channels()[0]
        """Channels of the feature map."""
        self.reduction: int = info.reduction()[0]
        """Stride of the feature map in pixels."""
        self.channels_last = getattr(model, "output_fmt", None) == "NHWC"

    @staticmethod
    def _fixed_size(config: ImageTimmEncoderConfig) -> tuple[int, int] | None:
        """Return the height and width of images if the model has a fixed input size, otherwise None."""
        known = timm.get_pretrained_cfg(config.timm_model)
        if known is None or not known.fixed_input_size:
            return None
        return config.image_size or known.input_size[-2:]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Compute the feature map (b, channels, height, width) of images (b, channels, height, width).

        Raises:
            ValueError: if the model cannot process images of that size.
        """
        try:
            return self._feature_map(pixel_values)
        except (AssertionError, RuntimeError, IndexError):
            self.grid(*pixel_values.shape[2:])  # raises ValueError if the size is the cause
            raise

    @torch.no_grad()
    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the feature map of an image.

        They are those of an image of zeros: models round differently, and some resize their input.

        Raises:
            ValueError: if the model cannot process images of that size.
        """
        image = next(self.parameters()).new_zeros(1, self.num_input_channels, height, width)
        try:
            with evaluating(self):
                shape = self._feature_map(image).shape
        except (AssertionError, RuntimeError, IndexError) as error:
            raise ValueError(
                f"timm_model={self.name!r}: cannot process images of {height}x{width} pixels: {one_line(error)} (set "
                "image_size if the model has a fixed input size)"
            ) from error
        return shape[2], shape[3]

    def _feature_map(self, pixel_values: Tensor) -> Tensor:
        features = self.model(pixel_values)[0]
        return features.permute(0, 3, 1, 2) if self.channels_last else features
