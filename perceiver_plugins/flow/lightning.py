"""Lightning module of optical flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from perceiver_core import Batch, DecoderConfig, EncoderConfig
from perceiver_core.config import Init
from perceiver_plugins.sdk.data.module import check_positive
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver, LossSum
from perceiver_registry import UserError


class LitOpticalFlow(LitPerceiver):
    """Lightning module that predicts the optical flow from each frame to the next one.

    The loss is the end-point error, the mean distance in pixels between predicted and true flow. It is logged per epoch
    as ``train_epe``, ``val_epe`` and ``test_epe``; ``val_zero_epe`` and ``test_zero_epe`` are the errors of zero flow.
    Pixels with unknown flow (NaN) are ignored.

    The arguments up to ``patience`` are those of :class:`~perceiver_plugins.sdk.tasks.lightning.LitPerceiver`.

    Args:
        encoder: configuration of an encoder with an input position for each pixel.
        decoder: configuration of an optical flow decoder.
        num_places: random output positions of each example to decode in training, to save time and memory; the
            expected loss is the same. None: all.
    """

    task = "optical-flow"
    throughput = "pairs_per_second"

    def __init__(
        self,
        encoder: EncoderConfig,
        decoder: DecoderConfig,
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
        num_places: int | None = None,
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
        check_positive(num_places=num_places)
        self.num_places = num_places
        self.train_epe = MeanMetric()
        self.add_metrics({"epe": MeanMetric(), "zero_epe": MeanMetric()})

    @property
    def pixels(self) -> float:
        """Unit of the model's output in pixels."""
        return getattr(self.config.decoder, "flow_scale_factor", 1.0)

    def num_tokens(self, batch: Batch) -> Tensor | int:
        return len(batch["labels"])

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Draw one random flow vector for all pixels of each example."""
        frames: Tensor = batch["frames"]
        motion = self.pixels * torch.randn(len(frames), 2, 1, 1, generator=generator)
        return motion.expand(-1, -1, *frames.shape[3:]).contiguous()

    def flow(self, frames: Tensor) -> Tensor:
        """Compute the flow between frames, without gradients.

        Args:
            frames: (b, 2, 3, height, width), from -1 to 1.

        Returns:
            (b, 2, height, width), to the right and down, in pixels.
        """
        with torch.no_grad():
            output = self.model({"frames": frames})
        return self._by_rows(output, frames) * self.pixels

    def loss_sum(self, batch: Batch) -> LossSum:
        """Sum the end-point errors at all output positions, or at ``num_places`` random ones of each example.

        Args:
            batch: entries of the input adapter, and ``labels`` (b, 2, height, width), NaN for unknown flow.
        """
        targets = batch["labels"].flatten(2).transpose(1, 2)
        positions = None
        if self.num_places is not None and self.num_places < targets.shape[1]:
            positions = torch.randint(targets.shape[1], (len(targets), self.num_places), device=targets.device)
            targets = targets.gather(1, positions[..., None].expand(-1, -1, 2))
        output = self.model(batch, positions)
        if positions is None:
            self._check_num_outputs(output, batch["frames"])
        loss = end_point_errors(output.float() * self.pixels, targets)
        self.train_epe.update(loss.mean.detach(), loss.count)
        return loss

    def evaluate(self, batch: Batch, stage: str) -> LossSum:
        """Sum the end-point errors of a batch, and update the metrics."""
        targets: Tensor = batch["labels"]
        loss, zero_loss = (
            end_point_errors(flow.movedim(1, -1), targets.movedim(1, -1))
            for flow in (self.flow(batch["frames"]).float(), torch.zeros_like(targets))
        )
        metrics = cast(MetricCollection, self.metrics[stage])
        for name, errors in (("epe", loss), ("zero_epe", zero_loss)):
            metrics[name].update(errors.mean, errors.count)
        return loss

    def on_train_epoch_end(self) -> None:
        if self.train_epe.update_called:
            self.log("train_epe", self.train_epe.compute(), prog_bar=True, sync_dist=True)
        self.train_epe.reset()

    def _by_rows(self, output: Tensor, frames: Tensor) -> Tensor:
        self._check_num_outputs(output, frames)
        return output.transpose(1, 2).unflatten(2, tuple(frames.shape[3:]))

    def _check_num_outputs(self, output: Tensor, frames: Tensor) -> None:
        height, width = frames.shape[3:]
        if output.shape[1] != height * width:
            raise UserError(
                f"the model has {output.shape[1]} output positions for frames of {height}x{width} pixels: optical flow "
                "needs an input adapter with one input position for each pixel"
            )


def end_point_errors(flow: Tensor, targets: Tensor) -> LossSum:
    """Sum the distances between flow and targets, both (..., 2), at known targets."""
    known = targets.isfinite().all(dim=-1)
    differences = torch.where(known[..., None], flow - targets, 0.0)
    return LossSum(torch.linalg.vector_norm(differences, dim=-1).sum(), known.sum())
