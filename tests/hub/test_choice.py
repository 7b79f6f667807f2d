"""scripts/model.py: the choice of the model, and the messages about it."""

import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tempfile

import model
import pytest
import state
from conftest import CLONE, FILES, PIPELINE, WEIGHTS, content
from local_hub import status, stop, unused_port


@pytest.fixture
def no_gte_small(monkeypatch, tmp_path):
    """As on a machine without gte-small; the stand-in stays."""
    real = model.place_of
    monkeypatch.setattr(model, "place_of", lambda name: tmp_path / name if name == model.GTE_SMALL else real(name))


@pytest.fixture
def network(monkeypatch, tmp_path):
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))

    def use(endpoint):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
    return use


@pytest.fixture
def unreachable(network):
    endpoint = f"http://127.0.0.1:{unused_port()}"
    network(endpoint)
    return endpoint


@pytest.fixture
def own_model(tmp_path):
    directory = tmp_path / "my-model"
    (directory / "1_Pooling").mkdir(parents=True)
    for name in (*model.REQUIRED, *model.OPTIONAL):
        (directory / name).write_bytes((FILES | PIPELINE)[name])
    return directory


# --- gte-small or its stand-in ---


def test_an_unreachable_hub_gives_the_stand_in_and_says_so(no_gte_small, unreachable):
    choice = model.choose()
    assert (choice["asked"], choice["name"]) == ("gte-small", "all-MiniLM-L6-v2")
    assert choice["path"] == str(model.minilm())
    notice = model.notice(json.loads(json.dumps(choice)))
    assert "\n" not in notice
    for words in ("all-MiniLM-L6-v2", "gte-small", f"{unreachable} cannot be reached", "refused", "make model",
                  "make reembed MODEL=gte-small"):
        assert words in notice


def test_without_a_stand_in_an_unreachable_hub_is_an_error(no_gte_small, unreachable, tmp_path):
    with pytest.raises(model.Unreachable, match="cannot be reached"):
        model.choose("gte-small", stand_in=False)
    assert not (tmp_path / "gte-small").exists()


def test_an_asked_for_minilm_is_no_stand_in():
    choice = model.choose("all-MiniLM-L6-v2")
    assert (choice["name"], choice["hub_error"], model.notice(choice)) == ("all-MiniLM-L6-v2", None, "")


def test_a_download_is_told_apart_by_its_ending(hub, network, tmp_path):
    network(hub.endpoint)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(hub.manifest())
    options = ["--manifest", str(manifest), "--attempts", "1"]
    hub.fault(WEIGHTS, stop("cut", 700_000))
    with pytest.raises(model.Unreachable, match="broke off"):
        model.fetch(tmp_path / "model", *options)
    hub.heal()
    good = hub.files["config.json"]
    shutil.rmtree(tmp_path / "hf-home")
    hub.files["config.json"] = b'{"hidden_size": 385}\n'
    with pytest.raises(model.Refused, match="not the pinned file"):
        model.fetch(tmp_path / "model", *options)
    hub.files["config.json"] = good
    hub.fault(WEIGHTS, status(404), hosts=("hub",), metadata=True)
    with pytest.raises(model.NotFetched, match="404") as caught:
        model.fetch(tmp_path / "model", *options)
    assert not isinstance(caught.value, (model.Unreachable, model.Refused))
    assert "\n" not in caught.value.fact
    assert not (tmp_path / "model").exists()
    hub.heal()
    model.fetch(tmp_path / "model", *options)
    assert {p.name: p.read_bytes() for p in (tmp_path / "model").iterdir()} == FILES


def test_minilm_is_complete_and_readable_by_all():
    directory = model.minilm()
    assert {p.name: p.stat().st_size for p in directory.iterdir()} == model.MINILM_FILES
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o644 for p in directory.iterdir())
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


# --- the request ---


@pytest.mark.parametrize("name, directory, expected", [
    ("", "", ""), ("gte-small", "", "gte-small"), ("all-MiniLM-L6-v2", "", "all-MiniLM-L6-v2"),
    ("", "/models/mine", "/models/mine"), ("", "mine", str(pathlib.Path.cwd() / "mine"))])
def test_what_is_asked_for(monkeypatch, name, directory, expected):
    monkeypatch.setenv("MODEL", name)
    monkeypatch.setenv("MODEL_DIR", directory)
    if directory == "mine":
        expected = str(pathlib.Path.cwd() / "mine")
    assert model.asked() == expected


@pytest.mark.parametrize("name, directory, words", [("gte-large", "", "gte-small"), ("gte-small", "/x", "two models")])
def test_what_cannot_be_asked_for(monkeypatch, name, directory, words):
    monkeypatch.setenv("MODEL", name)
    monkeypatch.setenv("MODEL_DIR", directory)
    with pytest.raises(state.Failure, match=words):
        model.asked()


def test_the_command_without_a_hub_names_the_other_model(unreachable, tmp_path):
    if (model.STATE / "models" / "gte-small").is_dir():
        pytest.skip("gte-small is here, so the command asks no hub")
    done = subprocess.run([sys.executable, CLONE / "scripts" / "model.py"], capture_output=True, text=True,
                          env={**os.environ, "MODEL": "gte-small", "MODEL_DIR": ""})
    assert done.returncode == 1 and done.stdout == ""
    assert "cannot be reached" in done.stderr and "make model MODEL=all-MiniLM-L6-v2" in done.stderr
    assert "Traceback" not in done.stderr


# --- a directory of the user ---


def test_an_own_directory_is_taken(own_model):
    choice = model.choose(str(own_model))
    assert (choice["asked"], choice["name"], choice["hub_error"]) == (str(own_model), "my-model", None)
    taken = pathlib.Path(choice["path"])
    assert content(taken) == FILES | PIPELINE
    if taken != own_model:
        shutil.rmtree(taken)


def test_a_plain_users_directory_is_used_in_place(own_model, monkeypatch):
    monkeypatch.setattr(state, "server_user", lambda: None)
    assert model.own(str(own_model)) == own_model


@pytest.mark.parametrize("missing", model.REQUIRED)
def test_an_own_directory_without_a_file(own_model, missing):
    (own_model / missing).unlink()
    with pytest.raises(state.Failure, match=f"{missing} is missing"):
        model.own(str(own_model))


@pytest.mark.parametrize("config, words", [('{"hidden_size": 768}', "768 dimensions"), ("{}", "no hidden_size"),
                                           ("{", "no hidden_size"), ("[]", "no hidden_size")])
def test_an_own_directory_of_another_kind(own_model, config, words):
    (own_model / "config.json").write_text(config)
    with pytest.raises(state.Failure, match=words):
        model.own(str(own_model))


def test_an_own_directory_that_is_none(tmp_path):
    with pytest.raises(state.Failure, match="is no directory"):
        model.own(str(tmp_path / "nowhere"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a server user to copy for")
def test_roots_private_directory_is_copied_for_the_server(own_model, monkeypatch):
    own_model.chmod(0o700)
    open_place = pathlib.Path(tempfile.mkdtemp(dir=state.directory("tmp")))
    open_place.chmod(0o755)
    monkeypatch.setattr(model, "place_of", lambda name: open_place / name)
    try:
        user = state.server_user()
        copy = model.own(str(own_model))
        assert copy.parent == open_place
        assert all(model._reads(user, path) for path in copy.rglob("*"))
        assert content(copy) == FILES | PIPELINE
        # A changed model is copied again, an unchanged one is not.
        before = (copy / WEIGHTS).stat().st_ino
        assert model.own(str(own_model)) == copy and (copy / WEIGHTS).stat().st_ino == before
        (own_model / WEIGHTS).write_bytes(b"retrained")
        assert (model.own(str(own_model)) / WEIGHTS).read_bytes() == b"retrained"
        # A file of the pooling that is gone or new makes another model.
        (own_model / "1_Pooling" / "config.json").unlink()
        assert set(content(model.own(str(own_model)))) == {*FILES, *PIPELINE} - {"1_Pooling/config.json"}
        (own_model / "1_Pooling" / "config.json").write_bytes(b"{}")
        assert (model.own(str(own_model)) / "1_Pooling" / "config.json").read_bytes() == b"{}"
    finally:
        shutil.rmtree(open_place)
