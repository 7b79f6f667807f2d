"""docs/install.md and the code say the same: commands and their number, packages, verbs, versions, the message of what is missing.

`make test-debian` runs the page's commands for packages and from source.
"""

import os
import re

import pytest

import build
import built
import debian
import install_page
import prerequisites
import versions
from conftest import CLONE
from state import Failure

PAGE = install_page.text()
MAKEFILE = (CLONE / "Makefile").read_text(encoding="utf-8")
# The commands of make for this project, without pgvector's.
MAKE = re.findall(r"\bmake ((?!-C )[^`&|\n]+)", PAGE)


def commands(title):
    """All commands of a section."""
    return [line for block in install_page.blocks(install_page.section(title)) for line in block]


def test_the_commands_to_a_first_search_are_counted():
    pgvector, source = install_page.block("apt.postgresql.org.sh"), commands("From source")
    package = install_page.block("apt-get install -y ./")
    psql = 1
    by_packages, by_source = (len(pgvector) + len(way) + psql for way in (package, source))
    assert f"takes {by_packages} commands with the packages at hand: the {len(pgvector)} of [pgvector]" in PAGE
    assert f"From source it takes {by_source}: the {len(pgvector)} of pgvector, the {len(source)} of [From source]" in PAGE
    assert len(install_page.block("pgvector/pgvector")) == len(pgvector) + 1 and "it is one command more" in PAGE
    assert len(package) == 1 and "sudo -u postgres psql" in install_page.section("Create the extension")


def test_every_way_begins_with_what_the_next_step_needs():
    """Sources are fetched before they are built, by a program that is installed before."""
    for part in ("pgvector/pgvector", "git clone ADDRESS"):
        lines = install_page.block(part)
        clone = next(number for number, line in enumerate(lines) if line.startswith("git clone "))
        assert any("apt-get install" in line and " git " in line for line in lines[:clone])
    assert install_page.block("git clone ADDRESS")[-1] == "cd gte-small"


def test_the_packages_that_a_build_and_a_server_need_are_named():
    named = {word for block in install_page.blocks(PAGE) for line in block if "apt-get install" in line
             for word in line.split("-y ")[1].split()}
    needed = {word for names in prerequisites.PACKAGES["apt"].values() for word in names.format(15).split()}
    assert needed | set(debian.TOOLS) <= named
    # What a build from source needs is there without the commands for pgvector's sources.
    own = " ".join([*install_page.block("apt.postgresql.org.sh"), *commands("From source")]).split()
    assert needed | {"make", "git", "curl"} <= set(own)


def test_the_commands_of_the_messages_are_those_of_the_page():
    lines = [line for block in install_page.blocks(PAGE) for line in block]
    assert prerequisites.RUSTUP in lines
    assert all(command in lines for command in prerequisites.PGDG.split(" && "))
    assert f"git clone --branch v{prerequisites.PGVECTOR_GOOD} https://github.com/pgvector/pgvector" in lines
    assert "docs/install.md#pgvector" in prerequisites._how_to_get_pgvector(15) and "\n## pgvector\n" in PAGE


def test_the_names_of_the_packages_have_the_version_in_work():
    (line,) = install_page.block("apt-get install -y ./")
    assert re.findall(r"\./(\S+)", line) == [f"postgresql-15-gte-small_{versions.in_work()}-1_amd64.deb", "gte-small-model_1.0-1_all.deb"]
    assert install_page.block("apt-get purge") == ["sudo apt-get purge -y postgresql-15-gte-small gte-small-model"]


def test_every_verb_and_variable_of_make_is_there():
    verbs = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    variables = set(re.search(r"^export (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    # Of the program that fetches, which gets it from make as every variable of the command line.
    variables |= {name for name in ("HF_ENDPOINT",) if name in (CLONE / "scripts" / "hub.py").read_text(encoding="utf-8")}
    called = [re.match(r"([a-z-]+)((?: [A-Z_]+=\S*)*)", words) for words in MAKE]
    assert len(called) > 15 and all(called), MAKE
    assert {call[1] for call in called} <= verbs
    assert set(re.findall(r"([A-Z_]+)=", " ".join(call[2] for call in called))) <= variables
    assert set(re.findall(r"`([A-Z_]+)=", PAGE)) <= variables | {"OPTFLAGS"}


def test_for_root_and_another_version():
    script = install_page.for_root(["sudo apt-get install -y ./postgresql-15-x_0.15.0_amd64.deb", "git clone x", "curl x | sh",
                                    "make deb PG=15"], 17, amd64="arm64")
    assert script == "apt-get install -y ./postgresql-17-x_0.17.0_arm64.deb\nmake deb PG=17"


def test_a_text_that_stands_in_no_block_or_in_two_is_refused():
    for part in ("no-such-command", "make "):
        with pytest.raises(Failure, match="shell blocks with"):
            install_page.block(part)
    with pytest.raises(Failure, match="no section Nothing"):
        install_page.section("Nothing")


SCRIPTS = {
    "cargo": "", "rustup": "", "rustc": "printf 'release: 1.85.0\\nhost: x86_64-unknown-linux-gnu\\n'", "gcc": "echo /usr/lib/crt1.o",
    "pg_config": "case $1 in --version) echo PostgreSQL 15.20;; --sharedir) echo '{0}/usr/share/postgresql/15';; "
                 "--pkglibdir) echo '{0}/usr/lib/postgresql/15/lib';; --includedir-server) echo '{0}/include';; esac",
}


def test_the_message_on_the_page_is_that_of_make_install(tmp_path, monkeypatch):
    bin_, libclang = tmp_path / "usr" / "bin", tmp_path / "libclang"
    for folder in (bin_, libclang, tmp_path / "include", tmp_path / "usr/lib/postgresql/15/lib",
                   tmp_path / "usr/share/postgresql/15/extension"):
        folder.mkdir(parents=True)
    for name, body in SCRIPTS.items():
        (bin_ / name).write_text(f"#!/bin/sh\n{body.format(tmp_path)}\n")
        (bin_ / name).chmod(0o755)
    (libclang / "libclang.so").write_text("")
    (tmp_path / "include" / "postgres.h").write_text("")
    (tmp_path / "os-release").write_text("ID=debian\n")
    for name, value in {"PATH": bin_, "HOME": tmp_path, "CARGO_HOME": tmp_path, "LIBCLANG_PATH": libclang,
                        "PG_CONFIG": bin_ / "pg_config", "PROFILE": "", "DESTDIR": ""}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(prerequisites, "OS_RELEASE", tmp_path / "os-release")
    monkeypatch.setattr(prerequisites, "APT_LISTS", tmp_path / "apt")
    monkeypatch.setattr(built, "HOME", tmp_path / "built")
    monkeypatch.setattr(build, "owner_of_the_clone", lambda: "")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr("sys.argv", ["build.py", "install"])
    with pytest.raises(Failure) as refused:
        build.main()
    shown = re.search(r"^```log\n(error: .*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)[1]
    assert f"error: {refused.value}".replace(str(tmp_path), "") == shown
