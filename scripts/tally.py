"""The report of a test run: its steps, their output, and the counts in its last line."""

import contextlib
import subprocess
import sys
import time

from state import CLONE, Failure


class Tally:
    """Counts passed, failed and skipped tests, and reports the time of each step."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def add(self, passed: int, failed: int, skipped: int = 0) -> None:
        self.passed, self.failed, self.skipped = self.passed + passed, self.failed + failed, self.skipped + skipped

    @contextlib.contextmanager
    def step(self, title: str):
        """A step of the run. A failure ends the step, not the run."""
        report(f"\n=== {title}")
        began, failed = time.monotonic(), self.failed
        try:
            yield
        except (Failure, OSError, subprocess.SubprocessError) as failure:
            report(f"could not run: {failure}")
            self.add(0, 1)
        if self.failed > failed:
            self.failures.append(title)
        report(f"=== {title}: {'failed' if self.failed > failed else 'ok'}, {time.monotonic() - began:.1f} s")

    def skip(self, count: int, what: str) -> None:
        report(f"skipped: {what}")
        self.add(0, 0, count)

    def finish(self) -> int:
        report("")
        for title in self.failures:
            report(f"failed: {title}")
        report(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed else 0


def report(line: str) -> None:
    """A line of the report: on standard output, because the report is the result of a test run."""
    print(line, flush=True)


def run(command, env=None, cwd=CLONE):
    """Runs a command, showing its output as it comes; returns (exit code, output)."""
    command = [str(part) for part in command]
    lines = []
    with subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding="utf-8", errors="replace") as process:
        try:
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                lines.append(line)
        except BaseException:
            # Ctrl-C reaches the whole process group, SIGTERM only this process.
            process.terminate()
            raise
    return process.returncode, "".join(lines)
