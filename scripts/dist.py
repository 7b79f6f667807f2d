"""`make dist`: the zip for PGXN in target/dist, after META.json has been checked.

The zip has every file of the project in one folder. The same commit makes the same bytes.
"""

import json
import re
import stat
import time
import zipfile
from pathlib import Path

import deb
import state
import versions
from state import CLONE, Failure, say

META = CLONE / "META.json"
# Of the meta specification, version 1.0.0.
LICENSES = {
    "agpl_3", "apache_1_1", "apache_2_0", "artistic_1", "artistic_2", "bsd", "freebsd", "gfdl_1_2", "gfdl_1_3", "gpl_1", "gpl_2",
    "gpl_3", "lgpl_2_1", "lgpl_3_0", "mit", "mozilla_1_0", "mozilla_1_1", "openssl", "perl_5", "postgresql", "qpl_1_0", "ssleay",
    "sun", "zlib", "open_source", "restricted", "unrestricted", "unknown"}
REQUIRED = ("abstract", "license", "maintainer", "meta-spec", "name", "provides", "version")
OPTIONAL = ("description", "generated_by", "no_index", "prereqs", "release_status", "resources", "tags")
PHASES = {"configure", "runtime", "build", "test", "develop"}
RELATIONS = {"requires", "recommends", "suggests", "conflicts"}
NUMBER = r"(0|[1-9]\d*)"
SEMVER = rf"{NUMBER}\.{NUMBER}\.{NUMBER}(-[0-9A-Za-z][0-9A-Za-z.-]*)?(\+[0-9A-Za-z.-]+)?"
# Not in the zip: what only this project's own machines use.
LEFT_OUT = (".ci/", ".github/", ".gitignore")


def _is_text(value) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_term(value) -> bool:
    """A name: at least two characters, without spaces at the ends, slashes and control characters."""
    return isinstance(value, str) and len(value) >= 2 and not re.search(r"[\s/\\\x00-\x1f\x7f]", value)


def _is_version(value) -> bool:
    return isinstance(value, str) and re.fullmatch(SEMVER, value) is not None


def _is_range(value) -> bool:
    """A version or a list of versions with operators; 0 is any version."""
    return value in (0, "0") or isinstance(value, str) and all(
        re.fullmatch(rf"\s*(==|!=|<=|<|>=|>)?\s*{SEMVER}\s*", part) for part in value.split(","))


def _mistakes_in_provides(provides) -> list:
    if not isinstance(provides, dict) or not provides:
        return ["provides is no object with an extension"]
    found = []
    for name, about in provides.items():
        if not _is_term(name) or not isinstance(about, dict):
            found.append(f"provides.{name} is not a name with an object")
            continue
        found += [f"provides.{name} has no {key}" for key in ("file", "version") if key not in about]
        found += [f"provides.{name}.{key} is unknown" for key in about
                  if key not in ("file", "version", "abstract", "docfile") and not key.lower().startswith("x_")]
        found += [f"provides.{name}.{key} is empty" for key in ("file", "abstract", "docfile")
                  if key in about and not _is_text(about[key])]
        if not _is_version(about.get("version")):
            found.append(f"provides.{name}.version is no semantic version")
    return found


def _mistakes_in_prereqs(prereqs) -> list:
    if not isinstance(prereqs, dict):
        return ["prereqs is no object"]
    found = [f"prereqs.{phase} is no phase" for phase in prereqs if phase not in PHASES]
    for phase in PHASES & set(prereqs):
        for relation, needed in prereqs[phase].items():
            if relation not in RELATIONS:
                found.append(f"prereqs.{phase}.{relation} is no relation")
                continue
            found += [f"prereqs.{phase}.{relation}.{name} is not a name with a version" for name, value in needed.items()
                      if not _is_term(name) or not _is_range(value)]
    return found


def mistakes(meta) -> list:
    """What in this META.json is not as the specification wants it."""
    if not isinstance(meta, dict):
        return ["it is no object"]
    found = [f"{key} is missing" for key in REQUIRED if key not in meta]
    found += [f"{key} is unknown" for key in meta if key not in (*REQUIRED, *OPTIONAL) and not key.lower().startswith("x_")]
    for key in ("abstract", "description", "generated_by"):
        if key in meta and not _is_text(meta[key]):
            found.append(f"{key} is no text")
    if "name" in meta and not _is_term(meta["name"]):
        found.append("name is no name")
    if "version" in meta and not _is_version(meta["version"]):
        found.append("version is no semantic version")
    people = meta.get("maintainer", "-")
    if not (_is_text(people) or isinstance(people, list) and people and all(map(_is_text, people))):
        found.append("maintainer is neither a text nor a list of texts")
    license_names = meta.get("license", "mit")
    if isinstance(license_names, dict):
        if not license_names or not all(_is_text(url) and "://" in url for url in license_names.values()):
            found.append("license is an object without addresses")
    elif not set([license_names] if isinstance(license_names, str) else license_names) <= LICENSES:
        found.append("license is not one that the specification names")
    if meta.get("release_status", "stable") not in ("stable", "testing", "unstable"):
        found.append("release_status is neither stable, testing nor unstable")
    tags = meta.get("tags", ["-"])
    if not isinstance(tags, list) or not all(
            _is_text(tag) and len(tag) < 256 and not re.search(r"[/\\\x00-\x1f]", tag) for tag in tags):
        found.append("tags is no list of texts")
    spec = meta.get("meta-spec")
    if "meta-spec" in meta and not (isinstance(spec, dict) and re.fullmatch(r"1\.0\.\d+", str(spec.get("version")))):
        found.append("meta-spec.version is not 1.0.x")
    if "provides" in meta:
        found += _mistakes_in_provides(meta["provides"])
    if "prereqs" in meta:
        found += _mistakes_in_prereqs(meta["prereqs"])
    return found


def disagreements(meta, names) -> list:
    """What in META.json does not fit the other files: the version of the control file, and files that are not there."""
    wanted = versions.in_work()
    stated = {"version": meta["version"], **{f"provides.{name}.version": about["version"] for name, about in meta["provides"].items()}}
    found = [f"{where} is {version} and the control file's version is {wanted}" for where, version in stated.items()
             if version != wanted]
    for name, about in meta["provides"].items():
        found += [f"provides.{name}.{key} names {about[key]}, which is not there" for key in ("file", "docfile")
                  if key in about and about[key] not in names]
    return found


def files() -> list:
    """The committed files, by their paths in the clone."""
    return [name for name in state.tracked() if not name.startswith(LEFT_OUT)]


def pack(names: list, folder: str, target: Path) -> None:
    """Writes the zip; it appears complete or not at all."""
    when = time.gmtime(deb.timestamp())[:6]
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".new")
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in names:
            entry = zipfile.ZipInfo(f"{folder}/{name}", when)
            executable = (CLONE / name).stat().st_mode & stat.S_IXUSR
            entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            zipped.writestr(entry, (CLONE / name).read_bytes())
    fresh.replace(target)


def main() -> int:
    names = files()
    meta = json.loads(META.read_text(encoding="utf-8"))
    wrong = mistakes(meta) or disagreements(meta, names)
    if wrong:
        raise Failure("META.json is wrong, so nothing was packed:\n" + "\n".join(f"  {line}" for line in wrong))
    folder = f"{meta['name']}-{meta['version']}"
    target = CLONE / "target" / "dist" / f"{folder}.zip"
    pack(names, folder, target)
    say(f"{len(names)} files, {target.stat().st_size / 1e6:.1f} MB, sha256 {state.sha256(target)}")
    print(target)
    return 0


if __name__ == "__main__":
    state.verb(main)
