"""Made-up npm packages in the place of the corpora's, so that no test needs a network."""

import dataclasses
import io
import tarfile
from pathlib import Path

from quant.cache import file_sha256
from quant.text.documents import CORPORA

#: Two paragraphs of tagged text; the first has two sentences.
BROWN_FILE = (
    "\n\n\t``/`` Stop/vb ''/'' ,/, he/pps said/vbd ;/. ;/.\nthe/at ship/nn (/( ours/pp$$ )/) ./.\n"
    "\n\n\tCall/vb me/ppo 1/2/cd Ishmael/np ?/. ?/.\n"
)
BROWN_TEXT = '"Stop", he said; the ship (ours).\nCall me 1/2 Ishmael?'


def write_tarball(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    """Write a gzipped tarball of files, and of symbolic links by name."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)


def brown_files(count: int = 60) -> dict[str, bytes]:
    """Return files as the Brown corpus has them, no two the same, and others beside them."""
    files = {
        f"package/c{letter}{number:02}": f"{BROWN_FILE}\n\n\tNumber/nn {letter}{number}/cd".encode()
        for letter in "abcdefgh"
        for number in range(1, 1 + -(-count // 8))
    }
    chosen = dict(list(files.items())[:count])
    return {**chosen, "package/README": b"x", "package/categories.pickle": b"\x80\x02."}


def pinned(monkeypatch, corpus: str, tarball: Path) -> None:
    """Let a corpus' package be a tarball that the test wrote."""
    entry = CORPORA[corpus]
    package = dataclasses.replace(
        entry.package, sha256=file_sha256(tarball), size_bytes=tarball.stat().st_size
    )
    monkeypatch.setitem(CORPORA, corpus, dataclasses.replace(entry, package=package))
