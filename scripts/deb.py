"""`make deb PG=15`: Debian packages of the extension and of the model, built with debhelper into target/dist.

    postgresql-15-gte-small    the extension for one PostgreSQL
    gte-small-model            gte-small for all of them, if it is fetched, or what MODEL=, MODEL_DIR= or FROM= names

The templates are in packaging/debian; words like @PG@ in them are filled in here.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import build
import built
import install_model
import model
import postgres
import prerequisites
import state
import versions
from state import CLONE, Failure, say

TEMPLATES = CLONE / "packaging" / "debian"
DIST = CLONE / "target" / "dist"
# The models whose license is known; a package of another one says so.
LICENSES = {model.GTE_SMALL: "MIT", model.MINILM: "Apache-2.0"}


def revision() -> str:
    return os.environ.get("DEB_REVISION") or "1"


def maintainer() -> str:
    """The builder, as Debian's tools name him; a package that is built locally has no other maintainer."""
    return f"{os.environ.get('DEBFULLNAME') or 'Local build'} <{os.environ.get('DEBEMAIL') or 'root@localhost'}>"


def tools() -> list:
    """What packages are built with, as far as it is missing."""
    return [f"{program} is missing:  sudo apt-get install -y {package}"
            for program, package in (("dpkg-buildpackage", "dpkg-dev"), ("dh", "debhelper")) if not shutil.which(program)]


def pg_config() -> Path:
    """The pg_config of PG=, in the place of Debian's packages; else PG_CONFIG or the one on PATH. Everything is checked."""
    version, missing = os.environ.get("PG"), tools()
    if version and not os.environ.get("PG_CONFIG"):
        program = prerequisites.DEBIAN_SERVERS / version / "bin" / "pg_config"
        if not program.is_file():
            line = f"{program} is missing:  {prerequisites.package_command('headers', version)}"
            prerequisites.refuse([*missing, line, *prerequisites.build_tools()], "no package was built")
        os.environ["PG_CONFIG"] = str(program)
    absent = prerequisites.pg_config()
    if absent:
        prerequisites.refuse([*missing, *absent, *prerequisites.build_tools()], "no package was built")
    program = build.own_pg_config()
    if not built.library(program, build.wanted_profile()):
        missing += [*prerequisites.headers(program), *prerequisites.build_tools()]
    prerequisites.refuse(missing, "no package was built")
    return program


def timestamp() -> int:
    """The time in the changelog: of the last commit, so that the same sources make the same package."""
    if os.environ.get("SOURCE_DATE_EPOCH"):
        return int(os.environ["SOURCE_DATE_EPOCH"])
    committed = state.git("log", "-1", "--format=%ct")
    return int(committed) if committed else int(time.time())


def filled(kind: str, words: dict) -> dict:
    """The files of debian/ by their names, with every word filled in."""
    made = {}
    for path in sorted((TEMPLATES / kind).iterdir()):
        text = re.sub(r"@([A-Z_]+)@", lambda found: words[found[1]], path.read_text(encoding="utf-8"))
        made[path.name] = text
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(timestamp()))
    made["changelog"] = (f"{words['SOURCE']} ({words['VERSION']}) unstable; urgency=medium\n\n  * Version {words['VERSION']}: see "
                         f"CHANGELOG.md.\n\n -- {maintainer()}  {date}\n")
    return made


def indented(text: str) -> str:
    """A text as the continuation of a field."""
    return "\n".join(f" {line}" if line.strip() else " ." for line in text.strip().splitlines())


def extension_words(program: Path) -> dict:
    version = postgres.pg_version(program)
    return {"PG": str(version), "PACKAGE": f"postgresql-{version}-gte-small", "SOURCE": "gte-small",
            "VERSION": f"{versions.in_work()}-{revision()}", "MAINTAINER": maintainer(),
            "MINOR": prerequisites.MINOR.get(version, str(version)), "SHAREDIR": postgres.config(program, "--sharedir").strip("/"),
            "LICENSE": indented((CLONE / "LICENSE").read_text(encoding="utf-8"))}


def model_words(name: str) -> dict:
    package = "gte-small-model"
    if name != model.GTE_SMALL:
        package += "-" + re.sub(r"[^a-z0-9.+-]+", "-", name.lower()).strip("-.+")
    known = LICENSES.get(name, "unknown")
    return {"NAME": name, "PACKAGE": package, "SOURCE": package, "VERSION": f"1.0-{revision()}", "MAINTAINER": maintainer(),
            "PROVIDES": "" if package == "gte-small-model" else "Provides: gte-small-model\n", "MODEL_LICENSE": known,
            "LICENSE": indented(f"The model's own license, {known}, as it is published with the model.")}


def package(kind: str, words: dict, source=None, **variables) -> Path:
    """Builds one package from its templates; returns the .deb. `source` is the directory of a model."""
    with tempfile.TemporaryDirectory(prefix="deb-", dir=state.directory("tmp")) as work:
        stage = Path(work) / "stage"
        (stage / "debian").mkdir(parents=True)
        for name, text in filled(kind, words).items():
            path = stage / "debian" / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755 if name == "rules" else 0o644)
        (stage / "debian" / "source").mkdir()
        (stage / "debian" / "source" / "format").write_text("3.0 (native)\n", encoding="utf-8")
        for file in (CLONE / "README.md", CLONE / "docs" / "install.md"):
            shutil.copyfile(file, stage / file.name)
        if source:
            shutil.copytree(source, stage / "model", copy_function=shutil.copyfile)
        # Without make's variables of this run, which would overrule those in debian/rules.
        of_make = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PG", "DESTDIR")
        env = {name: value for name, value in os.environ.items() if name not in of_make}
        env.update(SOURCE_DATE_EPOCH=str(timestamp()), LC_ALL="C.UTF-8", GTE_SMALL_CLONE=str(CLONE), **variables)
        # -d: cargo is no Debian package of the right version, so the build dependencies are checked by our own code.
        done = subprocess.run(["dpkg-buildpackage", "-b", "-d", "-us", "-uc"], cwd=stage, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        made = list(Path(work).glob(f"{words['PACKAGE']}_*.deb"))
        if done.returncode != 0 or len(made) != 1:
            raise Failure(f"dpkg-buildpackage could not build {words['PACKAGE']}:\n{done.stdout[-3000:]}")
        DIST.mkdir(parents=True, exist_ok=True)
        target = DIST / made[0].name
        shutil.copyfile(made[0], target)
        return target


def extension_package(program: Path) -> Path:
    profile = build.wanted_profile()
    build.make_library(program, profile)
    words = extension_words(program)
    say(f"packing {words['PACKAGE']} {words['VERSION']} ...")
    return package("extension", words, GTE_SMALL_PG_CONFIG=str(program), PROFILE=profile)


def model_package() -> Path:
    """The package of the model, or None if gte-small is not fetched and no other model is named."""
    if not install_model.asked() and not model.asked() and not install_model.fetched():
        return None
    with tempfile.TemporaryDirectory(prefix="model-", dir=state.directory("tmp")) as work:
        name, path = install_model.source(Path(work))
        kept = Path(work) / "kept"
        model.put_in_place(path, model.checked(path, name), kept, shutil.copyfile)
        words = model_words(name)
        say(f"packing {words['PACKAGE']} {words['VERSION']} ...")
        return package("model", words, source=kept)


def again() -> str:
    """This command line: PG_CONFIG is the one that PG names, if PG is there."""
    names = ("PG" if os.environ.get("PG") else "PG_CONFIG", "PROFILE")
    return " ".join(["make deb", *(f"{name}={shlex.quote(os.environ[name])}" for name in names if os.environ.get(name))])


def main() -> int:
    program = pg_config()
    made = [extension_package(program), model_package()]
    if made[1] is None:
        say(f"no package of the model, because gte-small is not fetched:  make model && {again()}")
    say("Install them with  sudo apt-get install -y  and these paths:")
    print("\n".join(str(path) for path in made if path))
    return 0


if __name__ == "__main__":
    state.verb(main)
