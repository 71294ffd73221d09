"""Layer compilation: it changes neither results nor names, and only training compiles."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from pytorch_lightning import seed_everything

from perceiver_core import CrossAttentionLayer, SelfAttentionLayer
from perceiver_plugins.sdk.tasks.callbacks import OptimizerInBackward
from perceiver_plugins.sdk.tasks.compilation import compile_layers
from perceiver_plugins.sdk.tasks.in_backward import stepping_in_backward
from perceiver_plugins.text import LanguageModel, LitLanguageModel
from perceiver_registry import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*not resumable.*", "ignore:.*many workers.*", "ignore:.*LeafSpec.*")

TRACED = {"backend": "aot_eager"}
"""Backend that skips code generation, the slow part of compilation."""


@pytest.fixture(autouse=True)
def _reset_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch):
    """Let Lightning modules use the backend without code generation; record the devices."""
    compiled = []

    def traced(model, device):
        compiled.append(device)
        compile_layers(model, device, backend="eager")

    monkeypatch.setattr("perceiver_plugins.sdk.tasks.lightning.compile_layers", traced)
    return compiled


def outputs(model, tokens) -> list[torch.Tensor]:
    """Return the output and the gradients of its squares."""
    model.zero_grad()
    output = model(tokens)
    output.square().mean().backward()
    return [output, *(parameter.grad for parameter in model.parameters())]


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"activation_checkpointing": True}], ids=["plain", "checkpointing"])
def test_compiled_model_has_equal_outputs_gradients_and_names(text_config, randomise, config):
    model = randomise(LanguageModel(text_config({"num_self_attention_blocks": 2}, **config)))
    other = copy.deepcopy(model)
    compile_layers(other, **TRACED)
    tokens = torch.randint(37, (2, 23))
    torch.testing.assert_close(outputs(other, tokens), outputs(model, tokens), atol=1e-5, rtol=1e-4)
    assert other.state_dict().keys() == model.state_dict().keys()
    assert [name for name, _ in other.named_modules()] == [name for name, _ in model.named_modules()]


@pytest.mark.slow
def test_equal_attention_layers_are_compiled_once(text_config):
    model = LanguageModel(text_config({"num_self_attention_layers_per_block": 5}))
    compile_layers(model, backend="eager")  # dynamo counts the graphs of any backend
    compiled = {type(module) for module in model.modules() if module._compiled_call_impl is not None}
    assert compiled == {CrossAttentionLayer, SelfAttentionLayer}
    torch._dynamo.utils.counters.clear()
    model(torch.randint(37, (2, 23)))
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 3  # the encoder's, the five self-attentions', the decoder's
    assert not counters["graph_break"]


@pytest.mark.slow
def test_generated_code_is_equal_within_tolerance(text_config, randomise):
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler")
    model = randomise(LanguageModel(text_config({"num_self_attention_layers_per_block": 1})).eval())
    tokens = torch.randint(37, (2, 23))
    with torch.no_grad():
        exact = model(tokens)
        for block in model.encoder.self_attention_blocks:
            compile_layers(block)
        torch.testing.assert_close(model(tokens), exact, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_missing_compiler_is_reported(text_config, tmp_path):
    no_compiler = {"cpp.cxx": (str(tmp_path / "no-compiler"),), "fx_graph_cache": False}
    message = r"^--model.compile=true: compiling failed: [^\n]* \(install a C\+\+ compiler \(g\+\+; [^\n]*$"
    with torch._inductor.config.patch(no_compiler), pytest.raises(UserError, match=message):
        compile_layers(LanguageModel(text_config()))


@pytest.mark.slow
def test_compiled_model_steps_in_backward(text_config):
    model = LanguageModel(text_config())
    other = copy.deepcopy(model)
    compile_layers(other, **TRACED)
    tokens = torch.randint(37, (2, 23))
    for each, steps_inside in ((model, False), (other, True)):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        if steps_inside:
            with stepping_in_backward(optimizer, min_size=0):
                each(tokens).square().mean().backward()
            assert all(parameter.grad is None for parameter in each.parameters())
        else:
            each(tokens).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(other.state_dict(), model.state_dict(), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_checkpoint_of_a_compiled_run_is_ordinary(tiny_config, tiny_data, quiet_trainer, tmp_path, traced):
    def fit(compile: bool, steps: int, source=None) -> dict:
        seed_everything(3, verbose=False)
        optimizer = {"name": "AdamW", "lr": 0.02}
        config = tiny_config(dropout=0.0, compile=compile)
        module = LitLanguageModel.create(config, optimizer=optimizer, num_samples=0, ema_decay=0.8)
        trainer = quiet_trainer(max_steps=steps, callbacks=[OptimizerInBackward()])
        trainer.fit(module, datamodule=tiny_data(seed=3), ckpt_path=source, weights_only=True)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        return torch.load(tmp_path / "run.ckpt", weights_only=True)

    plain = fit(False, 6)
    assert not traced
    compiled = fit(True, 6)
    assert traced == [torch.device("cpu")]
    for part in ("state_dict", "current_model_state"):
        torch.testing.assert_close(compiled[part], plain[part], atol=1e-4, rtol=1e-3)
    assert fit(False, 8, tmp_path / "run.ckpt")["global_step"] == 8


@pytest.mark.slow
def test_evaluation_and_prediction_do_not_compile(tiny_config, tiny_data, quiet_trainer, tmp_path, traced):
    module = LitLanguageModel.create(tiny_config(compile=True), num_samples=0)
    quiet_trainer(limit_val_batches=1).validate(module, datamodule=tiny_data(), verbose=False)
    assert not traced
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(module, datamodule=tiny_data())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    loaded = LitLanguageModel.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert not any(each._compiled_call_impl for each in loaded.modules())
