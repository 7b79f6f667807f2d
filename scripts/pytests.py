"""pytest processes: what they need, what they are called with, and the counts of their results."""

import contextlib
import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import postgres
import state
from state import CLONE, Failure
from tally import Tally, report, run

# pytest 8.4 and psycopg 3.2 are the last that run on Python 3.9.
PACKAGES = [
    "pytest==8.4.2", "pluggy==1.6.0", "iniconfig==2.1.0", "packaging==25.0", "pygments==2.19.2",
    "tomli==2.2.1; python_version < '3.11'", "exceptiongroup==1.3.0; python_version < '3.11'",
    postgres.PSYCOPG, "typing_extensions==4.15.0",
]


class Process:
    """One pytest process with these arguments and environment variables."""

    def __init__(self, junit: Path, *arguments, **variables):
        self.junit = junit
        self.environment = {**state.environment(), "PYTHONPATH": str(state.python_packages(PACKAGES)),
                            "PYTHONDONTWRITEBYTECODE": "1", **variables}
        self.command = [str(part) for part in [
            sys.executable, "-m", "pytest", "-q", "-ra", "--tb=short", "--durations=5", "-p", "no:cacheprovider",
            f"--junitxml={junit}", *arguments]]
        junit.unlink(missing_ok=True)

    def in_foreground(self) -> int:
        """Shows the output as it comes; returns the exit code."""
        return run(self.command, self.environment)[0]

    @contextlib.contextmanager
    def in_background(self):
        """Runs during the block. The value is a function that waits, shows the output and returns the exit code."""
        output = self.junit.with_suffix(".txt")
        with open(output, "wb") as file:
            process = subprocess.Popen(self.command, cwd=CLONE, env=self.environment, stdin=subprocess.DEVNULL,
                                       stdout=file, stderr=subprocess.STDOUT)

        def end() -> int:
            code = process.wait()
            report(output.read_text(encoding="utf-8", errors="replace").rstrip("\n"))
            return code

        try:
            yield end
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()

    def count(self, tally: Tally, code: int) -> None:
        """Adds the results of a process that ended with `code`."""
        if not self.junit.is_file():
            raise Failure(f"pytest ended with {code} before it ran a test")
        suite = xml.etree.ElementTree.parse(self.junit).getroot().find("testsuite")
        total, skipped = int(suite.get("tests")), int(suite.get("skipped"))
        failed = int(suite.get("failures")) + int(suite.get("errors"))
        if total == 0:
            raise Failure("no test ran")
        if code not in (0, 1):
            raise Failure(f"pytest ended with {code}")
        tally.add(max(0, total - failed - skipped), failed, skipped)


def hub(tally: Tally, work: Path) -> None:
    """The tests of fetching and checking a model, on a local hub."""
    with tally.step("hub"):
        process = Process(work / "hub.xml", CLONE / "tests" / "hub")
        process.count(tally, process.in_foreground())


def web(tally: Tally, server, selected: str, in_browser: bool = False) -> None:
    """The tests of the search page's server, or those of the page in a browser."""
    with tally.step("search page in a browser" if in_browser else "search page"):
        files = [path for path in sorted((CLONE / "tests" / "web").glob("test_*.py")) if path.name.startswith("test_browser") == in_browser]
        selection = ["-k", selected] if selected else []
        process = Process(server.work / "web.xml", *files, *selection, GTE_TEST=json.dumps(server.described))
        process.count(tally, process.in_foreground())
