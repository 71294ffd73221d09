"""Contract checks: valid adapters and plugins pass, and each fault fails exactly its own check."""

from __future__ import annotations

import importlib
import itertools
import re
import subprocess
import sys
from unittest import SkipTest

import faults
import pytest

from perceiver_registry import INTERFACE_VERSION, AdapterSpec, UnknownNameError, registry
from perceiver_registry.testing import adapter_checks, check_adapter, check_plugin, plugin_checks
from perceiver_registry.testing.checks import report

pytest_plugins = ["pytester"]

SLOW = {"exports", "compiles"}
"""Checks that take longer than all others combined."""


def failed(checks) -> dict[str, str]:
    """Return the message of each failed check by name."""
    return {check.name: str(check.outcome) for check in checks if isinstance(check.outcome, AssertionError)}


# Adapters


@pytest.mark.slow
@pytest.mark.parametrize("spec", [faults.FRAMES, faults.NOTES, faults.CHORDS], ids=lambda spec: spec.name)
def test_valid_adapters_pass(spec):
    check_adapter(spec)


def test_entries_that_may_be_missing_need_not_be_listed():
    (check,) = [each for each in adapter_checks(faults.OPTIONAL_MASK, skip=SLOW) if each.name == "reads_match_spec"]
    assert check.outcome is None


@pytest.mark.slow
def test_only_inapplicable_checks_are_skipped():
    inapplicable = {
        "reader_is_valid",
        "size_rule_is_valid",
        "reader_fits_adapter",
        "causal_inputs_are_independent",
        "padding_is_ignored",
        "supports_local_init",
    }
    for spec, skipped in ((faults.FRAMES, set()), (faults.NOTES, inapplicable), (faults.CHORDS, set())):
        checks = adapter_checks(spec, skip=SLOW)
        assert {check.name for check in checks if isinstance(check.outcome, SkipTest)} == skipped


def name_of_fault(fault) -> str:
    spec: AdapterSpec = fault[1]
    return f"{fault[0]}-{spec.adapter.partition(':')[2]}"


@pytest.mark.slow
@pytest.mark.parametrize("fault", faults.FAULTS, ids=name_of_fault)
def test_faulty_adapter_fails_its_check_only(fault):
    name, spec, message = fault
    found = failed(adapter_checks(spec, skip=SLOW - {name}))
    assert set(found) == {name}
    assert message in found[name]
    assert repr(spec.name) in found[name]
    assert "\n" not in found[name]


def test_each_adapter_check_has_a_faulty_adapter():
    checks = [*adapter_checks(faults.FRAMES), *adapter_checks(faults.CHORDS)]
    assert {name for name, _, _ in faults.FAULTS} == {check.name for check in checks}


# Plugins

VALID = """
from perceiver_registry import AdapterSpec, DataSpec, FormatSpec, ModelSpec, TaskSpec, hookimpl

PERCEIVER_INTERFACE = "2.0"

@hookimpl
def perceiver_adapters():
    return [
        AdapterSpec("notes", "input", "faults:Notes", "faults:NotesEncoderConfig", "a melody", reads=("notes",)),
        AdapterSpec(
            "chords", "output", "faults:Chords", "faults:ChordsDecoderConfig", "chords", tasks=("melody-mood",)
        ),
        AdapterSpec(
            "frames",
            "input",
            "faults:Frames",
            "faults:FramesEncoderConfig",
            "frames of a spectrogram",
            links={"num_bins": "num_bins"},
            reads=("frames", "attention_mask"),
            data="recordings",
        ),
    ]

@hookimpl
def perceiver_tasks():
    return [
        TaskSpec(
            name="melody-mood",
            module="perceiver_plugins.classification.lightning:LitClassifier",
            summary="the mood of a melody",
            data="melodies",
            defaults={
                "model.encoder": "table", "model.encoder.num_features": 4, "model.decoder": "classification"
            },
            predictor="perceiver_plugins.classification.prediction:ClassPredictor",
        )
    ]

@hookimpl
def perceiver_data():
    return [
        DataSpec(
            name="melodies",
            module="perceiver_plugins.checkpoints.random_data:RandomDataModule",
            tasks=("melody-mood", "classification"),
            summary="some melodies",
            yields=("notes",),
            defaults={"trainer.max_epochs": 1},
        ),
        DataSpec(
            name="recordings",
            module="HERE.late:Recordings",
            tasks=("classification",),
            summary="some recordings",
            yields=("frames", "attention_mask"),
            example={"num_recordings": 4},
        ),
    ]

@hookimpl
def perceiver_models():
    return [
        ModelSpec(
            name="small-listener",
            task="melody-mood",
            config={
                "encoder": "notes",
                "encoder.num_pitches": 20,
                "encoder.num_cross_attention_heads": 1,
                "encoder.num_self_attention_heads": 1,
                "encoder.num_self_attention_layers_per_block": 1,
                "decoder": "chords",
                "decoder.num_cross_attention_heads": 1,
                "num_latents": 2,
                "num_latent_channels": 4,
                "init": "normal",
            },
            num_parameters=1353,
            summary="a small one",
        )
    ]

@hookimpl
def perceiver_formats():
    return [
        FormatSpec("score", "HERE.formats:Score", "sheets of music", reads=True, writes=True, suffixes=(".score",)),
    ]
"""

FORMATS = """
from pathlib import Path

from perceiver_registry import Format

class Score(Format):
    def recognises(self, source):
        return Path(source).is_file() and Path(source).read_bytes()[:5] == b"score"

    def read(self, source):
        raise NotImplementedError

    def write(self, loaded, target):
        raise NotImplementedError

class Unread(Format):
    recognises = Score.recognises

class Gullible(Score):
    def recognises(self, source):
        return True

class Strict(Score):
    def __init__(self, encoding):
        pass
"""
"""Module with the formats, without heavy imports."""

LATE = """

import torch
from perceiver_plugins.classification.lightning import LitClassifier, LossSum
from perceiver_plugins.classification.prediction import ClassPredictor
from perceiver_plugins.sdk.data import ExampleDataset, PadCollator, PerceiverDataModule
from pytorch_lightning import LightningDataModule, LightningModule

class Bare(LightningModule):
    pass

class Lost(LitClassifier):
    def loss_sum(self, batch):
        loss = super().loss_sum(batch)
        return LossSum(loss.total * float("nan"), loss.count)

class Mean(LitClassifier):
    def loss_sum(self, batch):
        return super().loss_sum(batch).mean

class Silent(LitClassifier):
    def loss_sum(self, batch):
        loss = super().loss_sum(batch)
        return LossSum((0 * self.model.encoder.latents).sum(), loss.count)

class Undocumented(LightningDataModule):
    def __init__(self, path: str = "."):
        super().__init__()

class Frames(ExampleDataset):
    def __len__(self):
        return 4

    def example(self, index, rng):
        return {"frames": torch.ones(2 + index, 3), "labels": index % 2}

class Recordings(PerceiverDataModule):
    '''Recordings of different lengths.

    Args:
        num_recordings: number of recordings in a batch.
    '''

    num_bins = 3

    def __init__(self, num_recordings: int):
        super().__init__(num_recordings)

    def setup(self, stage=None):
        self.split_datasets["train"] = Frames(self.seed)

    def collate_fn(self, examples):
        return PadCollator(masks={"frames": "attention_mask"})(examples)

class Unpadded(Recordings):
    collate_fn = None

class Unmasked(Recordings):
    def collate_fn(self, examples):
        batch = super().collate_fn(examples)
        return {name: batch[name] for name in ("frames", "labels")}

class Uneven(Recordings):
    def collate_fn(self, examples):
        batch = super().collate_fn(examples)
        return batch | {"labels": batch["labels"][1:]}

class MaskOfExamples(Recordings):
    def collate_fn(self, examples):
        batch = super().collate_fn(examples)
        return batch | {"attention_mask": batch["attention_mask"][:, :1]}

class Transposed(Recordings):
    def collate_fn(self, examples):
        batch = super().collate_fn(examples)
        return batch | {"frames": batch["frames"].mT}

class Guesses(ClassPredictor):
    def answers(self, output, examples):
        return output.argmax(dim=-1).tolist()

class Tensors(ClassPredictor):
    def answers(self, output, examples):
        return [{"class": logits.argmax()} for logits in output]

    @staticmethod
    def rows(predictions):
        return predictions
"""
"""Module with the other classes of the plugin."""


@pytest.fixture
def write_plugin(tmp_path, monkeypatch):
    """Function that writes a package with a plugin's source code and returns the name of the plugin's module."""
    monkeypatch.syspath_prepend(tmp_path)
    numbers = itertools.count()

    def write_plugin(text: str):
        package = tmp_path / f"{tmp_path.name}_{next(numbers)}".replace("-", "_")
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "plugin.py").write_text(text.replace("HERE", package.name))
        (package / "late.py").write_text(LATE)
        (package / "formats.py").write_text(FORMATS)
        importlib.invalidate_caches()
        return f"{package.name}.plugin"

    return write_plugin


@pytest.mark.slow
def test_valid_plugin_passes(write_plugin):
    check_plugin(importlib.import_module(write_plugin(VALID)), skip=SLOW)


PLUGIN_FAULTS = [
    ("loads", 'PERCEIVER_INTERFACE = "2.0"', 'PERCEIVER_INTERFACE = "9.0"', "written for interface 9.0"),
    ("loads", "    return [\n        TaskSpec(", "    return [\n        AdapterSpec(", "perceiver_tasks failed"),
    ("loads", 'name="melodies"', 'name="melodies", colour="red"', "perceiver_data failed"),
    ("loads", '"chords", tasks=("melody-mood",)', '"chords", tasks="melody-mood"', "must be a tuple of names"),
    ("loads", "def perceiver_models", "def perceiver_modles", "unknown hook 'perceiver_modles'"),
    ("loads", '"chords", "output"', '"notes", "input"', "'notes' is registered twice"),
    ("loads", "    return [\n        DataSpec(", "    raise OSError('gone')\n    return [\n        DataSpec(", "gone"),
    ("declares_interface", 'PERCEIVER_INTERFACE = "2.0"', "", f"PERCEIVER_INTERFACE = {INTERFACE_VERSION!r}"),
    ("hooks_are_marked", "@hookimpl\ndef perceiver_models", "def perceiver_models", "perceiver_models is not marked"),
    ("summaries_are_single_lines", '"a small one"', '""', "small-listener: summary=''"),
    ("imports_are_light", "from perceiver_registry", "import numpy\nfrom perceiver_registry", "imports numpy"),
    (
        "imports_are_light",
        "    return [\n        TaskSpec(",
        "    import torch\n    return [\n        TaskSpec(",
        "torch",
    ),
    (
        "tasks_are_valid",
        "classification.lightning:LitClassifier",
        "sdk.data.module:PerceiverDataModule",
        "not a LitPerceiver",
    ),
    (
        "tasks_are_valid",
        "perceiver_plugins.classification.lightning:LitClassifier",
        "HERE.late:Bare",
        "not a LitPerceiver",
    ),
    (
        "tasks_are_valid",
        "classification.prediction:ClassPredictor",
        "sdk.prediction.reader:Reader",
        "no method 'predict'",
    ),
    ("task_defaults_are_valid", 'data="melodies"', 'data="digits"', "not this task"),
    ("task_defaults_are_valid", 'data="melodies"', 'data="meldies"', "data='meldies' does not exist"),
    ("task_defaults_are_valid", "encoder.num_features", "encoder.num_feature", "did you mean 'num_features'"),
    ("task_defaults_are_valid", '"model.encoder": "table"', '"model.encoder": "tabel"', "unknown input adapter"),
    ("task_defaults_are_valid", '"model.encoder.num_features"', '"encoder.num_features"', "unknown flag"),
    ("tasks_train", "perceiver_plugins.classification.lightning:LitClassifier", "HERE.late:Lost", "is nan"),
    ("tasks_train", "perceiver_plugins.classification.lightning:LitClassifier", "HERE.late:Silent", "no gradient"),
    (
        "tasks_train",
        "perceiver_plugins.classification.lightning:LitClassifier",
        "HERE.late:Mean",
        "not a LossSum of two",
    ),
    (
        "data_modules_are_valid",
        "checkpoints.random_data:RandomDataModule",
        "sdk.prediction.reader:Reader",
        "not a LightningData",
    ),
    (
        "data_modules_are_valid",
        "checkpoints.random_data:Random",
        "checkpoints.random_data:Radnom",
        "cannot be imported",
    ),
    (
        "data_modules_are_valid",
        "perceiver_plugins.checkpoints.random_data:RandomDataModule",
        "HERE.late:Undocumented",
        "'path' is not documented",
    ),
    ("data_modules_are_valid", '"classification"),', '"clasification"),', "unknown task 'clasification'"),
    ("data_modules_are_valid", 'yields=("notes",)', "yields=()", "`yields` is empty"),
    (
        "data_modules_are_valid",
        'yields=("notes",)',
        'yields=("notes",), modules={"classification": "json:JSONDecoder"}',
        "'json:JSONDecoder' is not a LightningDataModule",
    ),
    (
        "data_modules_are_valid",
        'yields=("notes",)',
        'yields=("notes",), task_defaults={"sleep": {}}',
        "task_defaults: 'sleep' is not one of its tasks",
    ),
    (
        "data_modules_are_valid",
        'yields=("notes",)',
        'yields=("notes",), task_defaults={"classification": {"size": 1}}',
        "default 'size': unknown flag",
    ),
    ("data_modules_load_batches", "late:Recordings", "late:Unpadded", "stack expects each tensor"),
    ("data_modules_load_batches", '"num_recordings": 4', '"num_clips": 4', "cannot load batches with num_clips=4"),
    (
        "batches_have_expected_entries",
        "late:Recordings",
        "late:Unmasked",
        "has frames, labels, and not attention_mask",
    ),
    ("batches_have_expected_entries", "late:Recordings", "late:Uneven", "3, 4 examples"),
    ("linked_attributes_exist", '"num_bins": "num_bins"', '"num_bins": "bins"', "recordings has no attribute 'bins'"),
    (
        "batches_fit_adapters",
        "late:Recordings",
        "late:MaskOfExamples",
        "pad_mask is torch.bool of shape (4, 1), x has shape",
    ),
    ("batches_fit_adapters", "late:Recordings", "late:Transposed", "fails on a batch of recordings"),
    (
        "predictors_predict",
        "perceiver_plugins.classification.prediction:ClassPredictor",
        "HERE.late:Guesses",
        "does not predict",
    ),
    (
        "predictors_predict",
        "perceiver_plugins.classification.prediction:ClassPredictor",
        "HERE.late:Tensors",
        "not plain data",
    ),
    ("adapter_tasks_exist", '"chords", tasks=("melody-mood",)', '"chords", tasks=("moods",)', "'moods'"),
    ("adapter_data_exists", 'data="recordings"', 'data="records"', "data='records' does not exist"),
    ("adapter_data_exists", 'data="recordings"', 'data="melodies"', "data='melodies' does not fit the adapter"),
    ("models_match_specs", "num_parameters=1353", "num_parameters=1354", "the model has 1_353"),
    ("models_match_specs", 'task="melody-mood"', 'task="mood"', "task='mood' does not exist"),
    ("models_match_specs", '"encoder.num_pitches"', '"encoder.num_pitch"', "did you mean 'num_pitches'"),
    ("models_match_specs", '"encoder": "notes"', '"encoder": "noets"', "unknown input adapter"),
    ("loads", "reads=True, writes=True", "reads='yes'", "reads is 'yes', must be True or False"),
    ("summaries_are_single_lines", '"sheets of music"', '""', "score: summary=''"),
    ("formats_are_valid", "HERE.formats:Score", "HERE.formats:Scroe", "format='"),
    ("formats_are_valid", "HERE.formats:Score", "HERE.formats:Path", "is not a Format"),
    ("formats_are_valid", "HERE.formats:Score", "HERE.formats:Unread", "Unread does not implement read"),
    ("formats_are_valid", "HERE.formats:Score", "HERE.formats:Strict", "Strict() fails"),
    ("formats_are_valid", "reads=True, writes=True", "reads=False", "it neither `reads` nor `writes`"),
    ("formats_are_valid", "reads=True, writes=True", "writes=True", "Score does not implement compute"),
    ("formats_are_valid", '(".score",)', '("score",)', "suffix 'score' does not begin with a dot"),
    ("formats_reject_empty_files", "HERE.formats:Score", "HERE.formats:Gullible", "is True, must be False"),
]
"""Expected failing check, replaced text of the valid plugin, its replacement, and expected part of the message."""


def without_adapter_checks(checks):
    return [check for check in checks if check.name not in {each.name for each in ADAPTER_CHECKS}]


ADAPTER_CHECKS = [*adapter_checks(faults.FRAMES), *adapter_checks(faults.CHORDS)]


@pytest.mark.slow
@pytest.mark.parametrize("fault", PLUGIN_FAULTS, ids=lambda fault: fault[0])
def test_faulty_plugin_fails_its_check_only(fault, write_plugin):
    name, valid, faulty, message = fault
    assert valid in VALID
    module = write_plugin(VALID.replace(valid, faulty))
    slow = {"imports_are_light", "formats_reject_empty_files"} - {name}
    found = failed(without_adapter_checks(plugin_checks(importlib.import_module(module), skip=slow)))
    assert set(found) == {name}
    assert message in found[name]
    assert "\n" not in found[name]


def test_each_plugin_check_has_a_faulty_plugin(write_plugin):
    checks = without_adapter_checks(plugin_checks(importlib.import_module(write_plugin(VALID))))
    assert {name for name, *_ in PLUGIN_FAULTS} == {check.name for check in checks}


PAIR = """
from perceiver_registry import AdapterSpec, TaskSpec, hookimpl

@hookimpl
def perceiver_adapters():
    return [
        AdapterSpec("scaled-frames", "input", "faults:ScaledFrames", "faults:FramesEncoderConfig", "frames"),
        AdapterSpec("scaled-chords", "output", "faults:ScaledChords", "faults:ChordsDecoderConfig", "chords"),
    ]

@hookimpl
def perceiver_tasks():
    return [
        TaskSpec(
            name="harmony",
            module="perceiver_plugins.classification.lightning:LitClassifier",
            summary="chords of a recording",
            data="recordings",
            defaults={"model.encoder": "scaled-frames", "model.decoder": "scaled-chords"},
        )
    ]
"""


def test_output_adapter_is_checked_with_the_default_encoder_of_its_task(write_plugin):
    checks = plugin_checks(importlib.import_module(write_plugin(PAIR)), skip=SLOW)
    outcomes = {check.name: check.outcome for check in checks if check.__name__.startswith("output-scaled-chords-")}
    assert outcomes.pop("spec_is_complete") is not None  # it names no tasks
    assert set(outcomes.values()) == {None}
    alone = {check.name: str(check.outcome) for check in adapter_checks(checks[-1].subject.spec, skip=SLOW)}
    assert "KeyError: 'scale'" in alone["output_is_finite"]


# Entry points of the checks


@pytest.mark.slow
def test_all_failures_are_reported_in_one_error(write_plugin):
    wrong = VALID.replace('PERCEIVER_INTERFACE = "2.0"', "").replace('faults:Notes"', 'faults:Nonsense"')
    with pytest.raises(AssertionError) as error:
        check_plugin(importlib.import_module(write_plugin(wrong.replace("1353", "7"))), skip=SLOW)
    head, *lines = str(error.value).splitlines()
    assert re.fullmatch(r"3 of \d+ checks failed, \d+ that need them were skipped:", head)
    for line, parts in zip(
        lines,
        [
            ("- plugin ", "declares_interface", "The contract: The plugin's module declares"),
            ("- plugin ", "models_match_specs", "Nonsense"),
            ("- input adapter 'notes': ", "import_paths_resolve", "Nonsense"),
        ],
        strict=True,
    ):
        assert all(part in line for part in parts), line


def test_name_selects_adapters_of_both_kinds():
    kinds = [{check.subject.kind for check in adapter_checks("text", kind)} for kind in (None, "input", "output")]
    assert kinds == [{"input", "output"}, {"input"}, {"output"}]
    assert {check.subject.kind for check in adapter_checks(registry().get("output", "text"))} == {"output"}


def test_unknown_names_are_errors_with_suggestions():
    for call, near in (
        (lambda: check_adapter("txet"), "did you mean 'text'"),
        (lambda: check_adapter("txet", "input"), "did you mean 'text'"),
        (lambda: check_plugin("iamge"), "did you mean 'image'"),
        (lambda: check_adapter("text", skip={"export"}), "did you mean 'exports'"),
    ):
        with pytest.raises(UnknownNameError, match=near):
            call()


def test_plugin_name_may_include_its_distribution():
    (check, *_) = plugin_checks("perceiver-zoo:table")
    assert check.subject.module_name == "perceiver_plugins.table.plugin"
    with pytest.raises(UnknownNameError):
        plugin_checks("another-zoo:table")


@pytest.mark.slow
def test_checks_are_separate_tests_in_pytest(pytester):
    pytester.makepyfile(
        """
        import pytest
        from perceiver_registry.testing import adapter_checks

        @pytest.mark.parametrize("check", adapter_checks("table", skip=["exports", "compiles"]))
        def test_contract(check):
            check()
        """
    )
    result = pytester.runpytest_inprocess("-v")
    assert result.parseoutcomes().keys() == {"passed", "skipped"}
    result.stdout.fnmatch_lines(["*test_contract[[]input-table-follows_dtype[]] PASSED*"])
    result.stdout.fnmatch_lines(["*test_contract[[]input-table-padding_is_ignored[]] SKIPPED*"])


def test_import_does_not_import_torch():
    code = "import sys, perceiver_registry.testing; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# Built-in plugins


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [loaded.plugin.name for loaded in registry().plugins if loaded.plugin.is_of("perceiver-zoo")]
)
def test_built_in_plugins_pass(name):
    # tests/serving/test_export_adapters.py exports the adapters.
    checks = [check for check in plugin_checks(f"perceiver-zoo:{name}") if check.name != "exports"]
    report(checks)
    skipped = {check.name for check in checks if check.outcome is not None}
    if name in ("audio", "flow", "image", "multimodal", "music", "table", "text"):
        assert not skipped & {"data_modules_load_batches", "batches_fit_adapters"}
    if name in ("flow", "image", "music", "text"):
        assert not skipped & {"reader_fits_adapter", "predictors_predict"}
    if name == "audio":
        assert not skipped & {"reader_fits_adapter"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "example"),
    [
        ("text", "output", {"model.decoder.num_output_query_channels": 12}),
        ("classification", "output", {"model.decoder.num_output_queries": 3}),
        ("regression", "output", {"model.decoder.target_mean": [1.0, 2.0], "model.decoder.target_std": [3.0, 0.5]}),
        ("image-patches", "input", {"model.encoder.patch_size": 3}),
        ("image-learned", "input", {"model.encoder.num_channels": 3, "model.encoder.image_size": [5, 7]}),
        ("image-timm", "input", {"model.encoder.freeze_backbone": True}),
        ("image-timm", "input", {"model.encoder.timm_model": "test_vit", "model.encoder.image_size": [32, 32]}),
        (
            "table",
            "input",
            {
                "model.encoder.columns": {
                    "review": {"adapter": "text", "vocab_size": 40, "max_seq_len": 12, "num_input_channels": 16},
                    "photo": {"adapter": "image-pixels", "num_channels": 1, "max_resolution": [6, 6]},
                }
            },
        ),
        (
            "composite",
            "input",
            {
                "model.encoder.inputs": {
                    "left": {"adapter": "table", "num_features": 3, "num_input_channels": 6},
                    "right": {"adapter": "table", "num_features": 2, "num_input_channels": 9},
                }
            },
        ),
    ],
)
def test_other_configurations_of_built_in_adapters_pass(name, kind, example):
    check_adapter(name, kind, example=example, skip=SLOW)
