"""Fixtures for all tests."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from library_caches import cache_operators, cache_types
from process_detection import starts_process

# The controller of the test processes reads this file too; it starts them five seconds earlier without these imports.
if TYPE_CHECKING:
    from pytorch_lightning import Trainer
    from torch import nn

    from perceiver_core import PerceiverConfig
    from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig

# Among the objects of torch and Lightning, Python's default of 700 new objects spends 14 % of the time on garbage
# collection (measured with tests/cli/test_fit.py).
gc.set_threshold(50_000)


LONG_FILES = ("test_typing.py", "test_export_adapters.py", "test_resume_matrix.py", "test_testing.py")
"""Slowest files by measured duration. They run first, so that no process waits for one of them at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out exhaustive tests, put long files first, and mark tests that start another program as ``cli``."""
    if "exhaustive" not in config.option.markexpr:
        exhaustive = {item for item in items if item.get_closest_marker("exhaustive")}
        config.hook.pytest_deselected(items=[*exhaustive])
        items[:] = [item for item in items if item not in exhaustive]
    items.sort(key=lambda item: item.path.name not in LONG_FILES)
    cache: dict[Callable[..., Any], bool] = {}
    for item in items:  # in a test itself or in a fixture
        if isinstance(item, pytest.Function):
            fixtures = item._fixtureinfo.name2fixturedefs.values()
            functions = [item.function, *(definitions[-1].func for definitions in fixtures)]
            if any(starts_process(function, cache) for function in functions):
                item.add_marker(pytest.mark.cli)
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Exclude what is imported from garbage collection, which takes half a second to traverse it."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    # Tensors this small gain nothing from threads, which wait for each other on a busy machine.
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):  # tokenizers, and processes that tests start
            patch.setenv(variable, "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def _cached_types() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        cache_types(patch)
        yield


@pytest.fixture(scope="session")
def cached_operators() -> Iterator[None]:
    """Let exports to ONNX share the exporter's operators."""
    with pytest.MonkeyPatch.context() as patch:
        cache_operators(patch)
        yield


@pytest.fixture(autouse=True)
def _seed() -> None:
    import torch

    # torch.manual_seed also formats a stack trace for each kind of absent device (LitPerceiver.on_train_batch_start).
    seed = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
    seed(20)


@pytest.fixture
def randomise() -> Callable[[nn.Module], nn.Module]:
    """A function that draws every parameter of a module at random, those of norms too, and returns the module."""
    import torch

    def randomise(module: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                # Products keep their scale, so that no attention saturates.
                scale = 1.0 / math.sqrt(parameter.shape[-1]) if parameter.dim() > 1 else 0.5
                parameter.normal_(0.0, scale)
        return module

    return randomise


@pytest.fixture
def text_config() -> Callable[..., PerceiverConfig[TextEncoderConfig, TextDecoderConfig]]:
    """A function that makes a small language model's config of odd sizes, with other values where given."""
    from perceiver_core import PerceiverConfig
    from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig

    def text_config(encoder=None, decoder=None, **values) -> PerceiverConfig[TextEncoderConfig, TextDecoderConfig]:
        sizes = {"vocab_size": 37, "max_seq_len": 23}
        encoder_values = {
            "num_input_channels": 18,
            "num_cross_attention_heads": 3,
            "num_self_attention_heads": 5,
            "num_self_attention_layers_per_block": 2,
            "num_cross_attention_qk_channels": 9,
        }
        decoder_values = {"num_cross_attention_heads": 2}
        return PerceiverConfig(
            TextEncoderConfig(**(sizes | encoder_values | (encoder or {}))),
            TextDecoderConfig(**(sizes | decoder_values | (decoder or {}))),
            **({"num_latents": 7, "num_latent_channels": 15} | values),
        )

    return text_config


@pytest.fixture
def quiet_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """A function that makes a quiet trainer on the CPU."""
    from pytorch_lightning import Trainer

    def quiet_trainer(**options: Any) -> Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
        plain = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
        return Trainer(default_root_dir=tmp_path, **(quiet | plain | options))

    return quiet_trainer
