"""What is measured. Each measure appends rows to the table, and lines of what is counted rather than timed."""

import mmap
import os
import subprocess
import threading

import mounts
from table import Contender, race

SILENT = mounts.SILENT
MEMBER = ("member", "1.0.0", "member.bin")
PROGRAM = ("program", "1.0.0", "program")


class Skipped(Exception):
    """Something that the measure needs is not there."""


def run(*command, status=0):
    got = subprocess.run(command, check=False, **SILENT).returncode
    if got != status:
        raise RuntimeError(f"{' '.join(command)}: exit status {got}")


def contenders(bed, package, action, before=None, file="", peer=True):
    """The same action on the plain directory, on every mount, and on fuse-zip where `peer`."""
    paths = {"plain directory": bed.plain(package, file)}
    for label, mount in bed.mounts.items():
        paths[label] = os.path.join(mount.root, "bench", package, "1.0.0", file)
    if peer and package in bed.peer:
        paths["fuse-zip"] = os.path.join(bed.peer[package].path, file)
    return [
        Contender(label, lambda path=path: action(path), before and (lambda path=path: before(path)))
        for label, path in paths.items()
    ]


def read(path):
    run("dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none")


def touch(path):
    """Maps the file and reads a byte of every page."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        return len(memory[:: mmap.PAGESIZE])


def forget(bed):
    """Drops the kernel's pages of files in mounts, not those of the files on disk."""

    def drop(path):
        if not path.startswith(bed.plain()):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    return drop


def drop_caches(_):
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as file:
        file.write("3")


def megabytes(bed):
    return f"{bed.unit * bed.member_times / 1e6:.0f} MB"


def reading(bed, rows, _):
    size = megabytes(bed)
    warm = contenders(bed, "member", read, file="member.bin")
    rows.append(race(f"read {size}, warm", warm, bed.rounds, "≤ 1.11"))
    forgotten = contenders(bed, "member", read, forget(bed), "member.bin", peer=False)
    rows.append(race(f"read {size}, the mount's pages dropped", forgotten, 3))


def mapping(bed, rows, _):
    size = megabytes(bed)
    # fuse-zip inflates the whole member at every open, which reading has shown.
    warm = contenders(bed, "member", touch, file="member.bin", peer=False)
    rows.append(race(f"mmap and touch {size}, warm", warm, bed.rounds, "≤ 1.1"))
    forgotten = contenders(bed, "member", touch, forget(bed), "member.bin", peer=False)
    rows.append(race(f"mmap and touch {size}, the mount's pages dropped", forgotten, 3))


def cold(bed, rows, _):
    if os.geteuid() != 0:
        raise Skipped("dropping the kernel's caches takes root")
    at = contenders(bed, "member", read, drop_caches, "member.bin")
    rows.append(race(f"read {megabytes(bed)}, all caches of the kernel dropped", at, 3))


def executing(bed, rows, _):
    size = f"{bed.program_size / 1e6:.0f} MB"
    rows.append(race(f"run a program of {size}, warm", contenders(bed, "program", run, file="program"), bed.rounds, "≤ 1.1"))
    forgotten = contenders(bed, "program", run, forget(bed), "program")
    rows.append(race(f"run a program of {size}, the mount's pages dropped", forgotten, bed.rounds))


def walk(bed, rows, counts, name, goal, action):
    rows.append(race(f"`{name}`, {bed.files} files, warm", contenders(bed, "tree", action), bed.rounds, goal))
    for label, mount in bed.mounts.items():
        reads, requests = mount.reads(), mount.status()["requests"]["total"]
        action(os.path.join(mount.root, "bench", "tree", "1.0.0"))
        made = mount.status()["requests"]["total"] - requests
        counts.append(f"`{name}` on {label}, warm: {mount.reads() - reads} read calls of its process (one for each FUSE request), {made} HTTP requests")


def finding(bed, rows, counts):
    walk(bed, rows, counts, "find", "≤ 1.2", lambda path: run("find", path))


def listing(bed, rows, counts):
    walk(bed, rows, counts, "ls -lR", None, lambda path: run("ls", "-lR", path))


def searching(bed, rows, counts):
    # Nothing matches: grep would stop at the first match, since its output goes nowhere.
    walk(bed, rows, counts, "grep -r", "≤ 4; ≤ 1.5 read-only", lambda path: run("grep", "-r", "QQ", path, status=1))


def fetching(bed, rows, counts):
    url = f"https://{bed.registry.host}/v2/bench/member/blobs/{bed.member_package}"
    directory = bed.new("curl")
    mount, times = None, []

    def by_hand():
        archive = os.path.join(directory, "member.zip")
        run("curl", "-sSf", "--noproxy", "*", "--cacert", bed.registry.ca, "-o", archive, url)
        line = f"{bed.member_package.removeprefix('sha256:')}  {archive}\n"
        subprocess.run(["sha256sum", "-c"], input=line.encode(), check=True, **SILENT)
        run("unzip", "-q", archive, "-d", os.path.join(directory, "out"))

    def make():
        os.sync()
        os.makedirs(directory)

    def mount_empty():
        nonlocal mount
        os.sync()
        mount = bed.fresh_mount()

    def unmount():
        times.append(mount.memory()[1])
        bed.drop(mount)

    def through_mount():
        run("cat", os.path.join(mount.root, "bench", *MEMBER))

    size = os.path.getsize(bed.zip("member")) / 1e6
    rows.append(race(
        f"fetch a zip of {size:.0f} MB with one member of {megabytes(bed)}, read the member",
        [
            Contender("curl, sha256sum, unzip", by_hand, make, lambda: mounts.remove(directory)),
            Contender("tofufs", through_mount, mount_empty, unmount),
        ],
        3,
        "≤ 0.5",
    ))
    counts.append(f"memory at the peak of such a fetch: {max(times):.0f} MiB")


def initialising(bed, rows, _):
    program = next((name for name in ("tofu", "terraform") if subprocess.run(["which", name], check=False, **SILENT).returncode == 0), None)
    if program is None:
        raise Skipped("neither tofu nor terraform is installed")
    directory = bed.new("init")
    work = os.path.join(directory, "work")
    os.makedirs(work)
    with open(os.path.join(work, "main.tf"), "w", encoding="utf-8") as file:
        file.write('terraform {\n  required_providers {\n    big = { source = "bench.example/bench/big" }\n  }\n}\n')
    releases = {"plain directory": bed.plain("provider")}
    for label, mount in bed.mounts.items():
        releases[label] = os.path.join(mount.root, "bench", "providers", "big", "1.0.0", bed.platform)
    at = []
    for number, (label, release) in enumerate(releases.items()):
        mirror = os.path.join(directory, f"mirror{number}")
        version = os.path.join(mirror, "bench.example", "bench", "big", "1.0.0")
        os.makedirs(version)
        os.symlink(release, os.path.join(version, bed.platform))
        config = os.path.join(directory, f"config{number}")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n')

        def init(config=config):
            command = [program, f"-chdir={work}", "init", "-no-color", "-input=false"]
            env = {**os.environ, "TF_CLI_CONFIG_FILE": config, "HOME": directory, "CHECKPOINT_DISABLE": "1"}
            done = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"{program} init: {done.stdout}{done.stderr}")

        def clean():
            mounts.remove(os.path.join(work, ".terraform"))
            lock = os.path.join(work, ".terraform.lock.hcl")
            if os.path.exists(lock):
                os.unlink(lock)

        at.append(Contender(label, init, clean))
    size = os.path.getsize(bed.zip("provider")) / 1e6
    rows.append(race(
        f"`{program} init` with a provider of {bed.unit * bed.provider_times / 1e6:.0f} MB (zip: {size:.0f} MB) by filesystem_mirror, warm",
        at, 3 if bed.quick else 5, "≤ 1.1",
    ))


def crowding(bed, _, counts):
    readers, piece = 64, 1 << 20
    mount = bed.fresh_mount()
    path = os.path.join(mount.root, "bench", *MEMBER)
    wrong = []

    def one(number):
        offset = number * (bed.unit * bed.member_times // readers)
        with open(path, "rb", 0) as file, open(bed.plain("member", "member.bin"), "rb", 0) as plain:
            if os.pread(file.fileno(), piece, offset) != os.pread(plain.fileno(), piece, offset):
                wrong.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    requests = mount.status()["requests"]
    size = os.path.getsize(bed.zip("member")) / 1e6
    counts.append(
        f"{readers} readers of one package of {size:.0f} MB that was not there: {requests['total']} requests, {requests['blob']} of them "
        f"for blobs, {len(wrong)} wrong answers; the process's peak memory {mount.memory()[1]:.0f} MiB"
    )
    bed.drop(mount)


ALL = {
    "read": reading,
    "mmap": mapping,
    "cold": cold,
    "exec": executing,
    "find": finding,
    "ls": listing,
    "grep": searching,
    "fetch": fetching,
    "init": initialising,
    "readers": crowding,
}
