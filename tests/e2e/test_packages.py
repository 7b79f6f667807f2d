"""What makes packages: META.json, the zip for PGXN, templates of Debian packages, the Dockerfile and the CI workflow.

`make test-debian` builds and installs the Debian packages. No container is built here: the Dockerfile is only read.
"""

import copy
import json
import re
import zipfile

import pytest

import deb
import dist
import model
import prerequisites
import versions
from conftest import CLONE
from state import Failure

META = json.loads((CLONE / "META.json").read_text(encoding="utf-8"))
MAKEFILE = (CLONE / "Makefile").read_text(encoding="utf-8")
VERBS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


# --- PGXN ---


def test_meta_json_is_as_the_specification_wants_it():
    assert dist.mistakes(META) == []
    files = {str(path.relative_to(CLONE)) for path in (CLONE / "README.md", CLONE / "gte-small.control")}
    assert dist.disagreements(META, files) == []
    cargo = re.search(r'^version = "(.+)"', (CLONE / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert META["version"] == versions.in_work() == cargo
    assert META["prereqs"]["runtime"]["requires"]["vector"] == prerequisites.PGVECTOR_NEEDED
    assert META["prereqs"]["runtime"]["recommends"]["vector"] == prerequisites.PGVECTOR_GOOD


WRONG = {
    "a missing key": (lambda m: m.pop("abstract"), "abstract is missing"),
    "an unknown key": (lambda m: m.update(author="x"), "author is unknown"),
    "a name with a slash": (lambda m: m.update(name="a/b"), "name is no name"),
    "a version of two numbers": (lambda m: m.update(version="0.2"), "version is no semantic version"),
    "a version with a zero in front": (lambda m: m.update(version="0.02.0"), "version is no semantic version"),
    "an unknown license": (lambda m: m.update(license="MIT"), "license is not one"),
    "no maintainer": (lambda m: m.update(maintainer=[]), "maintainer is neither"),
    "no extension": (lambda m: m.update(provides={}), "provides is no object"),
    "an extension without a file": (lambda m: m["provides"]["gte-small"].pop("file"), "provides.gte-small has no file"),
    "an unknown phase": (lambda m: m["prereqs"].update(use={}), "prereqs.use is no phase"),
    "an unknown relation": (lambda m: m["prereqs"]["runtime"].update(needs={}), "prereqs.runtime.needs is no relation"),
    "a wrong range": (lambda m: m["prereqs"]["runtime"]["requires"].update(vector="new"), "requires.vector is not a name"),
    "an unknown status": (lambda m: m.update(release_status="beta"), "release_status is neither"),
    "a tag with a slash": (lambda m: m.update(tags=["a/b"]), "tags is no list"),
    "another specification": (lambda m: m["meta-spec"].update(version="2.0.0"), "meta-spec.version is not"),
}


@pytest.mark.parametrize("change, said", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_meta_json_is_refused(change, said):
    meta = copy.deepcopy(META)
    change(meta)
    assert any(line.startswith(said) or said in line for line in dist.mistakes(meta)), dist.mistakes(meta)


def test_meta_json_must_fit_the_other_files():
    meta = copy.deepcopy(META)
    meta["version"] = "9.9.9"
    meta["provides"]["gte-small"]["file"] = "nowhere.sql"
    assert [line.split()[0] for line in dist.disagreements(meta, {"README.md"})] == ["version", "provides.gte-small.file"]


def test_the_zip(tmp_path):
    names = ["gte-small.control", "META.json", "Makefile"]
    for number in (1, 2):
        dist.pack(names, "gte-small-0.0.0", tmp_path / f"{number}.zip")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as zipped:
        assert zipped.namelist() == [f"gte-small-0.0.0/{name}" for name in names]
        assert zipped.read("gte-small-0.0.0/META.json") == (CLONE / "META.json").read_bytes()


def test_pgxns_client_can_build():
    """It calls `make all` and `make install`."""
    assert {"all", "install", "installcheck"} <= VERBS


# --- Debian ---


@pytest.fixture
def words(tmp_path):
    program = tmp_path / "pg_config"
    program.write_text("#!/bin/sh\ncase $1 in --version) echo PostgreSQL 17.4;; --sharedir) echo /usr/share/postgresql/17;; "
                       "esac\n")
    program.chmod(0o755)
    return deb.extension_words(program)


def test_the_templates_of_the_extension(words):
    made = deb.filled("extension", words)
    assert not any(re.search(r"@[A-Z_]+@", text) for text in made.values())
    control = made["control"]
    assert "\nPackage: postgresql-17-gte-small\n" in control and "postgresql-17 (>= 17.1)" in control
    # Debian 12 has no pgvector, so apt must be able to install without it.
    assert re.search(r"^Recommends: postgresql-17-pgvector", control, re.MULTILINE)
    assert not re.search(r"^Depends:.*pgvector", control, re.MULTILINE)
    assert made["changelog"].startswith(f"gte-small ({versions.in_work()}-1) ")
    assert made["links"] == "usr/share/gte-small/model usr/share/postgresql/17/gte-small\n"
    assert "\nLicense: MIT\n MIT License\n .\n Copyright" in made["copyright"]
    assert all(line.startswith("\t") or not line[:1].isspace() for line in made["rules"].splitlines())


@pytest.mark.parametrize("name, package", [
    (model.GTE_SMALL, "gte-small-model"), (model.MINILM, "gte-small-model-all-minilm-l6-v2"),
    ("My Model_2", "gte-small-model-my-model-2")])
def test_the_templates_of_the_model(name, package):
    made = deb.filled("model", deb.model_words(name))
    assert not any(re.search(r"@[A-Z_]+@", text) for text in made.values())
    assert f"\nPackage: {package}\n" in made["control"]
    # One model at a time, because all are in one place.
    assert "\nConflicts: gte-small-model\n" in made["control"]
    assert ("\nProvides: gte-small-model\n" in made["control"]) == (name != model.GTE_SMALL)
    assert "\n\n\n" not in made["control"]


# --- containers and CI ---


def test_the_dockerfile_copies_what_is_there_and_calls_verbs():
    text = (CLONE / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    instructions = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    stages, copied = [], set()
    for word, rest in instructions:
        assert word in ("ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY"), word
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            assert image in stages or image == "pgvector/pgvector:pg${PG}", image
            stages.append(name)
        elif word == "COPY" and rest.startswith("--from="):
            assert rest.split()[0].removeprefix("--from=") in stages
        elif word == "COPY":
            *sources, _ = rest.split()
            assert all((CLONE / source).exists() for source in sources), sources
            copied |= set(sources)
        elif word == "RUN":
            assert set(re.findall(r"(?:^|then |&& )make ([a-z-]+)", rest)) <= VERBS
    # Every file and folder that a build reads, and the workspace's members.
    members = re.search(r"^members = \[(.*)\]", (CLONE / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert {"Cargo.toml", "Cargo.lock", "Makefile", "gte-small.control", "scripts", "sql", "src",
            *re.findall(r'"(.+?)"', members)} <= copied
    assert f"--default-toolchain {prerequisites.wanted_rust()}." in text


def test_the_workflow_calls_verbs_only():
    text = (CLONE / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    runs = re.findall(r"^\s+- run: (.*)$", text, re.MULTILINE)
    called = {run.split()[1] for run in runs}
    if "${{" in called:
        called = (called - {"${{"}) | set(re.findall(r"- verb: (\S+)", text))
    assert runs and all(run.startswith("make ") for run in runs) and called <= VERBS, called
    assert not re.search(r"^\s+run: [|>]", text, re.MULTILINE)


def test_sources_without_git(tmp_path, monkeypatch):
    """As from the zip: packages have the time of the build, and the zip can't be made."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert deb.timestamp() > 1_700_000_000
    with pytest.raises(Failure, match="needs git and a clone"):
        dist.files()


@pytest.mark.parametrize("variables, command", [
    ({"PG": "15", "PG_CONFIG": "/usr/lib/postgresql/15/bin/pg_config", "PROFILE": ""}, "make deb PG=15"),
    ({"PG": "", "PG_CONFIG": "/my pg/pg_config", "PROFILE": "fast"}, "make deb PG_CONFIG='/my pg/pg_config' PROFILE=fast")])
def test_the_command_for_the_models_package_is_this_one_again(monkeypatch, variables, command):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert deb.again() == command


def test_all_that_is_missing_for_a_package_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(prerequisites, "DEBIAN_SERVERS", tmp_path)
    monkeypatch.setattr(prerequisites, "build_tools", lambda: ["cargo is missing"])
    for name, value in {"PG": "17", "PG_CONFIG": "", "PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Failure) as refused:
        deb.pg_config()
    lines = [line.split(" is missing")[0].strip() for line in str(refused.value).splitlines()[1:]]
    assert lines == ["dpkg-buildpackage", "dh", str(tmp_path / "17" / "bin" / "pg_config"), "cargo"]
