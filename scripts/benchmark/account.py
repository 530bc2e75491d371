"""Where the time of a cold read goes: processor time by stage and thread, and what the threads wait for, by `perf`."""

import collections
import os
import re
import shutil
import subprocess
import time

from measures import Skipped, run

# Of a sample's call chain, from the inside out, the first name that fits decides.
STAGES = [
    ("inflate", r"zlib_rs|inflate"),
    ("hash (SHA-256)", r"sha256"),
    ("sums (BLAKE3)", r"blake3"),
    ("CRC of the member", r"crc32"),
    ("decrypt", r"aes|gcm|chacha|poly1305"),
    ("sync", r"fdatasync|x64_sys_fsync|arm64_sys_fsync|sync_file_range"),
    ("write to the cache", r"pwrite"),
    ("read from the cache", r"pread"),
    ("answer the kernel (FUSE)", r"fuse_dev|fuse_"),
    ("receive", r"recv|tcp_|sock_|inet_"),
    ("open, rename, stat", r"rename|openat|statx|unlink"),
    ("wait and wake", r"futex|epoll|schedule"),
    ("copy in memory", r"memmove|memcpy|memset"),
]
RATE = 997


def samples(text):
    """Thread and call chain of each sample that `perf script` prints."""
    for block in text.split("\n\n"):
        lines = block.strip().splitlines()
        if lines:
            thread = re.search(r"\s(\d+)\s+[\d.]+:", lines[0])
            names = [line.split(None, 1)[1] for line in lines[1:] if len(line.split(None, 1)) == 2]
            yield thread and thread.group(1), " ".join(names)


def stage(chain):
    return next((name for name, pattern in STAGES if re.search(pattern, chain)), "the rest")


def accounting(bed, _, counts):
    if os.geteuid() != 0 or not shutil.which("perf"):
        raise Skipped("an account takes root and perf")
    mount = bed.fresh_mount()
    directory = os.path.join(mount.root, "bench", "providers", "big", "1.0.0", bed.platform)
    record = os.path.join(bed.base, "account")
    os.sync()
    recorder = subprocess.Popen(["perf", "record", "-q", "-e", "task-clock", "-F", str(RATE), "-g", "-a", "-o", record])
    time.sleep(1)
    began = time.perf_counter()
    run("ls", directory)
    entered = time.perf_counter() - began
    run("cat", os.path.join(directory, os.listdir(directory)[0]))
    done = time.perf_counter() - began
    recorder.send_signal(2)
    recorder.wait()
    script = subprocess.run(["perf", "script", "-i", record, "--pid", str(mount.pid), "-F", "comm,tid,time,ip,sym"],
                            check=True, capture_output=True, text=True).stdout
    by_stage, by_thread = collections.Counter(), collections.defaultdict(collections.Counter)
    for thread, chain in samples(script):
        name = stage(chain)
        by_stage[name] += 1
        by_thread[thread][name] += 1
    bed.drop(mount)
    if not by_stage:
        raise RuntimeError("perf took no sample of the mount's process")
    total = sum(by_stage.values())
    counts.append(f"account of a cold read ({bed.unit * bed.provider_times / 1e6:.0f} MB): listed after {entered:.2f} s, read after {done:.2f} s; "
                  f"{total / RATE:.2f} s of processor time in tofufs")
    for name, count in by_stage.most_common():
        counts.append(f"account, {name}: {count / RATE:.2f} s ({100 * count / total:.0f} %)")
    for number, (_, stages) in enumerate(sorted(by_thread.items(), key=lambda item: -sum(item[1].values()))[:6], 1):
        most = ", ".join(f"{name} {count / RATE:.2f}" for name, count in stages.most_common(4))
        busy = sum(stages.values()) / RATE
        counts.append(f"account, thread {number}: {busy:.2f} s busy, {max(done - busy, 0):.2f} s idle or waiting: {most}")


ALL = {"account": accounting}
