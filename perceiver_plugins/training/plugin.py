"""What the plugins' shared room registers itself. Imports nothing heavy."""

from __future__ import annotations

from perceiver_registry import DataSpec, hookimpl
from perceiver_registry.specs import ANY_TASK

PERCEIVER_INTERFACE = "1.0"


@hookimpl
def perceiver_data() -> list[DataSpec]:
    return [
        DataSpec(
            name="random",
            module="perceiver_plugins.training.random_data:RandomDataModule",
            tasks=(ANY_TASK,),
            summary="random inputs and labels for any model: to try out an adapter, or a model's speed",
            defaults={"trainer.max_epochs": 10},
        )
    ]
