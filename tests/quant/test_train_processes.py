"""Training as whole processes: killed at any instant, and two that follow one."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quant.models.prepared import load_prepared
from quant.models.tiny import byte_tokenizer
from tests.quant.models import random_llama


@pytest.fixture
def teacher_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "teacher"
    random_llama().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    (tmp_path / "text.txt").write_bytes(bytes(32 + (i * i + 7 * i) % 90 for i in range(6000)))
    return folder


def command(
    folder: Path, output: Path, *, steps: int = 30, launcher: tuple[str, ...] = ()
) -> list[str]:
    arguments = [str(folder), "--output", str(output), "--text", str(folder.parent / "text.txt")]
    arguments += [
        "--split",
        "all",
        "--recipe",
        "tiny",
        "--set",
        "group_size=16",
        "--steps",
        str(steps),
    ]
    arguments += ["--window", "16", "--batch", "4", "--checkpoint-every", "4"]
    return [sys.executable, *launcher, "-m", "quant.train", *arguments]


# Standalone: on a free port, as a fixed one may be another run's.
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.mark.slow
def test_killed_at_any_instant_it_resumes_to_the_same_bits(teacher_folder: Path, tmp_path: Path):
    subprocess.run(command(teacher_folder, tmp_path / "whole"), env=ENVIRONMENT, check=True)
    for kill_at in (6, 17, 23):
        process = subprocess.Popen(command(teacher_folder, tmp_path / "killed"), env=ENVIRONMENT)
        while process.poll() is None and len(_losses(tmp_path / "killed")) < kill_at:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command(teacher_folder, tmp_path / "killed"), env=ENVIRONMENT, check=True)
    for name in ("model.safetensors", "quantizers.safetensors"):
        one, other = (tmp_path / run / "model" / name for run in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes()
    assert _losses(tmp_path / "killed") == _losses(tmp_path / "whole")
    assert load_prepared(tmp_path / "killed" / "model").training["steps"] == 30


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--shard"]], ids=["ddp", "fsdp"])
def test_two_processes_follow_one_process_to_rounding(
    teacher_folder: Path, tmp_path: Path, options: list[str]
):
    start = ["--start-from", "als", "--set", "group_size=16", "codes=nearest"]
    one = command(teacher_folder, tmp_path / "one", steps=10) + start
    two = (
        command(teacher_folder, tmp_path / "two", steps=10, launcher=TWO_PROCESSES)
        + start
        + options
    )
    for each in (one, two):
        subprocess.run(each, env={**ENVIRONMENT, "ACCELERATE_USE_CPU": "true"}, check=True)
    one_log, two_log = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert len(one_log) == len(two_log) == 10
    for one_row, two_row in zip(one_log, two_log, strict=True):
        for name in ("kl", "features", "gradient_norm"):
            assert float(two_row[name]) == pytest.approx(float(one_row[name]), rel=2e-3), name
    assert load_prepared(tmp_path / "two" / "model").training["processes"] == 2


@pytest.mark.slow
def test_sharded_processes_take_up_a_checkpoint_to_the_bit(teacher_folder: Path, tmp_path: Path):
    subprocess.run(command(teacher_folder, tmp_path / "one", steps=6), env=ENVIRONMENT, check=True)
    shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("model"))
    two = command(teacher_folder, tmp_path / "two", steps=6, launcher=TWO_PROCESSES)
    environment = {**ENVIRONMENT, "ACCELERATE_USE_CPU": "true"}
    subprocess.run([*two, "--shard"], env=environment, check=True)
    for name in ("model.safetensors", "quantizers.safetensors"):
        one, other = (tmp_path / run / "model" / name for run in ("one", "two"))
        assert one.read_bytes() == other.read_bytes()


def _losses(folder: Path) -> list[dict[str, str]]:
    """Return a run's log without the one column that time decides."""
    path = folder / "log.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k != "tokens_per_s"} for row in csv.DictReader(file)
        ]
