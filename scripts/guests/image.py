"""Makes the kernel and the initramfs of a guest; nothing of the guest's packages is run."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.guests.environments import Guest

__all__ = ["ROOT", "Image", "apt_options", "build", "sources_line"]

ROOT = Path(__file__).parents[2]
"""The project."""

PACKAGES = (
    "busybox-static",
    "bash",
    "coreutils",
    "gcc",
    "libatomic1",
    "libc6-dev",
    "python3",
    "strace",
    "util-linux",
)
"""What the guest has; apt adds what these need."""

# A running system would need these; the guest's init does not.
_LEFT_OUT = re.compile(
    r"(adduser|base-files|debconf|dpkg|initramfs-tools|klibc|kmod|linux-base|linux-image|logsave|"
    r"media-types|passwd|perl|systemd|udev|libasan|libtsan|libubsan|liblsan|libkrb|libgssapi)"
)
_UNUSED = ("doc", "man", "locale", "info", "bash-completion", "perl", "gdb")

WHEELS = (
    "click",
    "hypothesis",
    "iced-x86",
    "numpy",
    "psutil",
    "pyelftools",
    "pytest",
    "pytest-timeout",
    "python-ptrace",
    "rich",
)


class Image:
    """The files of a guest, below a folder of its own.

    Attributes:
        folder: The folder.
        kernel: The kernel.
        initrd: The initramfs.
    """

    def __init__(self, guest: Guest, lab: Path) -> None:
        self.guest = guest
        self.folder = lab / guest.name
        self.kernel = self.folder / "kernel"
        self.initrd = self.folder / "initrd"


def sources_line(guest: Guest, text: str) -> str:
    """Returns the line of sources.list for a suite, with the mirror that this machine uses.

    Args:
        guest: The guest.
        text: The sources of this machine's apt, of both forms.

    Raises:
        LookupError: They name no mirror of Debian.
    """
    found = re.search(r"https?://[^\s]*/debian/?(?=\s|$)", text, re.MULTILINE)
    if found is None:
        raise LookupError("apt of this machine has no mirror of Debian")
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return f"deb [arch={guest.arch} signed-by={keys}] {found[0]} {guest.suite} main\n"


def apt_options(guest: Guest, state: Path) -> list[str]:
    """Returns the options that make apt use `state` alone, and leave this machine as it is."""
    return [
        *(f"-oDir::State={state}", f"-oDir::State::status={state}/status"),
        *(f"-oDir::State::lists={state}/lists", f"-oDir::Cache={state}/cache"),
        *(f"-oDir::Etc::sourcelist={state}/sources", "-oDir::Etc::sourceparts=/dev/null"),
        *(f"-oAPT::Architecture={guest.arch}", f"-oAPT::Architectures::={guest.arch}"),
        *("-oAcquire::Languages=none", "-oAPT::Sandbox::User=root", "-oAcquire::Retries=5"),
        *("-oAcquire::Check-Valid-Until=false", "-q", "-y"),
    ]


def build(image: Image) -> None:
    """Makes the kernel and the initramfs; keeps what an earlier call has fetched.

    Raises:
        subprocess.CalledProcessError: apt, pip, dpkg-deb or cpio failed.
    """
    image.folder.mkdir(parents=True, exist_ok=True)
    base = image.folder / "base"
    if not (image.kernel.exists() and base.exists()):
        _fetch(image)
        _unpack(image, base)
    site = image.folder / "site"
    if not site.exists():
        _install(image.guest, site)
    root = image.folder / "root"
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(["cp", "-al", base, root], check=True)
    _add_project(root, site)
    _pack(root, image.initrd)


def _fetch(image: Image) -> None:
    state = image.folder / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    apt = Path("/etc/apt")
    files = [apt / "sources.list", *(apt / "sources.list.d").glob("*")]
    text = "\n".join(file.read_text() for file in files if file.is_file())
    (state / "sources").write_text(sources_line(image.guest, text))
    options = apt_options(image.guest, state)
    subprocess.run(["apt-get", *options, "update"], check=True)
    subprocess.run(
        [
            *("apt-get", *options, "--no-install-recommends", "--download-only", "install"),
            *(*PACKAGES, f"linux-image-{image.guest.arch}"),
        ],
        check=True,
    )


def _unpack(image: Image, base: Path) -> None:
    shutil.rmtree(base, ignore_errors=True)
    (base / "usr").mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (base / "usr" / name).mkdir()
        (base / name).symlink_to(f"usr/{name}")
    for package in sorted((image.folder / "apt/cache/archives").glob("*.deb")):
        if re.match(r"linux-image-\d", package.name):
            _take_kernel(package, image)
        elif not _LEFT_OUT.match(package.name):
            excluded = [f"--exclude=./usr/share/{name}" for name in _UNUSED]
            with subprocess.Popen(
                ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
            ) as tar:
                subprocess.run(
                    ["tar", "-x", "-C", base, "--keep-directory-symlink", *excluded],
                    stdin=tar.stdout,
                    check=True,
                )


def _take_kernel(package: Path, image: Image) -> None:
    boot = image.folder / "boot"
    shutil.rmtree(boot, ignore_errors=True)
    boot.mkdir()
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            ["tar", "-x", "-C", boot, "--wildcards", "./boot/vmlinu*"], stdin=tar.stdout, check=True
        )
    kernel = next((boot / "boot").glob("vmlinu*"))
    data = kernel.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    elif data[:6] == b"\xfd7zXZ\0":
        data = lzma.decompress(data)
    image.kernel.write_bytes(data)


def _platforms(machine: str) -> Iterator[str]:
    for tag in ("any", "manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28"):
        yield f"--platform={tag}" if tag == "any" else f"--platform={tag}_{machine}"


def _install(guest: Guest, site: Path) -> None:
    wheels = [name for name in WHEELS if name != "iced-x86" or guest.machine == "x86_64"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site)]
    only = [f"--python-version={guest.python}", *_platforms(guest.machine), "--only-binary=:all:"]
    subprocess.run([*pip, *only, *(name for name in wheels if name != "python-ptrace")], check=True)
    # There is no wheel of it; it is pure Python.
    subprocess.run([*pip, "--no-deps", "python-ptrace"], check=True)


_INIT = """#!/bin/busybox sh
export PATH=/usr/bin:/usr/sbin HOME=/root TERM=dumb LANG=C.UTF-8
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
$b mkdir -p /dev/pts /dev/shm
$b mount -t devpts pts /dev/pts; $b mount -t tmpfs -o mode=1777 shm /dev/shm
$b mount -t securityfs s /sys/kernel/security
$b mount -t tracefs t /sys/kernel/tracing 2>/dev/null
$b ip link set lo up
ldconfig
python3 /project/scripts/guests/inside.py < /dev/null 2>&1
echo "GUEST-ENDS $?"
echo o > /proc/sysrq-trigger
$b sleep 60
"""


def _add_project(root: Path, site: Path) -> None:
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "etc", "home/user", "project"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    etc = root / "etc"
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n"
    )
    (etc / "group").write_text("root:x:0:\nuser:x:1000:\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    if not (root / "usr/bin/cc").exists():
        (root / "usr/bin/cc").symlink_to("gcc")
    subprocess.run(["cp", "-a", site, root / "site"], check=True)
    archive = subprocess.Popen(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    with archive:
        subprocess.run(
            ["cpio", "-0", "-p", "-d", "-L", "--quiet", root / "project"],
            cwd=ROOT,
            stdin=archive.stdout,
            check=True,
        )
    init = root / "init"
    init.unlink(missing_ok=True)
    init.write_text(_INIT)
    init.chmod(0o755)


def _pack(root: Path, initrd: Path) -> None:
    with (
        initrd.open("wb") as out,
        subprocess.Popen(["find", ".", "-print0"], cwd=root, stdout=subprocess.PIPE) as names,
    ):
        subprocess.run(
            ["cpio", "-0", "-o", "-H", "newc", "-R", "0:0", "--quiet"],
            cwd=root,
            stdin=names.stdout,
            stdout=out,
            check=True,
        )
