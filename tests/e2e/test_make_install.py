"""`make install` and `make uninstall`: the files of every version, and the statements to type next."""

import os

import pytest

import build
import built
import prerequisites
import versions
from state import Failure

NEW = ('Next, in a database, as a superuser:\n  create extension "gte-small" cascade;\n  select * from embed_selftest();\n'
       "The model, once per server:  make install-model PG_CONFIG=")
UPDATE = ('Version {} was there. Next, in each database that has it, as a superuser:\n  alter extension "gte-small" update;\n'
          "  select * from refresh_semantic_search();\nA server with gte-small in shared_preload_libraries must be restarted first.")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty PostgreSQL installation, and a stand-in for the library: `built` has one line for each build."""
    extension, libraries, headers = tmp_path / "share" / "extension", tmp_path / "lib", tmp_path / "include"
    for folder in (extension, libraries, headers):
        folder.mkdir(parents=True)
    (extension / "vector.control").write_text("default_version = '0.8.4'\n")
    (headers / "postgres.h").write_text("")
    program = tmp_path / "pg_config"
    program.write_text(f"#!/bin/sh\ncase $1 in --version) echo PostgreSQL 18.1;; --sharedir) echo '{tmp_path}/share';; "
                       f"--pkglibdir) echo '{libraries}';; --includedir-server) echo '{headers}';; esac\n")
    program.chmod(0o755)
    library = tmp_path / "cargo.so"
    library.write_bytes(b"library")

    def stand_in(_, profile):
        with open(tmp_path / "built", "a", encoding="utf-8") as log:
            log.write(f"{profile}\n")
        return library

    for name, value in {"PG_CONFIG": str(program), "PROFILE": "", "DESTDIR": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(build, "build", stand_in)
    monkeypatch.setattr(prerequisites, "build_tools", lambda: [])
    monkeypatch.setattr(built, "HOME", tmp_path / "target" / "built")
    return tmp_path


def builds(place):
    log = place / "built"
    return log.read_text().split() if log.is_file() else []


@pytest.fixture
def refusing(monkeypatch):
    """A user without the right to write to the installation."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)


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


def test_the_model_after_sudo_make_install(verb, monkeypatch):
    """The user of the clone fetches it, and root installs it."""
    verb("build")
    monkeypatch.setattr(build, "owner_of_the_clone", lambda: "ada")
    assert "The model, once per server:  make model  as ada, then  sudo make install-model PG_CONFIG=" in verb("install")


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


def test_without_the_right_to_write_nothing_is_built(place, verb, refusing):
    older(place, "0.1.0")
    with pytest.raises(Failure) as refused:
        verb("install")
    said = str(refused.value)
    pg_config = f"PG_CONFIG={place / 'pg_config'}"
    assert f"{place / 'lib'} and {place / 'share' / 'extension'}:  make build {pg_config} && sudo make install {pg_config}" in said
    assert builds(place) == [] and there(place) == ["gte-small.control", "vector.control"]


def test_what_is_built_is_installed_by_another_user(place, verb, monkeypatch):
    """`make build`, then `sudo make install`, which needs no cargo."""
    assert "sudo make install PG_CONFIG=" in verb("build")
    assert builds(place) == ["release"] and there(place) == ["vector.control"]
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    assert "is installed" in verb("install")
    assert builds(place) == ["release"]
    assert [path.read_bytes() for path in (place / "lib").iterdir()] == [b"library"]


def test_without_the_right_to_write_what_is_built_is_named(place, verb, refusing):
    verb("build")
    with pytest.raises(Failure) as refused:
        verb("install")
    assert f":  sudo make install PG_CONFIG={place / 'pg_config'}" in str(refused.value)
    assert "make build" not in str(refused.value)


def test_a_changed_source_is_built_again(place, verb, monkeypatch):
    verb("install")
    monkeypatch.setattr(built, "SOURCES", ("gte-small.control",))
    verb("install")
    verb("install")
    assert builds(place) == ["release", "release"]


def test_profiles_are_kept_apart(place, verb, monkeypatch):
    verb("build")
    monkeypatch.setenv("PROFILE", "fast")
    assert "PROFILE=fast" in verb("build")
    verb("install")
    assert builds(place) == ["release", "fast"]
    monkeypatch.setenv("PROFILE", "slow")
    with pytest.raises(Failure, match="neither release nor fast"):
        verb("install")


def test_root_does_not_build_in_another_users_clone(place, verb, monkeypatch):
    """What root builds there, the owner could not replace."""
    monkeypatch.setattr(build, "owner_of_the_clone", lambda: "ada")
    with pytest.raises(Failure) as refused:
        verb("install")
    assert "make build" in str(refused.value) and "as ada" in str(refused.value) and builds(place) == []


def test_destdir_gets_every_file_and_needs_no_server(place, verb, monkeypatch):
    (place / "share" / "extension" / "vector.control").unlink()
    (place / "share" / "extension").rmdir()
    monkeypatch.setenv("DESTDIR", str(place / "package"))
    verb("install")
    inside = place / "package" / place.relative_to("/")
    assert {path.name for path in (inside / "share" / "extension").iterdir()} == {"gte-small.control", *versions.contents()}
    assert [path.name for path in (inside / "lib").iterdir()] == [build.library_place(place / "pg_config").name]
    assert not any((place / "lib").iterdir())
    verb("uninstall")
    assert not any((inside / "lib").iterdir())


def test_pgvector_is_missed_before_the_build(place, verb):
    (place / "share" / "extension" / "vector.control").unlink()
    with pytest.raises(Failure, match="pgvector is missing in the PostgreSQL of .*:  .*pgvector"):
        verb("install")
    assert builds(place) == []
    # A machine that only builds needs none. The note is above and below the compiler's lines.
    said = verb("build")
    assert "note: make install will need this: pgvector is missing" in said and "Next:\n  pgvector is missing" in said
    assert builds(place) == ["release"]


@pytest.mark.parametrize("version, said", [("0.7.4", "pgvector is 0.7.4 and must be 0.8.0 or newer"),
                                           ("0.8.0", "note: pgvector is 0.8.0, and 0.8.4 mended"), ("0.8.10", "")])
def test_an_old_pgvector_is_told(place, verb, version, said):
    (place / "share" / "extension" / "vector.control").write_text(f"default_version = '{version}'\n")
    if version == "0.7.4":
        with pytest.raises(Failure, match=said):
            verb("install")
        assert builds(place) == []
    else:
        found = verb("install")
        assert (said in found) if said else ("note: pgvector" not in found)


def test_uninstall_says_what_is_left(place, verb, monkeypatch):
    verb("install")
    model = place / "share" / "gte-small"
    model.mkdir()
    (model / "model.safetensors").write_bytes(bytes(3_000_000))
    data = place / "data"
    data.mkdir()
    (data / "postgresql.conf").write_text("#shared_preload_libraries = 'gte-small'\nport = 5432\n"
                                          "shared_preload_libraries = 'pg_cron, gte-small'\n")
    (data / "postgresql.auto.conf").write_text("session_preload_libraries 'gte-small'\n")
    monkeypatch.setenv("PGDATA", str(data))
    said = verb("uninstall")
    assert f"The model is left in {model} (3 MB)" in said and f"sudo rm -r {model}" in said
    assert f"{data / 'postgresql.conf'}, line 3, names gte-small" in said
    assert f"{data / 'postgresql.auto.conf'}, line 1, names gte-small" in said and "line 1, names" in said
    assert f"{data / 'postgresql.conf'}, line 1," not in said
    assert "shared_preload_libraries and session_preload_libraries" in said and "drop extension" in said


def test_uninstall_removes_all_or_nothing(place, verb, refusing):
    (place / "share" / "extension" / "gte-small.control").write_text("")
    with pytest.raises(Failure, match="nothing was removed") as refused:
        verb("uninstall")
    assert f"sudo make uninstall PG_CONFIG={place / 'pg_config'}" in str(refused.value)
    assert there(place) == ["gte-small.control", "vector.control"]
