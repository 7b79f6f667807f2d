"""The demo's rows: real text that every PostgreSQL contains. The trigger embeds them at the INSERT.

The texts are the descriptions of settings (pg_settings) and of functions (pg_description), each with the name of the
setting or function in parentheses.
"""

import contextlib
import json
import re
import threading
import time

from postgres import quote_literal
from session import Progress, Session
from state import CLONE, Failure, say

# Rows per transaction: Ctrl-C loses less than a second of work, and the time of commits does not matter.
BATCH = 32

# The name is at the end and short, so that it helps readers and changes the vector little. With MiniLM the statement
# MISSION (tour.py) finds work_mem at 0.823; with "work_mem: " in front it is 0.803, with extra_desc in the same row 0.67.
# Left out: texts that say nothing ("I/O", 356 times), implementations of operators, other extensions' settings.
WANTED = r"""
create temporary table wanted as
select content, row_number() over (order by content collate "C") as n
from (
  select format('%s (setting %s)', short_desc, name)
  from pg_settings where category <> 'Customized Options'
  union
  select format('%s (setting %s)', extra_desc, name)
  from pg_settings where category <> 'Customized Options' and length(extra_desc) > 40
  union
  select format('%s (function %s)', d.description, p.proname)
  from pg_description d join pg_proc p on p.oid = d.objoid
  where d.classoid = 'pg_proc'::regclass and p.oid < 16384
    and d.description !~ '^(implementation of|internal|\(internal\))' and length(d.description) > 4
) as texts (content)
"""


def load(demo, session: Session) -> None:
    """Create the table and fill it once. An interrupted load continues after its last batch."""
    schema = (CLONE / "sql" / "embeddings.sql").read_text(encoding="utf-8")
    session.run("set client_min_messages = warning;\n" + schema)
    empty = session.value("select not exists (select from embeddings)") == "t"
    if demo.memory.get("loaded") and not empty:
        return
    session.run(WANTED + ";")
    session.run("delete from wanted w using embeddings e where e.content = w.content;")
    numbers = [int(n) for n in session.value("select n from wanted order by n").split()]
    progress = Progress("embedding by the trigger", len(numbers))
    for first in range(0, len(numbers), BATCH):
        batch = numbers[first:first + BATCH]
        session.run(f"insert into embeddings (content) select content from wanted "
                    f"where n between {batch[0]} and {batch[-1]} order by n;")
        progress.add(len(batch))
    demo.remember(loaded=True)


def reembed(session: Session, watcher: Session = None) -> None:
    """Embed every table again, imported tables too. An interrupted run continues where it stopped.

    `watcher` is a second session, by which the progress is shown.
    """
    # The old vectors are useless meanwhile, because the new model embeds the searches.
    tables = session.value("select jsonb_agg(distinct tgrelid::regclass::text) from pg_trigger "
                           "where tgfoid = 'embed_trigger'::regproc and not tgisinternal and tgparentid = 0")
    for table in json.loads(tables or "[]"):
        say(f"embedding {table} again ...")
        statement = f"call embed_backfill({quote_literal(table)}, force => true);"
        if watcher is None:
            session.run(statement, tell=say)
            continue
        said = []
        with Watch(session, watcher, f"embedding {table}") as watch:
            session.run(statement, tell=said.append)
            watch.finish()
        for line in said:
            if not (watch.seen and COUNTS.search(line)):
                say(line)


# What embed_backfill tells of its progress: in application_name, and in notices.
PROGRESS = re.compile(r"^gte-small: .* (\d+)/(\d+)(?: [\d.]+ rows/s \d+ s left)?$", re.DOTALL)
COUNTS = re.compile(r"NOTICE: .*: \d+ (of about \d+ rows|rows embedded in )")


class Watch:
    """Shows the progress of the backfill of `session` on one line, during the block."""

    PAUSE = 0.5

    def __init__(self, session: Session, watcher: Session, what: str):
        self._name = f"select application_name from pg_stat_activity where pid = {session.value('select pg_backend_pid()')}"
        self._watcher, self._what = watcher, what
        self._progress, self._began, self._end = None, time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def seen(self) -> bool:
        return self._progress is not None

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()
        if self.seen:
            self._progress.end()

    def finish(self) -> None:
        """The backfill has ended without an error."""
        self._end.set()
        self._thread.join()
        if self.seen and self._progress.done < self._progress.total:
            self._progress.add(self._progress.total - self._progress.done)

    def _watch(self) -> None:
        # Ctrl-C ends the watcher's psql as well.
        with contextlib.suppress(Failure, OSError):
            while not self._end.wait(self.PAUSE):
                found = PROGRESS.match(self._watcher.value(self._name))
                if not found or not int(found[2]):
                    continue
                rows, total = int(found[1]), int(found[2])
                if not self.seen:
                    self._progress = Progress(self._what, total)
                    self._progress.began = self._began
                if rows > self._progress.done:
                    self._progress.add(min(rows, self._progress.total) - self._progress.done)


def same_model(demo, session: Session) -> None:
    """Refuse to search vectors of another model, for example after a change of the files in MODEL_DIR."""
    cosine = session.value("select -(embedding <#> embed(content)) from embeddings "
                           "where embedding is not null order by id limit 1")
    # The same model with other kernels is above this, another model is near 0.
    if cosine and float(cosine) < 0.99:
        raise Failure(f"the rows are not embedded by {demo.memory['model']['name']} as it is now (the first row's "
                      f"cosine with itself is {float(cosine):.3f}), so searching them means nothing; "
                      "make reembed   embeds them again")
