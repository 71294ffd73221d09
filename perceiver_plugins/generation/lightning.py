"""Lightning module of causal models of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from perceiver_core import Batch, DecoderConfig, EncoderConfig
from perceiver_core.config import Init
from perceiver_plugins.checkpoints.random_data import RandomDataModule
from perceiver_plugins.generation.metrics import BitsPerUnit, NatsPerUnit, Perplexity
from perceiver_plugins.sdk.data.causal import WindowRule
from perceiver_plugins.sdk.data.loading import IGNORED, batches_trained
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver, LossSum
from perceiver_registry import UserError

NOT_INPUTS = ("labels", "num_units")
"""Entries of batches that the model does not read."""


class LitCausalModel(LitPerceiver):
    """Causal model (Perceiver AR, arXiv 2202.07765), trained to predict the next token.

    For validation and test data, which the data module arranges so that each token is predicted once, from what the
    model reads when it generates, it logs the loss in nats per token, the perplexity, and the loss per unit, such as
    bits per byte of text: ``val_loss``, ``val_perplexity``, ``val_bits_per_byte``.

    The arguments up to ``patience`` are those of :class:`~perceiver_plugins.sdk.tasks.lightning.LitPerceiver`.

    Args:
        encoder: encoder configuration of an input adapter that embeds each token by itself.
        decoder: decoder configuration of an output adapter of tokens.
        short_share: share of the training batches with fewer inputs than ``max_seq_len``: a number between
            ``num_latents`` and ``max_seq_len``, drawn uniformly. Without them, a model that generates from nothing
            has not seen so few tokens. On the default text, 0.1 is no worse than 0 (289 steps, one seed: 2.053 and
            2.063 nats per byte).
        loss_on: "last": the training loss is that of the last ``num_latents`` inputs, as in the paper. "all": that of
            all inputs, whose latents are computed in blocks.
        num_samples: sequences to generate at each validation, as an example; 0: none.

    Raises:
        UserError: if a value is out of range.
    """

    unit = "token"
    """Name of the units in the data module's ``num_units``."""

    loss_per_unit: ClassVar[Literal["bits", "nats"]] = "bits"
    """Measure of the loss per unit."""

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
        short_share: float = 0.1,
        loss_on: Literal["last", "all"] = "last",
        num_samples: int = 2,
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
        if not 0.0 <= short_share <= 1.0:
            raise UserError(f"short_share={short_share} must be at least 0 and at most 1")
        if num_samples < 0:
            raise UserError(f"num_samples={num_samples} must be at least 0")
        if loss_on not in ("last", "all"):
            raise UserError(f"loss_on={loss_on!r} must be 'last' or 'all'")
        self.short_share = short_share
        self.loss_on = loss_on
        self.num_samples = num_samples
        types = {"bits": BitsPerUnit, "nats": NatsPerUnit}
        self.add_metrics({"perplexity": Perplexity(), self.unit_metric: types[self.loss_per_unit]()})

    @property
    def unit_metric(self) -> str:
        """Name of the metric of the loss per unit, such as "bits_per_byte"."""
        return f"{self.loss_per_unit}_per_{self.unit}"

    @property
    def rule(self) -> WindowRule:
        """Rule of what the model reads."""
        config: Any = self.model.config
        return WindowRule(config.max_seq_len, config.num_latents, config.stride)

    def check_data(self, datamodule: Any) -> None:
        """Check that the data module's examples are windows of tokens, and fit them to the model.

        Random data has the labels of :meth:`example_labels`.

        Raises:
            UserError: if they are not, or are too long for the model.
        """
        super().check_data(datamodule)
        if isinstance(datamodule, RandomDataModule):
            return
        fit_windows = getattr(datamodule, "fit_windows", None)
        if fit_windows is None:
            name = type(datamodule).__name__
            raise UserError(f"--data: {name} has no windows of tokens, which causal models need (choose other data)")
        rule = self.rule
        if datamodule.max_seq_len > rule.max_seq_len:
            raise UserError(
                f"--data.max_seq_len: {datamodule.max_seq_len} is more than the model reads, {rule.max_seq_len} "
                "(lower it, or raise --model.max_seq_len)"
            )
        fit_windows(rule, rule.max_seq_len if self.loss_on == "all" else rule.num_latents)

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        ids: Tensor = batch["input_ids"]
        return ids.roll(-1, dims=1)[:, -self.rule.num_latents :]

    def num_tokens(self, batch: Batch) -> Tensor | int:
        return (batch["labels"] != IGNORED).sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # without the rank, so that all processes have equal lengths
        step = batches_trained(self.trainer)
        return super().training_step(
            shorten(self.as_batch(batch), self.rule.num_latents, self.short_share, (self._seed or 0, step)), step
        )

    def logits(self, batch: Batch) -> Tensor:
        """Compute the logits (b, n, vocabulary) of the labels of a batch.

        Args:
            batch: ``input_ids`` (b, m), and ``labels`` (b, n) of the last n inputs.
        """
        inputs = {name: value for name, value in batch.items() if name not in NOT_INPUTS}
        if self.training and self.loss_on == "all":
            logits: Tensor = self.model(inputs, all_outputs=True)
        else:
            logits = self.model(inputs, prefix_length=batch["input_ids"].shape[1] - batch["labels"].shape[1])
        return logits

    def loss_sum(self, batch: Batch) -> LossSum:
        """Sum the cross-entropy, in nats, over the labels, except those that are ignored (-100).

        Args:
            batch: ``input_ids`` (b, m), and ``labels`` (b, n) of the last n inputs.
        """
        logits, labels = self.logits(batch), batch["labels"]
        total = cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return LossSum(total, (labels != IGNORED).sum())

    def evaluate(self, batch: Batch, stage: str) -> LossSum:
        """Compute the loss and the metrics of a validation or test batch.

        Args:
            batch: ``input_ids`` (b, m), ``labels`` (b, n) and ``num_units`` (b,). Without units, each token is one.
            stage: "val" or "test".
        """
        loss = self.loss_sum(batch)
        units = batch["num_units"].sum() if "num_units" in batch else loss.count
        metrics: Any = self.metrics[stage]
        metrics["perplexity"].update(loss.total, loss.count)
        metrics[self.unit_metric].update(loss.total, units)
        return loss


def shorten(batch: Batch, num_latents: int, share: float, seed: tuple[int, ...]) -> Batch:
    """Drop a random number of the first inputs of a batch, so that at least ``num_latents`` are left.

    Args:
        batch: ``input_ids`` (b, m), and ``labels`` (b, n) of the last n inputs.
        num_latents: smallest number of inputs.
        share: probability of a shorter batch.
        seed: integers that determine the draw.
    """
    rng = np.random.default_rng(seed)
    longest = batch["input_ids"].shape[1]
    if rng.random() >= share or longest <= num_latents:
        return batch
    length = int(rng.integers(num_latents, longest + 1))
    return {name: value[:, -length:] for name, value in batch.items()}
