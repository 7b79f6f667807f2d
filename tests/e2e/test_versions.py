"""scripts/versions.py: what an installation has of each version, and how a version is frozen."""

import re

import pytest

import versions
from state import Failure

CREATE = "CREATE FUNCTION one()\n  AS 'format(''CREATE FUNCTION x'')';\n  CREATE FUNCTION inside\nCREATE PROCEDURE two() AS 2;\nCREATE TYPE three AS (a int);\n"
GUARD = '\\echo Use "ALTER EXTENSION "gte-small" UPDATE" to load this file. \\quit\n'


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Sources of an extension whose version 0.9.0 is released and whose version in work is 0.10.0."""
    for name in ("extension", "update", "released"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(versions, name.upper(), tmp_path / name)
    monkeypatch.setattr(versions, "CONTROL", tmp_path / "gte-small.control")
    begin(tmp_path, "0.10.0")
    (tmp_path / "released" / "gte-small--0.8.0.sql").write_text("oldest\n")
    (tmp_path / "released" / "gte-small--0.8.0--0.9.0.sql").write_text("update\n")
    (tmp_path / "released" / "gte-small--0.9.0.sql").write_text("old\n")
    (tmp_path / "update" / "0.9.0--0.10.0.sql").write_text(GUARD + "DROP FUNCTION old();\n")
    (tmp_path / "extension" / "20-functions.sql").write_text(CREATE)
    (tmp_path / "extension" / "10-guard.sql").write_text('\\echo Use "CREATE EXTENSION" to load this file. \\quit\nDO 1;\n')
    return tmp_path


def begin(tree, version):
    (tree / "gte-small.control").write_text(f"comment = 'x'\ndefault_version = '{version}'\n")


def test_both_scripts_come_from_the_same_sources(tree):
    made = versions.scripts()
    assert made.keys() == {"gte-small--0.10.0.sql", "gte-small--0.9.0--0.10.0.sql"}
    assert made["gte-small--0.10.0.sql"] == '\\echo Use "CREATE EXTENSION" to load this file. \\quit\nDO 1;\n\n' + CREATE
    # Only the commands of the script itself are replaced.
    assert made["gte-small--0.9.0--0.10.0.sql"] == (
        GUARD + "DROP FUNCTION old();\n\nDO 1;\n\nCREATE OR REPLACE FUNCTION one()\n  AS 'format(''CREATE FUNCTION x'')';\n"
        "  CREATE FUNCTION inside\nCREATE OR REPLACE PROCEDURE two() AS 2;\nCREATE TYPE three AS (a int);\n")


def test_versions_are_sorted_as_numbers(tree):
    assert versions.released() == ["0.8.0", "0.9.0"] and versions.in_work() == "0.10.0"
    assert sorted(["0.10.0", "0.9.0", "1.0.0", "0.9.1"], key=versions.key) == ["0.9.0", "0.9.1", "0.10.0", "1.0.0"]


@pytest.mark.parametrize("name", ["0.8.0--0.10.0.sql", "0.9.0--0.9.1.sql", None])
def test_an_update_begins_at_the_last_release(tree, name):
    head = tree / "update" / "0.9.0--0.10.0.sql"
    head.rename(tree / "update" / name) if name else head.unlink()
    with pytest.raises(Failure, match="must have the file 0.9.0--0.10.0.sql"):
        versions.scripts()


def test_an_update_script_is_not_for_psql(tree):
    (tree / "update" / "0.9.0--0.10.0.sql").write_text("DROP FUNCTION old();\n")
    with pytest.raises(Failure, match="must begin with the line"):
        versions.scripts()


def test_a_release(tree):
    made = versions.scripts()
    versions.freeze()
    assert set(versions.contents()) == {
        "gte-small--0.8.0.sql", "gte-small--0.8.0--0.9.0.sql", "gte-small--0.9.0.sql", *made}
    assert all((tree / "released" / name).read_text() == text for name, text in made.items())
    assert list((tree / "update").iterdir()) == []
    with pytest.raises(Failure, match="released already"):
        versions.freeze()
    # A change of the SQL now needs a version.
    (tree / "extension" / "20-functions.sql").write_text(CREATE + "CREATE FUNCTION late() AS 1;\n")
    with pytest.raises(Failure, match="version 0.10.0 is released"):
        versions.contents()
    begin(tree, "0.11.0")
    with pytest.raises(Failure, match="must have the file 0.10.0--0.11.0.sql"):
        versions.contents()
    (tree / "update" / "0.10.0--0.11.0.sql").write_text(GUARD)
    assert versions.scripts().keys() == {"gte-small--0.11.0.sql", "gte-small--0.10.0--0.11.0.sql"}


def test_cargo_pgrx_joins_the_files_in_the_order_of_their_names():
    """cargo pgrx orders files by `requires` alone; its script is the one that `make install` installs."""
    source = (versions.CLONE / "src" / "lib.rs").read_text(encoding="utf-8")
    listed = re.findall(r'extension_sql_file!\(\s*"\.\./sql/extension/([^"]+)",\s*name = "(\w+)"(?:,\s*requires = \["(\w+)"\])?', source)
    assert [file for file, _, _ in listed] == sorted(path.name for path in versions.EXTENSION.glob("*.sql"))
    assert [required for _, _, required in listed] == ["", *[name for _, name, _ in listed[:-1]]]
