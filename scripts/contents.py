"""What the demo's server holds: the version of the extension, and the tables that the user put there."""

import build
import versions
from postgres import quote_literal
from session import Session
from state import Failure, say

# The table that `make run` fills itself.
OWN = "public.embeddings"


def extension_version(cluster, database: str) -> str:
    """The version of the extension's SQL; empty if the database does not have the extension."""
    return cluster.psql("select extversion from pg_extension where extname = 'gte-small'",
                        dbname=database, args=("-At",)).stdout.strip()


def refuse_other_sql(cluster, database: str, made_with) -> None:
    """Fails if the extension there can't be updated to the version in work. `made_with`: fingerprint of the SQL it has.

    Either it is of a newer version, or the SQL has changed without its version, as it does while a version is in work.
    """
    there, wanted = extension_version(cluster, database), versions.in_work()
    if there == wanted and made_with != build.sql_fingerprint():
        raise Failure(f"the extension's SQL is not what this demo was made with, though both are version {wanted}; "
                      f"make reset  and  make run  start anew.\n{losses(cluster, database)}")
    if versions.key(there) > versions.key(wanted):
        raise Failure(f"this demo is of version {there}, which is newer than this clone ({wanted}); use the newer clone, or "
                      f"make reset  and  make run  start anew.\n{losses(cluster, database)}")


def create_or_update(cluster, database: str) -> None:
    """Creates the extension, or brings an older one to the version in work."""
    there = extension_version(cluster, database)
    if not there:
        cluster.psql('set client_min_messages = warning; create extension "gte-small" cascade;', dbname=database)
    elif there != versions.in_work():
        update(cluster, database, there)


def update(cluster, database: str, there: str) -> None:
    """ALTER EXTENSION UPDATE, and what only refresh_semantic_search() can renew."""
    say(f"updating gte-small from version {there} to {versions.in_work()} ...")
    done = cluster.psql('set client_min_messages = warning; alter extension "gte-small" update;', dbname=database, check=False)
    if done.returncode != 0:
        raise Failure(f"the extension of this demo can't be updated, and nothing was changed: {done.stderr.strip()}\n"
                      f"make reset  and  make run  start anew.\n{losses(cluster, database)}")
    with Session(cluster, database) as session:
        if session.value("select exists (select from pg_proc where proname = 'refresh_semantic_search' and pronargs = 0)") == "t":
            session.run("select * from refresh_semantic_search();", tell=say)


def tables(cluster, database: str) -> list:
    """Tables with rows, beside the demo's own: (name, number of rows) of all databases of the server."""
    found = []
    names = cluster.psql("select datname from pg_database where datallowconn and not datistemplate order by datname",
                         args=("-At",)).stdout.splitlines()
    for name in names:
        with Session(cluster, name) as session:
            listed = session.value(
                "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace "
                "where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't' "
                "and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' and not exists (select from pg_depend d "
                "where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e') order by 1")
            for table in listed.splitlines():
                if (name, table) == (database, OWN):
                    continue
                rows = int(session.value(f"select count(*) from {table}"))
                if rows:
                    comment = session.value(f"select coalesce(obj_description({quote_literal(table)}::regclass), '')")
                    about = f", {comment}" if comment.startswith("imported from ") else ""
                    where = "" if name == database else f"database {name}: "
                    found.append((f"{where}{table.removeprefix('public.')}", f"{rows} row{'s' if rows > 1 else ''}{about}"))
    return found


def losses(cluster, database: str) -> str:
    """A sentence about what `make reset` would drop."""
    listed = tables(cluster, database)
    if not listed:
        return "make reset drops no table but the demo's own."
    return "make reset would drop these tables:\n" + "\n".join(f"  {name}  ({rows})" for name, rows in listed)
