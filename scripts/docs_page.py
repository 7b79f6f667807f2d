"""A page of the documentation as a test: its blocks, how each is run, and what it prints.

    ```sql   psql runs it, in one session for the page
    ```sh    the shell runs it, with PGHOST, PGDATABASE and PATH set for the same database
    ```text  directly after one of these: what it prints

In a text block, `...` stands for any text, and on a line of its own for any number of lines. A number with a decimal
point may differ by the page's tolerance, which is 0 if the page names none. An HTML comment directs the next block:

    <!-- docs-test: not run: REASON -->    it can't be run on a throw-away server
    <!-- docs-test: long -->               it fetches or builds for long: only with LONG=1
    <!-- docs-test: tolerance 0.02 -->     for the whole page
    <!-- docs-test: setup                  SQL that the reader has in another form, such as a table with rows
    ... -->

A shell block with sudo, docker, apt-get, curl or git clone changes the machine or needs a network, so it is not run.

A block without output passes if no statement or command of it fails. Where the output has a line with ERROR, the
statement must fail in this way. psql's lines CONTEXT are left out.
"""

import dataclasses
import os
import re
import subprocess
from pathlib import Path

from session import Session
from state import Failure

# Languages of blocks that show something and are run by nothing here.
SHOWN = {"conf", "css", "dockerfile", "html", "ini", "javascript", "js", "json", "log", "mermaid", "py", "python", "rust", "ts", "tsx", "toml",
         "typescript", "yaml"}
MACHINE = re.compile(r"\b(sudo|docker|apt-get|curl|git clone)\b")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
ANY = "..."


@dataclasses.dataclass
class Block:
    """One fenced block, or a hidden one (`setup`)."""

    line: int
    kind: str
    text: str
    output: str = None
    output_lines: tuple = None  # numbers of its first line and of the line after its last
    not_run: str = ""
    long: bool = False


@dataclasses.dataclass
class Result:
    line: int
    problem: str = ""
    not_run: str = ""
    long: bool = False
    printed: str = ""
    output_lines: tuple = None


def parse(text: str):
    """Returns (blocks, tolerance). A page that breaks the rules above is a Failure that names the line."""
    blocks, tolerance, waiting = [], 0.0, {}
    lines = text.split("\n")
    fresh = False  # nothing but blank lines since the last block that can have an output
    n = 0
    while n < len(lines):
        line, start = lines[n].strip(), n + 1
        if line.startswith("<!-- docs-test:"):
            body = [lines[n]]
            while "-->" not in body[-1]:
                n += 1
                if n == len(lines):
                    raise Failure(f"line {start}: the comment has no end")
                body.append(lines[n])
            directive = "\n".join(body).strip().removeprefix("<!-- docs-test:").removesuffix("-->").strip()
            if directive.startswith("tolerance "):
                tolerance = float(directive.split()[1])
            elif directive.startswith("not run:"):
                waiting["not_run"] = directive.removeprefix("not run:").strip()
            elif directive == "long":
                waiting["long"] = True
            elif directive.startswith("setup\n"):
                blocks.append(Block(start, "setup", directive.removeprefix("setup\n")))
            else:
                raise Failure(f"line {start}: docs-test knows no directive {directive.splitlines()[0]!r}")
            fresh = False
        elif line.startswith("```"):
            kind, indent = line[3:].strip(), len(lines[n]) - len(lines[n].lstrip())
            body = []
            n += 1
            while n < len(lines) and lines[n].strip() != "```":
                body.append(lines[n][indent:] if not lines[n][:indent].strip() else lines[n])
                n += 1
            if n == len(lines):
                raise Failure(f"line {start}: the block has no end")
            if kind == "text":
                if not fresh:
                    raise Failure(f"line {start}: this output follows no block that prints it")
                blocks[-1].output, blocks[-1].output_lines = "\n".join(body), (n - len(body), n)
            elif kind in ("sql", "sh"):
                found = MACHINE.search("\n".join(body)) if kind == "sh" else None
                if found:
                    waiting.setdefault("not_run", f"{found[0]} changes the machine")
                blocks.append(Block(start, kind, "\n".join(body), **waiting))
                waiting = {}
            elif kind == "" and "not_run" in waiting:
                blocks.append(Block(start, kind, "\n".join(body), **waiting))
                waiting = {}
            elif kind not in SHOWN:
                raise Failure(f"line {start}: a block of language {kind!r}; sql, sh and text are run, {', '.join(sorted(SHOWN))} are shown")
            fresh = kind in ("sql", "sh")
        elif line:
            fresh = False
            if waiting:
                raise Failure(f"line {start}: a directive of docs-test stands before no block")
        n += 1
    if waiting:
        raise Failure("a directive of docs-test stands at the end of the page")
    return blocks, tolerance


def section(page: Path, title: str) -> str:
    """A section of a page, without its heading and without the sections below it."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if not found:
        raise Failure(f"{page} has no section {title}, which a test takes commands from")
    return found[1]


def statements(page: Path, title: str, marked: str = "") -> str:
    """The first block of SQL in a section that has this text."""
    found = [block.text for block in parse(section(page, title))[0] if block.kind == "sql" and marked in block.text]
    if not found:
        raise Failure(f"{page} has no SQL with {marked!r} in the section {title}")
    return found[0]


# --- comparing ---


def _plain(text: str) -> list:
    """The lines without what depends on the width of other values: runs of spaces and of dashes."""
    lines = [re.sub(r"-{3,}", "---", re.sub(r"\s+", " ", line).strip()) for line in text.strip("\n").split("\n")]
    lines = [re.sub(r"\+?-{1,}\+", lambda rule: rule[0], line) for line in lines]
    # A rule of psql below short headings has two dashes or one.
    lines = ["---" if re.fullmatch(r"[-+]+", line) else line for line in lines]
    return [line for line in lines if line]


def _same_text(expected: str, found: str, tolerance: float) -> bool:
    wanted, got = NUMBER.findall(expected), NUMBER.findall(found)
    if NUMBER.split(expected) != NUMBER.split(found):
        return False
    return all(_same_number(a, b, tolerance) for a, b in zip(wanted, got))


def _same_number(expected: str, found: str, tolerance: float) -> bool:
    if "." not in expected and "." not in found:
        return expected == found
    return abs(float(expected) - float(found)) <= tolerance + 1e-12


def _same_line(expected: str, found: str, tolerance: float) -> bool:
    if ANY not in expected:
        return _same_text(expected, found, tolerance)
    # Each part between the wildcards is found where it fits first. Numbers beside a wildcard are compared as text.
    first, *others = expected.split(ANY)
    if not found.startswith(first):
        return False
    place = len(first)
    for number, part in enumerate(others):
        if number == len(others) - 1:
            return len(found) - len(part) >= place and found.endswith(part)
        there = found.find(part, place)
        if there < 0:
            return False
        place = there + len(part)
    return True


def same(expected: str, found: str, tolerance: float = 0.0) -> bool:
    """Whether a block printed what the page says."""
    wanted, got = _plain(expected), _plain(found)

    def fits(i: int, j: int) -> bool:
        while i < len(wanted):
            if wanted[i] == ANY:
                return any(fits(i + 1, later) for later in range(j, len(got) + 1))
            if j == len(got) or not _same_line(wanted[i], got[j], tolerance):
                return False
            i, j = i + 1, j + 1
        return j == len(got)

    return fits(0, 0)


# --- running ---


def _ends(sql: str) -> bool:
    """Whether the last statement is complete: psql would otherwise wait for the rest of it."""
    lines = [line.split("--")[0].strip() for line in sql.split("\n")]
    last = next((line for line in reversed(lines) if line), "")
    return last.endswith((";", "$$;")) or last.startswith("\\") or bool(re.search(r"\\(gset|gexec|gx|watch.*)$", last))


def _judge(block: Block, found: str, failed: bool, tolerance: float) -> str:
    """The problem of a block that was run; empty if there is none."""
    printed = "\n".join("      " + line for line in found.split("\n"))
    if block.output is None:
        return f"a statement or command failed:\n{printed}" if failed else ""
    if not same(block.output, found, tolerance):
        wanted = "\n".join("      " + line for line in block.output.split("\n"))
        return f"the page says\n{wanted}\n    it printed\n{printed}"
    return ""


def _failed(output: str) -> bool:
    return bool(re.search(r"^(ERROR|FATAL|PANIC|invalid command|psql:)", output, re.MULTILINE))


class Page:
    """Runs the blocks of one page in one database: a psql session, and shells that connect to the same database."""

    def __init__(self, cluster, dbname: str, directory, replaced=None, long: bool = False):
        self.cluster, self.dbname, self.directory = cluster, dbname, directory
        self.replaced, self.long = replaced or {}, long

    def run(self, text: str) -> list:
        blocks, tolerance = parse(text)
        with Session(self.cluster, self.dbname, "-v", "ON_ERROR_STOP=0", "-v", "SHOW_CONTEXT=never") as session:
            return [self._one(session, block, tolerance) for block in blocks]

    def _one(self, session, block: Block, tolerance: float) -> Result:
        if block.not_run:
            return Result(block.line, not_run=block.not_run)
        if block.long and not self.long:
            return Result(block.line, long=True)
        text, failed = block.text, False
        for written, meant in self.replaced.items():
            text = text.replace(written, meant)
        try:
            if block.kind == "sh":
                code, found = self._shell(text)
                failed = code != 0
            elif _ends(text):
                found = session.run(text)
                failed = _failed(found)
            else:
                return Result(block.line, "the last statement has no semicolon")
            return Result(block.line, _judge(block, found, failed, tolerance), printed=found, output_lines=block.output_lines)
        except Failure as failure:
            return Result(block.line, str(failure))

    def _shell(self, script: str):
        environment = {**self.cluster.environment(), "PGDATABASE": self.dbname, "PROFILE": "fast",
                       # A benchmark has to run. How fast this machine is at the moment is not the page's matter.
                       "UNJUDGED": "1",
                       "PATH": f"{self.cluster.bin}:{os.environ['PATH']}"}
        # As the reader has it: the command names the PostgreSQL, or make chooses one.
        environment.pop("PG_CONFIG", None)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=self.directory, env=environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              encoding="utf-8", errors="replace")
        found = done.stdout.rstrip("\n")
        if done.returncode != 0:
            found += f"\n(exit code {done.returncode})"
        return done.returncode, found
