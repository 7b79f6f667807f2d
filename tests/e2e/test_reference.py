"""docs/reference.md and the catalogue say the same: functions with arguments, defaults and columns, settings, SQLSTATEs."""

import pathlib
import re

import pytest

import postgres
from conftest import CLONE

TYPES = {"integer": "int", "double precision": "float8", "boolean": "bool"}
# Not for users: raised and caught within the backfill; a notice's and a warning's own.
INTERNAL = {"GT000", "ERRCODE_SUCCESSFUL_COMPLETION", "ERRCODE_WARNING"}

ARGUMENTS = """
select p.prokind::text, p.proname::text, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
       array(select coalesce(p.proargnames[n], '') from generate_subscripts(p.proargmodes, 1) n where p.proargmodes[n] in ('o', 'b', 't'))
  from pg_proc p
"""
PUBLIC = """
  join pg_depend d on d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e'
  join pg_extension e on e.oid = d.refobjid and e.extname = 'gte-small' and e.extnamespace = p.pronamespace
"""


def section(heading):
    page = (CLONE / "docs" / "reference.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert found, f"the page has no section {heading}"
    return found[1]


def cells(text):
    """The rows of the tables, without heads and rules."""
    rows = [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if not set("".join(row)) <= set("-") and row[0] not in ("function", "setting", "SQLSTATE")]


def documented(*headings):
    """The signatures in the first cells."""
    return {row[0].strip("`") for heading in headings for row in cells(section(heading))}


def headings(start):
    page = (CLONE / "docs" / "reference.md").read_text(encoding="utf-8")
    return [heading for heading in re.findall(r"^## (.*)$", page, re.MULTILINE) if heading.startswith(start)]


def signature(kind, name, arguments, result, columns):
    """A function in the form of the page."""
    wanted = []
    for argument in re.split(r", (?=(?:IN |OUT |INOUT )?\"?\w+\"? )", arguments) if arguments else []:
        if argument.startswith("OUT "):
            continue
        argument = re.sub(r"^(IN|INOUT) ", "", argument)
        argument = re.sub(r" DEFAULT (.*)$", lambda default: " default " + re.sub(r"::[\w ]+$", "", default[1]), argument)
        argument = argument.replace("default NULL", "default null")
        for long, short in TYPES.items():
            argument = argument.replace(f" {long}", f" {short}")
        wanted.append(argument)
    head = f"{'call ' if kind == 'p' else ''}{name}({', '.join(wanted)})"
    if kind == "p":
        return head
    return f"{head} → ({', '.join(columns)})" if columns else f"{head} → {TYPES.get(result, result)}"


def test_every_function_is_documented_with_its_arguments_and_columns_and_no_other(connection):
    found = {signature(*row) for row in connection.execute(ARGUMENTS + PUBLIC)}
    assert documented(*[heading for heading in headings("Functions") if heading != "Functions made for a table"]) == found


def test_the_functions_made_for_a_table(connection):
    connection.execute("create table docs (id int primary key, content text); select enable_semantic_search('docs');"
                       "create table manuals (id int primary key, content text); select enable_document_search('manuals')")
    rows = connection.execute(ARGUMENTS + "where p.proname ~ '_(docs|manuals)$' and p.prorettype <> 'trigger'::regtype").fetchall()
    found = {signature(*row).partition(" → ")[0] for row in rows}
    assert documented("Functions made for a table") == found


def test_every_setting_is_documented_with_its_default_its_context_and_its_values(connection):
    connection.execute("select embed('x')")
    wanted = {}
    for name, default, context, kind, least, most, values in connection.execute(
            "select name, boot_val, context, vartype, min_val, max_val, enumvals from pg_settings where name like 'gte\\_small.%'"):
        said = {"bool": "on, off", "integer": f"{least} to {most}", "string": "a directory"}.get(kind)
        wanted[name] = (f"`{default or repr('')}`", context, said or ", ".join(f"`{value}`" for value in values))
    assert {row[0].strip("`"): tuple(row[1:4]) for row in cells(section("Settings"))} == wanted


def raised():
    """The error codes that the source code names, as conditions and macros."""
    for path in sorted((CLONE / "src").rglob("*.rs")):
        yield from re.findall(r"ERRCODE_[A-Z0-9_]+", path.read_text(encoding="utf-8"))
    for path in [*(CLONE / "sql" / "extension").glob("*.sql"), *(CLONE / "sql").glob("*.sql")]:
        yield from re.findall(r"errcode = '(\w+)'", path.read_text(encoding="utf-8"), re.IGNORECASE)


def test_every_sqlstate_is_documented_and_no_other(server):
    codes = pathlib.Path(postgres.config(server.cluster.pg_config, "--sharedir")) / "errcodes.txt"
    if not codes.is_file():
        pytest.skip(f"no {codes}")
    named = {}
    for line in codes.read_text(encoding="utf-8").splitlines():
        parts = line.split()
        if len(parts) >= 3 and re.fullmatch(r"[0-9A-Z]{5}", parts[0]):
            for name in parts[2:]:
                # As PL/pgSQL: the first of several codes of one name.
                named.setdefault(name, parts[0])
    found = {named[name] for name in set(raised()) - INTERNAL}
    said = [code for row in cells(section("Errors")) for code in row[0].split(", ")]
    assert set(said) == found
    assert len(said) == len(set(said))


def test_every_state_is_documented():
    status = (CLONE / "sql" / "extension" / "60-status.sql").read_text(encoding="utf-8")
    assigned = re.findall(r"\bstate := (CASE.*?END|'[^']+');", status, re.DOTALL)
    found = {state for value in assigned for state in re.findall(r"(?:THEN |ELSE |^)'([^']+)'", value)}
    assert {row[0].strip("`") for row in cells(section("States")) if row[0].startswith("`")} == found
