"""A model directory that changes while backends use it: each call returns the vector of a complete model, or an error
that names the file. No vector is mixed, and no backend crashes."""

import os
import shutil
import threading
import time

import psycopg
import pytest

from measure import embedding, max_abs, one

BACKENDS = 4
SECONDS = 20 if os.environ.get("GTE_LONG") else 1.5
FILES = ("model.safetensors", "tokenizer.json", "config.json")


class Mischief:
    """Changes of a directory. Each ends with a complete model, one of two."""

    def __init__(self, live, models):
        self.live, self.models = live, models
        self.aside = live.with_name(live.name + "-aside")
        self.turn = 0

    def next_model(self):
        self.turn += 1
        return self.models[self.turn % 2]

    def rename_away_and_back(self):
        os.rename(self.live, self.aside)
        os.rename(self.aside, self.live)

    def replace_by_another(self):
        fresh = self.live.with_name(self.live.name + "-fresh")
        shutil.copytree(self.next_model(), fresh)
        os.rename(self.live, self.aside)
        os.rename(fresh, self.live)
        shutil.rmtree(self.aside)

    def replace_files_by_renaming(self):
        model = self.next_model()
        for file in FILES:
            shutil.copy(model / file, self.live / "new")
            os.rename(self.live / "new", self.live / file)

    def copy_over(self):
        """As cp does: the file is truncated and grows again."""
        shutil.copy(self.next_model() / "model.safetensors", self.live / "model.safetensors")

    def cut_short(self):
        model = self.next_model()
        for file in FILES:
            with open(self.live / file, "r+b") as opened:
                opened.truncate(os.path.getsize(opened.name) // 2)
            shutil.copy(model / file, self.live / file)

    def delete(self):
        model = self.next_model()
        for file in FILES:
            (self.live / file).unlink()
            shutil.copy(model / file, self.live / "new")
            os.rename(self.live / "new", self.live / file)

    def fill_with_garbage(self):
        model = self.next_model()
        for file in FILES:
            (self.live / file).write_bytes(os.urandom(10_000))
            shutil.copy(model / file, self.live / file)


class LinkMischief(Mischief):
    """The directory is a symbolic link, which is replaced."""

    def switch(self):
        new = self.live.with_name(self.live.name + "-new")
        os.symlink(self.next_model(), new)
        os.rename(new, self.live)

    def switch_through_nowhere(self):
        self.live.unlink()
        os.symlink("/nonexistent", self.live)
        self.switch()


@pytest.fixture
def live(server):
    path = server.scratch / "live"
    shutil.copytree(server.tiny, path)
    yield path
    shutil.rmtree(path, ignore_errors=True) if not path.is_symlink() else path.unlink()


class Callers:
    """Backends that embed while a condition holds: one that stays, and new ones for every few texts."""

    def __init__(self, database, live, expected):
        self.database, self.live, self.expected = database, live, expected
        self.vectors = self.errors = 0
        self.wrong = []
        self.stop = threading.Event()

    def work(self, calls_each):
        while not self.stop.is_set():
            with self.database.server.connect(self.database.name) as connection:
                connection.execute("set gte_small.memo_size = 0")
                connection.execute("select set_config('gte_small.model_path', %s, false)", [str(self.live)])
                for _ in range(calls_each):
                    if self.stop.is_set():
                        return
                    self.call(connection)

    def call(self, connection):
        try:
            found = embedding(connection, "a cat sat on the mat")
        except psycopg.Error as error:
            # A missing or broken file, by its name, or a directory without any file.
            named = any(file in (error.diag.message_primary or "") for file in (*FILES, "sentence_bert_config.json"))
            if error.sqlstate in ("58P01", "58030", "XX001", "0A000") and named:
                self.errors += 1
            else:
                self.wrong.append(f"{error.sqlstate} {error}")
            return
        if min(max_abs(found, vector) for vector in self.expected) > 1e-6:
            self.wrong.append("a vector of no model")
        self.vectors += 1


MISCHIEF = {name: Mischief for name in vars(Mischief) if not name.startswith("_") and name != "next_model"}
MISCHIEF |= {name: LinkMischief for name in ("switch", "switch_through_nowhere")}


@pytest.mark.parametrize("kind, name", [(kind, name) for name, kind in MISCHIEF.items()], ids=MISCHIEF.keys())
def test_a_directory_in_use(server, database, connection, live, kind, name):
    expected = []
    for model in (server.tiny, server.tiny_other):
        connection.execute("select set_config('gte_small.model_path', %s, false)", [str(model)])
        expected.append(embedding(connection, "a cat sat on the mat"))
    if kind is LinkMischief:
        shutil.rmtree(live)
        os.symlink(server.tiny, live)
    mischief = kind(live, (server.tiny, server.tiny_other))
    callers = Callers(database, live, expected)
    threads = [threading.Thread(target=callers.work, args=(10**9 if i == 0 else 3,)) for i in range(BACKENDS)]
    for thread in threads:
        thread.start()
    deadline, times = time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline or callers.vectors == 0:
        getattr(mischief, name)()
        times += 1
        time.sleep(0.003)
    callers.stop.set()
    for thread in threads:
        thread.join()
    print(f"{name}: {times} times, {callers.vectors} vectors, {callers.errors} errors")
    assert callers.wrong == []
    # Without further changes the directory works for all backends.
    connection.execute("select set_config('gte_small.model_path', %s, false)", [str(live)])
    assert min(max_abs(embedding(connection, "a cat sat on the mat"), vector) for vector in expected) <= 1e-6
    assert one(connection, "select dims from embed_model()") == 384
