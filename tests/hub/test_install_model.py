"""`make install-model` and `make model-archive`: everything is checked before a program is built or the hub is asked."""

import hashlib
import io
import json
import os
import random
import subprocess
import tarfile

import pytest

import build
import install_model
import model
import model_archive
from conftest import FILES, PIPELINE, WEIGHTS, content
from local_hub import unused_port
from state import Failure

HERE = ("PG_CONFIG", "DESTDIR", "MODEL", "MODEL_DIR", "FROM", "REPLACE")


@pytest.fixture
def made(tmp_path):
    """A model directory with all files that a model can have."""
    directory = tmp_path / "my-model"
    (directory / "1_Pooling").mkdir(parents=True)
    for name, data in {**FILES, **PIPELINE}.items():
        (directory / name).write_bytes(data)
    return directory


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A PostgreSQL without a model, no fetched gte-small, and a hub that nothing answers for. No program may be built."""
    share = tmp_path / "share"
    share.mkdir()
    program = tmp_path / "pg_config"
    program.write_text(f"#!/bin/sh\ncase $1 in --version) echo PostgreSQL 17.1;; --sharedir) echo '{share}';; esac\n")
    program.chmod(0o755)
    for name in HERE:
        monkeypatch.setenv(name, "")
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PG_CONFIG", str(program))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setattr(model, "place_of", lambda name: tmp_path / "models" / name)
    monkeypatch.setattr(install_model, "CLONE", tmp_path / "clone")
    monkeypatch.setattr(model, "tool", lambda: pytest.fail("a program was built"))
    return share / "gte-small"


@pytest.fixture
def install(place, monkeypatch, capsys):
    """Runs the verb with these variables; returns what it says."""
    def run(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        install_model.main()
        return capsys.readouterr().err
    return run


@pytest.fixture
def gte_small(tmp_path, monkeypatch):
    """The pinned files, which are FILES here, fetched already."""
    files = [{"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in FILES.items()]
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    monkeypatch.setattr(model, "MANIFEST", tmp_path / "manifest.json")
    directory = tmp_path / "models" / "gte-small"
    directory.mkdir(parents=True)
    for name, data in FILES.items():
        (directory / name).write_bytes(data)
    return directory


# --- which model, and where it comes from ---


def test_a_directory(place, install, made):
    assert f"my-model is in {place}" in install(MODEL_DIR=made)
    assert content(place) == FILES | PIPELINE
    assert all(path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644) for path in [place, *place.rglob("*")])
    assert "was already in" in install()


def test_minilm(place, install, made, monkeypatch):
    monkeypatch.setattr(model, "minilm", lambda: made)
    assert f"all-MiniLM-L6-v2 is in {place}" in install(MODEL="all-MiniLM-L6-v2")
    assert content(place) == FILES | PIPELINE


def test_an_archive(place, install, made, tmp_path):
    model_archive.make(made, "my-model", tmp_path / "model.tar")
    assert f"my-model is in {place}" in install(FROM=tmp_path / "model.tar")
    assert content(place) == FILES | PIPELINE


def test_gte_small_that_is_fetched_needs_no_hub(place, install, gte_small):
    assert f"gte-small is in {place}" in install()
    assert content(place) == FILES


def test_gte_small_that_the_user_of_the_clone_has_fetched(place, install, gte_small, tmp_path, monkeypatch):
    """`make model`, then `sudo make install-model`: root's own directory has no model."""
    theirs = tmp_path / "clone" / "target" / "state" / "models"
    theirs.mkdir(parents=True)
    gte_small.rename(theirs / "gte-small")
    monkeypatch.setattr(build, "owner_of_the_clone", lambda: "ada")
    assert f"gte-small is in {place}" in install()


def test_minilm_that_the_user_of_the_clone_has_fetched(place, install, made, tmp_path, monkeypatch):
    theirs = tmp_path / "clone" / "target" / "state" / "models"
    theirs.mkdir(parents=True)
    monkeypatch.setattr(model, "MINILM_FILES", {name: len(data) for name, data in content(made).items()})
    monkeypatch.setattr(model, "minilm", lambda: pytest.fail("it was fetched again"))
    made.rename(theirs / "all-MiniLM-L6-v2")
    assert f"all-MiniLM-L6-v2 is in {place}" in install(MODEL="all-MiniLM-L6-v2")
    assert content(place) == FILES | PIPELINE


def test_damaged_gte_small_is_not_installed(place, install, gte_small):
    (gte_small / WEIGHTS).write_bytes(random.Random(3).randbytes(len(FILES[WEIGHTS])))
    with pytest.raises(model.Unreachable):
        install()
    assert not place.exists()


def test_destdir(place, install, made, tmp_path):
    install(MODEL_DIR=made, DESTDIR=tmp_path / "package")
    assert content(tmp_path / "package" / place.relative_to("/")) == FILES | PIPELINE and not place.exists()


def test_a_link_is_followed(place, install, made, tmp_path):
    """The Debian package has a link, for one model for all versions of PostgreSQL."""
    place.symlink_to("../all-versions")
    install(MODEL_DIR=made)
    assert place.is_symlink() and content(tmp_path / "all-versions") == FILES | PIPELINE


# --- what is refused, before anything is built or fetched ---


@pytest.mark.parametrize("variables", [{"FROM": "x.tar", "MODEL": "gte-small"}, {"FROM": "x.tar", "MODEL_DIR": "x"},
                                       {"MODEL_DIR": "x", "MODEL": "gte-small"}])
def test_two_models(install, variables):
    with pytest.raises(Failure, match="two models"):
        install(**variables)


def test_a_model_of_another_size(place, install, made, tmp_path):
    (made / "config.json").write_text('{"hidden_size": 768}')
    for variables in ({"MODEL_DIR": made}, {"FROM": tmp_path / "model.tar", "MODEL_DIR": ""}):
        if "FROM" in variables:
            packed(tmp_path / "model.tar", {f"m/{name}": data for name, data in content(made).items()})
        with pytest.raises(Failure, match="768 dimensions"):
            install(**variables)
    assert not place.exists()


def test_another_model_stays(place, install, made):
    install(MODEL_DIR=made)
    (made / WEIGHTS).write_bytes(b"retrained")
    with pytest.raises(Failure, match="another model is in .* REPLACE=1"):
        install()
    assert content(place) == FILES | PIPELINE
    install(REPLACE=1)
    assert content(place)[WEIGHTS] == b"retrained"


def test_without_the_right_to_write(place, install, made, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(Failure, match="you may not write to") as refused:
        install()
    assert "make model && sudo make install-model PG_CONFIG=" in str(refused.value)
    with pytest.raises(Failure) as refused:
        install(MODEL_DIR=made)
    assert f"  sudo make install-model PG_CONFIG={os.environ['PG_CONFIG']} MODEL_DIR={made}" in str(refused.value)
    assert not place.exists()


@pytest.mark.parametrize("owner", ["", "ada"])
def test_without_a_hub_the_ways_on_are_named(place, install, monkeypatch, owner):
    monkeypatch.setattr(build, "owner_of_the_clone", lambda: owner)
    with pytest.raises(model.Unreachable) as refused:
        install()
    said = str(refused.value)
    assert said.startswith(f"the hub {os.environ['HF_ENDPOINT']} cannot be reached")
    for words in ("HF_ENDPOINT=", "make model-archive", "make install-model FROM=", "MODEL_DIR=",
                  "make model MODEL=all-MiniLM-L6-v2"):
        assert words in said
    assert not place.exists()


def test_root_leaves_the_download_to_the_user_of_the_clone(install, hub, monkeypatch):
    monkeypatch.setattr(build, "owner_of_the_clone", lambda: "ada")
    with pytest.raises(Failure, match="make model  as ada") as refused:
        install(HF_ENDPOINT=hub.endpoint)
    assert not isinstance(refused.value, model.Unreachable)


# --- the archive ---


def packed(path, entries):
    """A tar with these regular files, and the right sums if there are none."""
    folder = next(iter(entries)).partition("/")[0]
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name.partition('/')[2]}\n" for name, data in entries.items())
    entries = {f"{folder}/SHA256SUMS": sums.encode(), **entries}
    with tarfile.open(path, "w") as archive:
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def test_the_same_model_makes_the_same_bytes(made, tmp_path):
    first = model_archive.make(made, "my-model", tmp_path / "1.tar")
    for path in made.rglob("*"):
        os.utime(path, (1, 1))
    (made / "config.json").chmod(0o600)
    (made / "README.md").write_text("not a file of the model")
    assert model_archive.make(made, "my-model", tmp_path / "2.tar") == first
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


def test_the_tools_of_the_system_unpack_and_check_it(made, tmp_path):
    model_archive.make(made, "my-model", tmp_path / "model.tar")
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "model.tar"], cwd=out, check=True)
    unpacked = content(out / "my-model")
    sums = unpacked.pop("SHA256SUMS").decode()
    assert unpacked == FILES | PIPELINE
    assert sums == "".join(f"{hashlib.sha256(unpacked[name]).hexdigest()}  {name}\n" for name in sorted(unpacked))


def test_a_compressed_archive(made, tmp_path):
    model_archive.make(made, "my-model", tmp_path / "model.tar")
    with tarfile.open(tmp_path / "model.tar") as archive, tarfile.open(tmp_path / "model.tar.gz", "w:gz") as small:
        for entry in archive:
            small.addfile(entry, archive.extractfile(entry))
    assert model_archive.unpack(tmp_path / "model.tar.gz", tmp_path / "out")[0] == "my-model"


def test_every_damage_is_seen(place, install, made, tmp_path):
    """A cut at any place, and a changed byte in any file."""
    model_archive.make(made, "my-model", tmp_path / "whole.tar")
    whole = (tmp_path / "whole.tar").read_bytes()
    damaged = [whole[:cut] for cut in (0, 1, 100, 512, 1024, 2048, len(whole) // 2)]
    for data in (FILES["config.json"], FILES["tokenizer.json"], FILES[WEIGHTS], PIPELINE["1_Pooling/config.json"]):
        at = whole.index(data[:100]) + min(len(data), 2000) - 1
        damaged.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
    for data in damaged:
        (tmp_path / "model.tar").write_bytes(data)
        with pytest.raises(Failure, match="is no archive of make model-archive, or a part of one"):
            install(FROM=tmp_path / "model.tar")
        assert not place.exists()


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "m/../../x", "m/sub/x", "m/extra.bin", "./config.json",
                                  "other/config.json"])
def test_a_name_that_is_not_of_a_model(place, install, tmp_path, name):
    packed(tmp_path / "model.tar", {**{f"m/{file}": data for file, data in FILES.items()}, name: b"x"})
    with pytest.raises(Failure, match="is no archive"):
        install(FROM=tmp_path / "model.tar")
    assert not place.exists() and not (tmp_path / "x").exists()


def test_a_link_in_an_archive(place, install, tmp_path):
    with tarfile.open(tmp_path / "model.tar", "w") as archive:
        entry = tarfile.TarInfo("m/config.json")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(Failure, match="is no archive"):
        install(FROM=tmp_path / "model.tar")


def test_no_archive(install, tmp_path, made):
    (tmp_path / "text").write_text("not a tar " * 100)
    for path, words in ((tmp_path / "nowhere", "is no file"), (made, "MODEL_DIR= takes a directory"),
                        (tmp_path / "text", "is no archive")):
        with pytest.raises(Failure, match=words):
            install(FROM=path)
