"""`make test-citus` and `make bench-citus` where something is missing: they say what, run nothing and end without an error."""

import os
import shutil
import subprocess
import sys

import pytest

from conftest import CLONE

PG_CONFIG = ("#!/bin/sh\ncase $1 in --version) echo 'PostgreSQL 18.1';; --sharedir) echo '{0}/share';; "
             "--pkglibdir) echo '{0}/lib';; *) exit 1;; esac\n")


@pytest.fixture
def stand_in(tmp_path):
    """A pg_config of a PostgreSQL that has these extensions' control files, and no library."""
    extensions = tmp_path / "share" / "extension"
    extensions.mkdir(parents=True)
    program = tmp_path / "pg_config"
    program.write_text(PG_CONFIG.format(tmp_path))
    program.chmod(0o755)

    def make(*names):
        for name in names:
            (extensions / f"{name}.control").write_text("")
        return program
    return make


@pytest.fixture(params=["test-citus", "bench-citus"])
def said(request):
    """Runs the verb with a PG_CONFIG; returns the lines that it says after the first."""
    def run(pg_config):
        env = {name: value for name, value in os.environ.items() if name not in ("PG_CONFIG", "MAKEFLAGS", "MAKELEVEL", "GTE_CITUS")}
        if pg_config is not None:
            env["PG_CONFIG"] = str(pg_config)
        done = subprocess.run([shutil.which("make"), "--no-print-directory", request.param, f"PYTHON={sys.executable}"], cwd=CLONE, env=env,
                              capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout == "", done.stderr
        first, *lines = done.stderr.splitlines()
        assert first == f"make {request.param} did not run:"
        return [line.strip() for line in lines]
    return run


def test_without_pg_config(said):
    assert said(None) == ["PG_CONFIG is not set: name the pg_config of a PostgreSQL with Citus"]


def test_a_postgresql_without_citus(said, stand_in):
    assert said(stand_in("vector", "gte-small")) == ["citus is not installed: build and install Citus for this PostgreSQL"]


def test_all_that_is_missing_is_named(said, stand_in):
    program = stand_in()
    assert said(program) == ["citus is not installed: build and install Citus for this PostgreSQL",
                             "vector is not installed: build and install pgvector for this PostgreSQL",
                             f"gte-small is not installed: make install PG_CONFIG={program}"]


def test_files_of_the_extension_without_its_library(said, stand_in):
    program = stand_in("citus", "vector", "gte-small")
    assert said(program) == [f"the library of gte-small is not installed: make install PG_CONFIG={program}"]


@pytest.mark.parametrize("wrong", ["/nowhere/bin/pg_config", "/", "/bin/false"])
def test_a_path_that_is_no_pg_config(said, wrong):
    [line] = said(wrong)
    assert wrong in line and "not installed" not in line
