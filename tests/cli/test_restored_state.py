"""State restored from untrusted checkpoints: nothing that deletes or writes outside the run's own folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from perceiver_cli.checkpoint_files import AtomicCheckpointIO, remove_partial_files, replacing
from perceiver_cli.foreign_paths import without_foreign_paths
from perceiver_registry.checkpoint import KEY

SHORT = ("--trainer.max_epochs=5", "--trainer.val_check_interval=2")


@pytest.fixture
def victim(tmp_path) -> Path:
    """File outside of all runs."""
    file = tmp_path / "victim" / "precious.ckpt"
    file.parent.mkdir()
    file.write_text("precious")
    return file


@pytest.fixture
def resume(perceiver, regressor, tmp_path, monkeypatch):
    """Resume a changed checkpoint in a folder of its own, and return the result."""

    def resume(change, *flags: str):
        checkpoint = torch.load(regressor.last, weights_only=True)
        change(checkpoint)
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        monkeypatch.chdir(home)
        torch.save(checkpoint, "nice.ckpt")
        return perceiver("fit", "--ckpt_path=nice.ckpt", *SHORT, *flags)

    return resume


def state_of_best(checkpoint) -> dict[str, object]:
    return next(state for key, state in checkpoint["callbacks"].items() if key.startswith("ModelCheckpoint"))


FORMS = ["local://{folder}", "file://{folder}", "{file}", "{folder}", "../victim/precious.ckpt"]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_files_outside_the_run_are_not_deleted(resume, victim, form):
    path = form.format(folder=victim.parent, file=victim)

    def change(checkpoint):
        state = state_of_best(checkpoint)
        state.pop("dirpath")
        names = ("kth_best_model_path", "best_model_path", "last_model_path")
        state |= {"best_k_models": {path: torch.tensor(1e9)}, "kth_value": torch.tensor(1e9)} | dict.fromkeys(
            names, path
        )

    result = resume(change)
    assert result.code == 0, result.err
    assert victim.read_text() == "precious"
    kept = state_of_best(torch.load("logs/regression/version_0/checkpoints/last.ckpt", weights_only=True))
    assert path not in str(kept)


@pytest.mark.slow
def test_link_in_the_run_folder_is_not_followed(perceiver, regressor, victim, tmp_path):
    folder = tmp_path / "logs" / "regression" / "version_0"
    shutil.copytree(regressor.folder, folder)
    for name in (".last.ckpt.partial", "more.ckpt"):
        (folder / "checkpoints" / name).symlink_to(victim)
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").symlink_to(victim)
    result = perceiver("fit", "--ckpt_path=last", *SHORT)
    assert result.code == 0, result.err
    assert "Latest state: logs/regression/version_1/" in result.out, "a folder with such links is not continued"
    assert victim.read_text() == "precious"


@pytest.mark.slow
def test_moved_run_keeps_its_best_checkpoint(perceiver, regressor, tmp_path):
    folder = tmp_path / "elsewhere" / "logs" / "regression" / "version_7"
    shutil.copytree(regressor.folder, folder)
    last = folder / "checkpoints" / "last.ckpt"
    best = state_of_best(torch.load(last, weights_only=True))["best_model_score"]
    root = f"--trainer.default_root_dir={tmp_path / 'elsewhere'}"
    result = perceiver("fit", f"--ckpt_path={last}", "--optimizer.lr=1e-30", root, *SHORT)
    assert result.code == 0, result.err
    assert f"Latest state: {last}" in result.out
    state = state_of_best(torch.load(last, weights_only=True))
    assert Path(state["best_model_path"]) == folder / "checkpoints" / "best.ckpt"
    assert state["best_model_score"] <= best


@pytest.mark.slow
def test_callback_state_with_foreign_paths_is_not_restored(resume, victim):
    def change(checkpoint):
        checkpoint["callbacks"]["Timer"] = {"time_elapsed": {"train": 1.0}, "log": str(victim)}

    result = resume(change, "--trainer.callbacks+=Timer")
    assert result.code == 0, result.err
    assert f"nice.ckpt: the state of Timer is not restored: {victim} is outside the run's folder" in result.err


@pytest.mark.slow
def test_output_goes_to_the_current_folder(resume, victim):
    def change(checkpoint):
        trainer = checkpoint[KEY]["run"]["trainer"]
        trainer["default_root_dir"] = str(victim.parent)
        save = {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": {"dirpath": "../victim"}}
        trainer["callbacks"] = [save]

    result = resume(change)
    assert result.code == 0, result.err
    assert (
        f"nice.ckpt: --trainer.default_root_dir={victim.parent}: ignored, as it is outside the current folder"
        in result.err
    )
    assert "nice.ckpt: --trainer.callbacks.dirpath=../victim: ignored, as it is outside" in result.err
    assert [file.name for file in victim.parent.iterdir()] == ["precious.ckpt"]
    assert Path("logs/regression/version_0/checkpoints/last.ckpt").exists()

    allowed = resume(change, f"--trainer.default_root_dir={victim.parent}")
    assert allowed.code == 0, allowed.err
    assert (victim.parent / "logs").is_dir(), "flags are the user's own"


@pytest.mark.parametrize(
    "path", ["/etc", "~", "~nobody-at-all/x", "a/../../x", "$HOME/x", "s3://bucket/x", "dir::file:///x", "{step:/>9}"]
)
def test_foreign_paths_are_removed(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/somewhere")
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": path, "name": "mine", "version": path}}
    kept = without_foreign_paths({"logger": [logger], "profiler": path, "max_steps": 3}, tmp_path / "nice.ckpt")
    init_args = {"save_dir": "logs", "name": "mine"}
    assert kept == {"logger": [{"class_path": "CSVLogger", "init_args": init_args}], "max_steps": 3}
    assert capsys.readouterr().err.count("ignored, as it is outside") == 3


def test_paths_of_the_run_are_kept(tmp_path):
    checkpoint = tmp_path / "runs" / "logs" / "mlm" / "version_0" / "checkpoints" / "last.ckpt"
    trainer = {"default_root_dir": str(tmp_path / "runs"), "logger": {"save_dir": "other/logs"}, "monitor": "val/loss"}
    assert without_foreign_paths(trainer, checkpoint) == trainer


def test_remove_checkpoint_keeps_other_folders(victim, tmp_path):
    files = AtomicCheckpointIO()
    for path in (victim.parent, f"local://{victim.parent}", f"file://{victim.parent}", str(tmp_path)):
        files.remove_checkpoint(path)
    assert victim.exists()
    files.remove_checkpoint(victim)
    assert not victim.exists()


def test_damaged_state_of_a_fused_optimizer_is_refused(resume):
    """Its kernel would read and write beyond the end of a tensor that is too small."""

    def change(checkpoint):
        checkpoint["optimizer_states"][0]["state"][3]["exp_avg"] = torch.zeros(1)

    result = resume(change)
    assert result.code == 2, result
    assert result.err.splitlines()[-1].startswith("perceiver: nice.ckpt: optimizer_states is damaged")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--optimizer.lr=0.01",)], ids=["kept", "overridden"])
@pytest.mark.parametrize(
    "options",
    [
        {"lr": None},
        {"lr": "0.1"},
        {"lr_scale": float("nan")},
        {"lr_scale": "1"},
        {"lr_scale": 100.0},
        {"no_decay": 1},
        {"no_decay": True, "weight_decay": None},
    ],
    ids=str,
)
def test_optimizer_state_with_wrong_options_is_refused(resume, options, flags):
    def change(checkpoint):
        for group in checkpoint["optimizer_states"][0]["param_groups"]:
            group.update(options)

    result = resume(change, *flags)
    assert (result.code, len(result.err.splitlines())) == (2, 1), result
    assert result.err.startswith("perceiver: nice.ckpt: "), result
    assert "optimizer_states is damaged" in result.err


@pytest.mark.parametrize("groups", [None, 3, "groups", [3], {}], ids=str)
def test_optimizer_state_without_groups_is_refused(resume, groups):
    result = resume(lambda checkpoint: checkpoint["optimizer_states"][0].update(param_groups=groups))
    assert (result.code, len(result.err.splitlines())) == (2, 1), result
    assert result.err.startswith("perceiver: nice.ckpt: "), result
    assert "optimizer_states is damaged" in result.err


# Files


def test_partial_files_of_killed_runs_are_removed(tmp_path):
    path = tmp_path / "mlm" / "version_0" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    leftover = path.with_name(".last.ckpt.0123.partial")
    leftover.touch()
    with replacing(path) as file:
        file.write(b"new")
        remove_partial_files(tmp_path)
        assert not leftover.exists()
    assert path.read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_unwritable_file_is_reported(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.ckpt"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(10**5)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
