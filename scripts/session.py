"""A psql process that stays open: it runs statements, returns psql's own output, and keeps the model loaded."""

import itertools
import subprocess
import sys
import time

from state import Failure

_ids = itertools.count(1)


class Session:
    """A superuser's connection to a database of a cluster; ends with the `with` block or at the first error."""

    def __init__(self, cluster, dbname: str, *args: str):
        command = [str(cluster.bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-P", "pager=off",
                   "-d", dbname, "-U", "postgres", *args]
        self._psql = subprocess.Popen(command, env=cluster.environment(), encoding="utf-8", stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The end of the connection rolls back an open transaction.
        try:
            self._psql.stdin.close()
        except BrokenPipeError:
            pass
        self._psql.wait()

    def run(self, sql: str, data: str = "", tell=None) -> str:
        """Run statements or psql commands; returns what psql printed, without the final newline.

        `data` are the lines of a COPY FROM STDIN that `sql` ends with; `tell` gets each line psql prints as it comes.
        """
        end = f"-- end of answer {next(_ids)} --"
        rows = f"{data}\\.\n" if data else ""
        try:
            self._psql.stdin.write(f"{sql}\n{rows}\\echo {end}\n")
            self._psql.stdin.flush()
        except BrokenPipeError:
            pass
        lines = []
        for line in self._psql.stdout:
            if line.rstrip("\n") == end:
                return "".join(lines).rstrip("\n")
            lines.append(line)
            if tell:
                tell("  " + line.rstrip("\n"))
        said = "".join(lines).strip() or "it ended without a message"
        raise Failure(f"psql stopped at\n{sql}\n{said}")

    def value(self, sql: str) -> str:
        """The single value of a query."""
        return self.run(f"\\pset format unaligned\n\\pset tuples_only on\n{sql};\n"
                        "\\pset format aligned\n\\pset tuples_only off")


class Progress:
    """`embedding  640 of 2492 rows  158 rows/s  12 s left`, on one line of a terminal or once in ten in a log."""

    def __init__(self, what: str, total: int, unit: str = "rows"):
        self.what, self.total, self.done, self.unit = what, total, 0, unit
        self.began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._tenth = 0
        self._open = False

    def add(self, rows: int) -> None:
        self.done += rows
        seconds = time.monotonic() - self.began
        rate = self.done / seconds if seconds > 0 else 0
        left = f"{(self.total - self.done) / rate:.0f} s left" if rate else "? s left"
        line = f"{self.what}  {self.done} of {self.total} {self.unit}  {rate:.0f} {self.unit}/s  {left}"
        tenth = 10 * self.done // self.total
        if self._terminal:
            last = self.done >= self.total
            self._open = not last
            print(f"\r{line:<76}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif tenth > self._tenth:
            self._tenth = tenth
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Ends the line of a terminal, also before the last row."""
        if self._open:
            self._open = False
            print(file=sys.stderr, flush=True)
