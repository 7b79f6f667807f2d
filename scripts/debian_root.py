"""A Debian of another release in a directory: debootstrap makes it, commands run in it by chroot. Needs root.

Mounts exist only in the process that runs a command, so the directory can be removed without a look at them.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import prerequisites
import state
from state import CLONE, Failure, say

# What `make` of this project needs in a system, beside PostgreSQL.
INCLUDED = "ca-certificates,python3,python3-pip,make,gcc,libc6-dev"
MIRROR = "http://deb.debian.org/debian"
# The settings of the network that every program in it needs.
COPIED = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf")
# Authorities that this system trusts beside Debian's.
AUTHORITIES = Path("/usr/local/share/ca-certificates")
# Where the clone is in it.
SOURCES = "/src/gte-small"


class Root:
    """A system of this release; `path` is its directory."""

    def __init__(self, suite: str, name: str = ""):
        self.suite = suite
        self.path = state.STATE / "debian" / (name or f"root-{suite}")

    def make(self, included: str = INCLUDED) -> None:
        """Makes it, if it is not there. It appears complete or not at all."""
        if self.path.is_dir():
            return
        if not shutil.which("debootstrap"):
            prerequisites.refuse(["debootstrap is missing:  apt-get install -y debootstrap"], "no Debian was made")
        say(f"making a Debian {self.suite} in {self.path} ...")
        state.directory("debian")
        fresh = self.path.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        words = ["debootstrap", "--variant=minbase", *([f"--include={included}"] if included else []), self.suite, fresh, MIRROR]
        done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode != 0:
            raise Failure(f"debootstrap could not make a Debian {self.suite}:\n{done.stdout[-2000:]}")
        for name in COPIED:
            if Path(name).is_file():
                shutil.copyfile(name, fresh / name[1:])
        if AUTHORITIES.is_dir():
            shutil.copytree(AUTHORITIES, fresh / str(AUTHORITIES)[1:], dirs_exist_ok=True)
            subprocess.run(["chroot", str(fresh), "update-ca-certificates"], stdout=sys.stderr)
        # No service is started in it.
        policy = fresh / "usr" / "sbin" / "policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
        policy.chmod(0o755)
        os.rename(fresh, self.path)

    def copy_sources(self) -> None:
        """The project's files as they are now. Its `target` there stays for the next run."""
        inside = self.path / SOURCES[1:]
        inside.mkdir(parents=True, exist_ok=True)
        for old in inside.iterdir():
            if old.name != "target":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        for name in state.tracked("--cached", "--others", "--exclude-standard"):
            (inside / name).parent.mkdir(parents=True, exist_ok=True)
            # With its time: cargo builds again what is newer.
            shutil.copy2(CLONE / name, inside / name)

    def command(self, words, binds=(), **variables) -> list:
        """The words of a command in it, for subprocess. `binds` are directories that it sees under their own names."""
        mounts = ["mount -t proc proc proc", "mount --rbind /dev dev"]
        for directory in binds:
            mounts.append(f"mkdir -p .{shlex.quote(str(directory))}")
            mounts.append(f"mount --bind {shlex.quote(str(directory))} .{shlex.quote(str(directory))}")
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8",
               "DEBIAN_FRONTEND": "noninteractive", **variables}
        inside = " ".join(shlex.quote(str(word)) for word in ["env", *(f"{k}={v}" for k, v in env.items()), *words])
        script = " && ".join([f"cd {shlex.quote(str(self.path))}", *mounts, f"exec chroot . {inside}"])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]

    def run(self, *words, **options) -> None:
        """Runs a command in it, with its output on standard error."""
        if subprocess.run(self.command(words, **options), stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode != 0:
            raise Failure(f"{' '.join(str(word) for word in words[:3])} failed in {self.path}; what it says above names the cause")


def toolchain() -> tuple:
    """This system's Rust for use in another root: (directories to bind, variables)."""
    home = Path(os.environ.get("HOME", "/root"))
    cargo, rustup = (Path(os.environ.get(name) or home / folder) for name, folder in
                     (("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")))
    found = prerequisites.find_cargo()
    if not found or not rustup.is_dir():
        prerequisites.refuse(prerequisites.rust() or ["Rust is not of rustup:  " + prerequisites.RUSTUP], "nothing was built")
    path = f"{cargo / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return (cargo, rustup), {"PATH": path, "CARGO_HOME": str(cargo), "RUSTUP_HOME": str(rustup)}
