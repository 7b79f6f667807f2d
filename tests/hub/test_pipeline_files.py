"""The files of a model with another pooling and with prompts: downloaded, kept, checked."""

import json
import re
import shutil
import stat
import subprocess

import model
import pytest
from conftest import CLONE, FILES, PIPELINE
from local_hub import LocalHub


@pytest.fixture
def hub():
    hub = LocalHub(FILES | PIPELINE)
    yield hub
    hub.close()


def test_a_file_in_a_folder_arrives_there(fetch, hub):
    done = fetch(hub)
    assert (done.code, done.err) == (0, "")
    assert fetch.holds(FILES | PIPELINE)
    folder = fetch.dir / "1_Pooling"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o644
    hub.requests.clear()
    assert "nothing to download" in fetch(hub).out and hub.requests == []


def test_a_damaged_file_in_a_folder_is_replaced(fetch, hub):
    fetch(hub)
    (fetch.dir / "1_Pooling" / "config.json").write_text("{}")
    assert fetch(hub).code == 0
    assert fetch.holds(FILES | PIPELINE)


def test_other_files_in_the_folder_are_kept(fetch, hub):
    fetch(hub)
    (fetch.dir / "1_Pooling" / "config.json").unlink()
    (fetch.dir / "1_Pooling" / "notes.txt").write_text("mine")
    done = fetch(hub)
    assert done.code == 1 and "1_Pooling/notes.txt, which is not a model file" in done.err
    assert (fetch.dir / "1_Pooling" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["../config.json", "1_Pooling/../x", "/etc/x", "a/b/c", "1_Pooling/", ".git/config"])
def test_a_name_that_leads_elsewhere_is_refused(fetch, hub, name):
    manifest = json.loads(hub.manifest())
    manifest["files"][0]["name"] = name
    fetch.manifest.write_text(json.dumps(manifest))
    done = fetch(hub)
    assert done.code == 1 and "a file's name is not of the form" in done.err
    assert not fetch.dir.exists()


def test_the_engine_and_the_scripts_read_the_same_files():
    source = (CLONE / "engine" / "src" / "model" / "files.rs").read_text(encoding="utf-8")
    names = re.search(r"pub const MODEL_FILES: \[&str; 7\] = \[(.*?)\];", source, re.DOTALL)[1]
    names = names.replace("POOLING", '"1_Pooling/config.json"')
    assert re.findall(r'"(.*?)"', names) == [*model.REQUIRED, *model.OPTIONAL]


def test_check_names_pooling_and_prompts(tool, tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(model.minilm(), directory)
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    (directory / "config_sentence_transformers.json").write_text('{"prompts": {"query": "search: "}}')
    done = subprocess.run([tool, "check", directory], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    heading = done.stdout.splitlines()[0]
    assert "6 layers, 256 tokens, cls pooling, query prompt \"search: \", " in heading
    (directory / "1_Pooling" / "config.json").write_text('{"pooling_mode": "max"}')
    done = subprocess.run([tool, "check", directory], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and '"1_Pooling/config.json" is not supported' in done.stderr
