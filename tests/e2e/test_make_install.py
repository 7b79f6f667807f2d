"""`make install` and `make uninstall`: the files of every version, and the statements to type next."""

import os

import pytest

import build
import versions
from state import Failure

NEW = ('Next, in a database, as a superuser:\n  create extension "gte-small" cascade;\n  select * from embed_selftest();\n'
       "The model, once per server:  make install-model")
UPDATE = ('Version {} was there. Next, in each database that has it, as a superuser:\n  alter extension "gte-small" update;\n'
          "  select * from refresh_semantic_search();\nA server with gte-small in shared_preload_libraries must be restarted first.")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty PostgreSQL installation; the verbs install a stand-in for the library there."""
    extension, libraries = tmp_path / "share" / "extension", tmp_path / "lib"
    extension.mkdir(parents=True)
    libraries.mkdir()
    (extension / "vector.control").write_text("")
    program = tmp_path / "pg_config"
    program.write_text(f"#!/bin/sh\ncase $1 in --version) echo PostgreSQL 18.1;; --sharedir) echo '{tmp_path}/share';; "
                       f"--pkglibdir) echo '{libraries}';; esac\n")
    program.chmod(0o755)
    library = tmp_path / "built.so"
    library.write_bytes(b"library")
    monkeypatch.setenv("PG_CONFIG", str(program))
    monkeypatch.setattr(build, "build", lambda *_: library)
    return tmp_path


@pytest.fixture
def verb(place, monkeypatch, capsys):
    """Runs a verb; returns what it says."""
    def run(name):
        monkeypatch.setattr("sys.argv", ["build.py", name])
        build.main()
        return capsys.readouterr().err
    return run


def there(place):
    return sorted(path.name for path in (place / "share" / "extension").iterdir())


def older(place, version):
    """The files of an older installation."""
    (place / "share" / "extension" / "gte-small.control").write_text(f"default_version = '{version}'\n")


def test_every_version_can_be_created_and_updated(place, verb):
    verb("install")
    work = versions.in_work()
    names = {f"gte-small--{version}.sql" for version in [*versions.released(), work]}
    assert {*names, f"gte-small--{versions.released()[-1]}--{work}.sql", "gte-small.control"} <= set(there(place))
    assert len(list((place / "lib").iterdir())) == 1


def test_scripts_of_other_versions_stay(place, verb):
    other = place / "share" / "extension" / "gte-small--0.0.9.sql"
    other.write_text("other")
    verb("install")
    assert other.read_text() == "other"
    verb("uninstall")
    assert there(place) == ["vector.control"] and not any((place / "lib").iterdir())


def test_the_next_statements_of_a_first_installation(verb):
    said = verb("install")
    assert NEW in said and "alter extension" not in said and f"gte-small {versions.in_work()} is installed" in said
    # Again: the same version was there.
    assert NEW in verb("install") and "alter extension" not in verb("install")


@pytest.mark.parametrize("version", ["0.1.0", "0.0.9"])
def test_the_next_statements_after_an_older_version(place, verb, version):
    older(place, version)
    said = verb("install")
    assert UPDATE.format(version) in said and 'create extension "gte-small" cascade;' in said
    assert "alter extension" not in verb("install")


@pytest.mark.parametrize("version", ["99.0.0", versions.in_work()])
def test_no_update_after_a_newer_version(place, verb, version):
    older(place, version)
    assert "alter extension" not in verb("install")


def test_without_the_right_to_write_the_update_is_named_beforehand(place, verb, monkeypatch):
    """The files are then copied by hand, and the repeated command finds the new control file."""
    older(place, "0.1.0")
    with monkeypatch.context() as refusing:
        refusing.setattr(os, "access", lambda path, mode: mode != os.W_OK)
        with pytest.raises(Failure) as refused:
            verb("install")
    assert "sudo install" in str(refused.value) and UPDATE.format("0.1.0") in str(refused.value)
    assert there(place) == ["gte-small.control", "vector.control"]


def test_installation_without_pgvector_says_so(place, verb):
    (place / "share" / "extension" / "vector.control").unlink()
    assert "pgvector is not there yet" in verb("install")
