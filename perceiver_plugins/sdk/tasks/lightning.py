"""Base class of the tasks' Lightning modules."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from pytorch_lightning import Callback
from pytorch_lightning.strategies import FSDPStrategy
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from perceiver_core import Batch, DecoderConfig, EncoderConfig, ModelConfig, PerceiverConfig
from perceiver_core.config import Init
from perceiver_plugins.deprecation import moved_function
from perceiver_plugins.sdk.data.loading import batches_trained
from perceiver_plugins.sdk.tasks.arguments import (
    CONFIG,
    GIVEN_CONFIG,
    accept_config,
    complete_docs,
    model_arguments,
    takes_config,
)
from perceiver_plugins.sdk.tasks.batches import LABELS, as_batch, checked_loss
from perceiver_plugins.sdk.tasks.callbacks import MovingAverage, OptimizerInBackward, Patience
from perceiver_plugins.sdk.tasks.compilation import compile_layers
from perceiver_plugins.sdk.tasks.finite import FiniteGuard, check_saved_weights
from perceiver_plugins.sdk.tasks.learning_rate import TunableLearningRate
from perceiver_plugins.sdk.tasks.metrics import EvaluationMetrics
from perceiver_plugins.sdk.tasks.muon import Muon
from perceiver_plugins.sdk.tasks.optimizers import (
    IN_BACKWARD,
    NAME,
    create_lr_scheduler,
    create_optimizer,
    find_lr_scheduler,
    find_optimizer,
    follow_schedule,
    lr_schedulers,
    optimizers,
    override_state,
    remove_optimizer,
)
from perceiver_plugins.sdk.tasks.parameter_groups import (
    LAYER_DECAY,
    NO_DECAY,
    check_groups,
    find_matrices,
    group_parameters,
    has_weight_decay,
)
from perceiver_plugins.sdk.tasks.quantization import quantize
from perceiver_plugins.sdk.tasks.resuming import ExactResume
from perceiver_registry import UserError, assemble, config_to_dict, describe, registry
from perceiver_registry.assemble import own_task, require_perceiver_io
from perceiver_registry.checkpoint import KEY
from perceiver_registry.configs import full_name

DEFAULT_OPTIMIZER: Mapping[str, Any] = {NAME: "AdamW", "lr": 1e-3}


@dataclass(frozen=True)
class LossSum:
    """Summed loss and number of predictions, from which the mean over batches and processes is computed.

    Attributes:
        total: scalar, sum of the losses of all predictions.
        count: scalar, number of predictions or sum of their weights.
    """

    total: Tensor
    count: Tensor

    @property
    def divisor(self) -> Tensor:
        """Denominator of the mean: ``count``, or 1 if it is 0."""
        return self.count.masked_fill(self.count == 0, 1)

    @property
    def mean(self) -> Tensor:
        """Mean loss; 0 without predictions."""
        return self.total / self.divisor


class LitPerceiver(EvaluationMetrics, TunableLearningRate):
    """Base class of Lightning modules that train a Perceiver.

    A subclass implements :meth:`loss_sum`. It logs ``train_loss``, ``val_loss``, ``test_loss``, ``learning_rate``, the
    throughput, and the metrics that the subclass adds
    (:meth:`~perceiver_plugins.sdk.tasks.metrics.EvaluationMetrics.add_metrics`) and updates in :meth:`evaluate`.

    Runs are repeatable, even if they are interrupted and resumed: the random numbers of a training step, such as those
    of dropout, are a function of the seed, the number of batches trained on and the rank.

    The ``__init__`` of a subclass declares these arguments, with the types of its encoder and decoder, and any others.
    Arguments that its docstring omits are documented as here. :meth:`create` takes the config of any architecture.

    Args:
        encoder: encoder config; its type selects the input adapter.
        decoder: decoder config; its type selects the output adapter.
        num_latents: length of the latent array.
        num_latent_channels: channels of the latent array.
        activation_checkpointing: recompute the activations inside each attention layer in the backward pass.
        activation_offloading: keep the activations that the backward pass needs in CPU memory.
        init: initialisation, as for :class:`~perceiver_core.PerceiverConfig`.
        params: source of the weights, as for :class:`~perceiver_core.PerceiverConfig`. None: random weights.
        compile: compile each attention layer for training.
        optimizer: name (under ``"name"``) and arguments of the optimizer: ``{"name": "Lamb", "lr": 1e-3}``.
            None: AdamW with a learning rate of 1e-3. ``"in_backward": True``: step inside the backward pass
            (:class:`~perceiver_plugins.sdk.tasks.callbacks.OptimizerInBackward`). ``"layer_decay"``: ratio of
            each layer's learning rate to that of the next layer. Biases and norms have no weight decay
            (:func:`~perceiver_plugins.sdk.tasks.parameter_groups.group_parameters`).
        lr_scheduler: name and arguments of the learning rate schedule. None: a constant learning rate.
        task: name of the registered task. None: the task of this class.
        ema_decay: decay per step, such as 0.999, of an exponential moving average of the weights, which is validated,
            tested and saved instead of them. None: no average.
        patience: end training after this number of validations without a lower validation loss. None: never.

    Raises:
        UserError: if an argument is invalid.
    """

    task: str
    """Name of the registered task."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = accept_config(cls.__init__)  # type: ignore[method-assign]
            complete_docs(cls, LitPerceiver)

    @accept_config
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
    ):
        super().__init__()
        if ema_decay is not None and not 0.0 < ema_decay < 1.0:
            raise UserError(f"ema_decay={ema_decay} must be more than 0 and less than 1")
        if patience is not None and patience < 1:
            raise UserError(f"patience={patience} must be at least 1")
        self.task = task or own_task(type(self))
        self.ema_decay = ema_decay
        self.patience = patience
        self.config: ModelConfig[Any, Any] = vars(self).pop(GIVEN_CONFIG, None) or PerceiverConfig(
            encoder,
            decoder,
            num_latents=num_latents,
            num_latent_channels=num_latent_channels,
            activation_checkpointing=activation_checkpointing,
            activation_offloading=activation_offloading,
            init=init,
            params=params,
            compile=compile,
        )
        self.optimizer_config = dict(optimizer or DEFAULT_OPTIMIZER)
        self.lr_scheduler_config = dict(lr_scheduler or {})
        # For ``load_from_checkpoint``, see ``accept_config``. It takes weights from the checkpoint, not ``params``.
        self.save_hyperparameters(
            {
                "config": config_to_dict(self.config.without_params(), full_names=True),
                "optimizer": self.optimizer_config,
                "lr_scheduler": self.lr_scheduler_config,
                "task": full_name("task", self.task),
            },
            logger=False,
        )
        self.model = self.build(self.config)
        self.run_config: Mapping[str, Any] = {}
        """Configuration of the run, saved in checkpoints to resume it."""
        self._checked: set[str] = set()
        self._seed: int | None = None
        self._exclude_from_decay: bool | None = None
        """Weight decay excludes biases and norms in the checkpoint's optimizer. None: no checkpoint."""
        self._num_tokens: Tensor | int = 0
        self._measured_step = 0
        self._clock_start = time.perf_counter()

    @classmethod
    def create(
        cls,
        config: ModelConfig[Any, Any],
        *,
        optimizer: Mapping[str, Any] | None = None,
        lr_scheduler: Mapping[str, Any] | None = None,
        task: str | None = None,
        ema_decay: float | None = None,
        patience: int | None = None,
        **options: Any,
    ) -> Self:
        """Create the Lightning module of a model's config; its ``model`` is the PyTorch model.

        Args:
            config: model config.
            optimizer: as for the class. None, here and below: the default of the class.
            lr_scheduler: as for the class.
            task: as for the class.
            ema_decay: as for the class.
            patience: as for the class.
            options: arguments of a subclass that are not fields of ``config``.
        """
        named = {
            "optimizer": optimizer,
            "lr_scheduler": lr_scheduler,
            "task": task,
            "ema_decay": ema_decay,
            "patience": patience,
        }
        options |= {name: value for name, value in named.items() if value is not None}
        if takes_config(cls.__init__):
            return cls(config, **options)  # type: ignore[arg-type]
        arguments = model_arguments(config) if isinstance(config, PerceiverConfig) else {CONFIG: config}
        return cls(**arguments, **options)

    find_optimizer = staticmethod(moved_function("LitPerceiver.find_optimizer", find_optimizer))
    find_lr_scheduler = staticmethod(moved_function("LitPerceiver.find_lr_scheduler", find_lr_scheduler))
    known_optimizers = staticmethod(moved_function("LitPerceiver.known_optimizers", optimizers))
    known_lr_schedulers = staticmethod(moved_function("LitPerceiver.known_lr_schedulers", lr_schedulers))

    def configure_callbacks(self) -> list[Callback]:
        callbacks: list[Callback] = [ExactResume()]
        if self.ema_decay is not None:
            callbacks.append(MovingAverage(decay=self.ema_decay))
        if self.patience is not None:
            callbacks.append(Patience("val_loss", patience=self.patience, check_on_train_epoch_end=False))
        if self.optimizer_config.get(IN_BACKWARD):
            callbacks.append(OptimizerInBackward())
        callbacks.append(FiniteGuard())
        return callbacks

    def check_data(self, datamodule: Any) -> None:
        """Check that the model can be used with a data module.

        Raises:
            UserError: if it cannot.
        """
        input_adapter = getattr(self.model, "input_adapter", None)
        if input_adapter is not None:
            try:
                input_adapter.check_data(datamodule)
            except ValueError as error:
                raise UserError(str(error)) from error

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Draw random labels for a batch of random inputs, for tests.

        Args:
            batch: a result of the input adapter's ``example_batch``.
            generator: random generator.
        """
        raise NotImplementedError(f"{type(self).__name__}.example_labels")

    def build(self, config: Any) -> nn.Module:
        """Build the model of a config."""
        return assemble(config)

    def forward(self, batch: Batch) -> Any:
        """Compute the model's output for a batch, without its loss: ``lit_model(batch)``.

        Args:
            batch: entries of the input adapter; others, such as labels, are ignored.
        """
        return self.model(batch)

    def predict_step(self, batch: Batch, batch_idx: int = 0, dataloader_idx: int = 0) -> Any:
        """Compute the model's output for a batch of ``Trainer.predict``."""
        return self(self.as_batch(batch))

    def quantize(self) -> None:
        """Quantize the model to 8-bit integers for prediction on a CPU; it can then no longer be trained.

        Raises:
            UserError: if the model is not on a CPU.
        """
        quantize(self.model)

    def loss_sum(self, batch: Batch) -> LossSum:
        """Compute the summed loss of a batch and its number of predictions."""
        raise NotImplementedError(f"{type(self).__name__}.loss_sum")

    def evaluate(self, batch: Batch, stage: str) -> LossSum:
        """Compute the loss of a validation or test batch; a subclass may update its metrics here.

        Args:
            batch: the batch.
            stage: "val" or "test", the prefix of the metrics' names.
        """
        return self.loss_sum(batch)

    throughput = "tokens_per_second"
    """Name of the throughput in logs."""

    def num_tokens(self, batch: Batch) -> Tensor | int:
        """Count the tokens of a batch for the throughput."""
        mask = batch.get("attention_mask")
        return batch[LABELS].numel() if mask is None else mask.sum()

    def as_batch(self, given: Any) -> Any:
        """Convert an item of a data loader to a batch, such as a pair of inputs and labels of a ``TensorDataset``.

        Raises:
            UserError: if tensors cannot be assigned to batch entries.
        """
        if isinstance(given, Mapping):
            return given
        return as_batch(given, registry().adapter_of("input", self.config.encoder).spec.reads)

    # Steps

    def setup(self, stage: str) -> None:
        if self.trainer.datamodule is not None:  # type: ignore[attr-defined]
            self.check_data(self.trainer.datamodule)  # type: ignore[attr-defined]
        if stage == "fit" and getattr(self.config, "compile", False):
            compile_layers(self.model, self.trainer.strategy.root_device)

    def on_fit_start(self) -> None:
        # A resumed run has the seed of its checkpoint.
        if self._seed is None:
            self._seed = torch.initial_seed() % 2**32

    def on_train_start(self) -> None:
        if self._reset_rates:
            schedules = [config.scheduler for config in self.trainer.lr_scheduler_configs]
            follow_schedule(self.trainer.optimizers[0], *schedules)

    def on_train_epoch_start(self) -> None:
        self._restart_clock()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        step = (self._seed, batches_trained(self.trainer), self.global_rank)
        # torch.manual_seed also formats a stack trace for each kind of absent device: 0.5 ms (timed on a CPU).
        seed = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed
        seed(hash(step))  # a hash of integers is the same in every process

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        local = self._first_checked(self.loss_sum, batch, "train")
        everywhere = self._sum_over_processes(local)
        self.log("train_loss", everywhere.mean, prog_bar=True)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        # DDP averages gradients over processes. This factor weights all predictions equally, even if processes have
        # different numbers of them.
        return local.total * self.trainer.world_size / everywhere.divisor

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self._num_tokens = self._num_tokens + self.num_tokens(self.as_batch(batch))
        # Lightning writes logs at these steps. A step may have several batches.
        step = self.trainer.global_step
        if step % self.trainer.log_every_n_steps == 0 and step != self._measured_step:  # type: ignore[attr-defined]
            self._measured_step = step
            rate = float(self._num_tokens) * self.trainer.world_size / (time.perf_counter() - self._clock_start)
            self.log(self.throughput, rate)
            self._restart_clock()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss = self._first_checked(lambda batch: self.evaluate(batch, "val"), batch, "val")
        self._log_mean("val_loss", loss)

    def on_validation_end(self) -> None:
        self._restart_clock()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        loss = self._first_checked(lambda batch: self.evaluate(batch, "test"), batch, "test")
        self._log_mean("test_loss", loss)

    def _first_checked(self, compute: Callable[[Batch], LossSum], batch: Batch, stage: str) -> LossSum:
        """Compute the loss of a batch; check the first batch of each stage."""
        batch = self.as_batch(batch)
        if stage in self._checked:
            return compute(batch)
        loss: LossSum = checked_loss(compute, batch, getattr(self.model, "input_adapter", None))
        self._checked.add(stage)
        return loss

    def _log_mean(self, name: str, loss: LossSum) -> None:
        # With the count as weight, the mean over batches and processes is the mean over predictions. A float, as
        # Lightning averages the weights over processes, which would round integers.
        weight: Any = float(loss.count)
        self.log(name, loss.mean, batch_size=weight, prog_bar=True, sync_dist=True)

    def _sum_over_processes(self, loss: LossSum) -> LossSum:
        if self.trainer.world_size == 1:
            return LossSum(loss.total.detach(), loss.count)
        both = torch.stack([loss.total.detach().float(), loss.count.float()])
        return LossSum(*self.trainer.strategy.reduce(both, reduce_op="sum"))

    def _restart_clock(self) -> None:
        self._num_tokens, self._clock_start = 0, time.perf_counter()

    # Optimization

    def configure_optimizers(self) -> Any:
        precision = self.trainer.precision
        # A fused optimizer unscales fp16 gradients in its step, so that they cannot be clipped before it.
        prefer_fused = not (precision == "16-mixed" and self.trainer.gradient_clip_val)
        groups = self._parameter_groups()
        if not groups:
            raise UserError("nothing to train: encoder and decoder are both frozen")
        optimizer = create_optimizer(self.optimizer_config, groups, prefer_fused)
        if precision == "bf16-mixed" and hasattr(optimizer, "_step_supports_amp_scaling"):
            # Lightning refuses to clip for these optimizers, although only fp16 with its gradient scaler rules it out.
            optimizer._step_supports_amp_scaling = False
        if not self.lr_scheduler_config:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": create_lr_scheduler(self.lr_scheduler_config, optimizer, self._training_steps),
        }

    def _parameter_groups(self) -> list[dict[str, Any]]:
        if self.optimizer_config.get(LAYER_DECAY) is not None:
            require_perceiver_io(self.config, "--optimizer.layer_decay")
        optimizer, exclude = find_optimizer(self.optimizer_config[NAME]), self._exclude_from_decay
        self._exclude_from_decay = None
        strategy = self.trainer.strategy
        if strategy.restore_checkpoint_after_setup:
            # FSDP and DeepSpeed may have flattened the parameters, and read checkpoints after creating the optimizer.
            flag = f"--trainer.strategy={type(strategy).__name__}"
            if self.optimizer_config.get(LAYER_DECAY) is not None:
                raise UserError(f"--optimizer.layer_decay: cannot be combined with {flag} (leave it out)")
            if issubclass(optimizer, Muon):
                raise UserError(f"--optimizer=Muon: cannot be combined with {flag} (choose AdamW)")
            if has_weight_decay(self.optimizer_config, optimizer):
                rank_zero_warn(f"{flag}: weight decay applies to biases and norms too")
            exclude = False
        return group_parameters(
            self.named_parameters(), self.optimizer_config, optimizer, exclude=exclude, matrices=find_matrices(self)
        )

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        strategy = self.trainer.strategy
        if gradient_clip_val and gradient_clip_algorithm != "value" and isinstance(strategy, FSDPStrategy):
            # Lightning refuses to clip by norm under FSDP, whose own method computes the norm over sharded gradients.
            strategy.model.clip_grad_norm_(gradient_clip_val)  # type: ignore[union-attr, operator]
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _training_steps(self) -> int:
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError(
                "--trainer.max_steps: required by the learning rate schedule (or set --lr_scheduler.training_steps)"
            )
        return int(steps)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_saved_weights(self.trainer, self, checkpoint)
        describe_data = getattr(self.trainer.datamodule, "description", dict)  # type: ignore[attr-defined]
        checkpoint[KEY] = describe(self.task, self.config, data=describe_data(), run=self.run_config) | {
            "seed": self._seed
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._seed = checkpoint[KEY]["seed"]
        if self._trainer is None or self._trainer.state.fn != TrainerFn.FITTING:
            return  # the optimizer and schedule are not restored, and their options may differ from the saved ones
        saved = checkpoint["hyper_parameters"]
        other_optimizer = saved["optimizer"][NAME] != self.optimizer_config[NAME]
        other_schedule = saved["lr_scheduler"] != self.lr_scheduler_config
        if "optimizer_states" in checkpoint:
            check_groups(checkpoint["optimizer_states"])
            if other_optimizer:
                remove_optimizer(checkpoint)
            elif saved["optimizer"] != self.optimizer_config:
                override_state(saved["optimizer"], self.optimizer_config, checkpoint)
            self._keep_groups(checkpoint["optimizer_states"])
        if other_schedule:
            step = checkpoint["epoch" if self.lr_scheduler_config.get("interval") == "epoch" else "global_step"]
            without = [{"last_epoch": step, "_step_count": step + 1}] if self.lr_scheduler_config else []
            checkpoint["lr_schedulers"] = [
                self._progress_of(schedule) for schedule in checkpoint.get("lr_schedulers") or without
            ]
        self._reset_rates = other_optimizer or other_schedule

    def _keep_groups(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Keep the weight decay of a saved optimizer's groups: in earlier versions, it includes biases and norms."""
        if not states:
            return
        self._exclude_from_decay = any(group.get(NO_DECAY) for group in states[0].get("param_groups", []))
        optimizer = find_optimizer(self.optimizer_config[NAME])
        if has_weight_decay(self.optimizer_config, optimizer) and not self._exclude_from_decay:
            rank_zero_warn("weight decay applies to biases and norms too, as in the run that is resumed")

    @staticmethod
    def _progress_of(schedule: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of a schedule's state that another schedule can restore: its step and rates."""
        kept = {key: schedule[key] for key in ("last_epoch", "_step_count", "_last_lr", "base_lrs") if key in schedule}
        return kept | {"lr_lambdas": [None for _ in schedule.get("base_lrs", ())]}
