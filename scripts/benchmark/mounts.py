"""Mounts that are started, looked into and taken away again."""

import json
import os
import shutil
import signal
import subprocess
import time

SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def is_mounted(path):
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return any(line.split()[1] == path for line in file)


def below(directory):
    """The mount points below a directory, the innermost first."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        points = [line.split()[1] for line in file]
    return [point for point in reversed(points) if point.startswith(directory + "/")]


def detach(path):
    """Takes a mount away, whatever is left of it."""
    for command in (["umount", path], ["fusermount3", "-u", path], ["umount", "-l", path], ["fusermount3", "-uz", path]):
        if not is_mounted(path):
            return
        try:
            subprocess.run(command, check=False, timeout=30, **SILENT)
        except subprocess.TimeoutExpired:
            pass
    if is_mounted(path):
        raise RuntimeError(f"{path} is still mounted")


class Mount:
    """A mount of a registry by tofufs. `base` gets its state; the cache may be shared."""

    def __init__(self, base, registry, cache=None, options=(), tag_ttl="24h"):
        self.program = os.environ["TOFUFS"]
        self.base = base
        self.path = os.path.join(base, "mnt")
        self.root = os.path.join(self.path, registry.host)
        os.makedirs(self.path)
        self.env = {**os.environ, "HOME": base, "XDG_STATE_HOME": os.path.join(base, "state"), "no_proxy": "127.0.0.1"}
        self.log = os.path.join(base, "log")
        command = [self.program, "mount", "--cache-dir", cache or os.path.join(base, "cache"), "--log-file", self.log]
        command += ["--ca-file", registry.ca, "--tag-ttl", tag_ttl, *options, registry.host, self.path]
        subprocess.run(command, check=True, env=self.env)
        self.pid = self.status()["pid"]

    def status(self):
        command = [self.program, "status", "--json", self.path]
        answer = subprocess.run(command, check=True, env=self.env, capture_output=True).stdout
        return json.loads(answer)["mounts"][0]

    def mode(self):
        """How large files are read, in the words of the log."""
        with open(self.log, encoding="utf-8") as file:
            said = [line.split("files are read", 1)[1].strip() for line in file if "files are read" in line]
        return f"files are read {said[0]}" if said else "the log does not say how files are read"

    def memory(self):
        """Memory now and at its peak, in MiB."""
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file)
        return tuple(int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))

    def reads(self):
        """How many read calls the process has made. Where nothing else is read these are the kernel's FUSE requests."""
        with open(f"/proc/{self.pid}/io", encoding="utf-8") as file:
            return int(dict(line.split(": ") for line in file)["syscr"])

    def stop(self):
        if is_mounted(self.path):
            subprocess.run([self.program, "umount", self.path], check=False, env=self.env, timeout=60, **SILENT)
        detach(self.path)
        remove(self.base)


class FuseZip:
    """A zip mounted by fuse-zip."""

    def __init__(self, base, archive):
        self.path = base
        os.makedirs(base)
        self.process = subprocess.Popen(["fuse-zip", "-r", "-f", archive, base], **SILENT)
        deadline = time.monotonic() + 60
        while not is_mounted(base):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SystemExit(f"fuse-zip does not mount {archive}")
            time.sleep(0.02)

    def stop(self):
        detach(self.path)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def remove(directory):
    """Removes a directory of ours. Never one with a mount below it."""
    left = below(directory)
    if left:
        raise RuntimeError(f"{left} are still mounted: unmount them, then remove {directory}")
    shutil.rmtree(directory, ignore_errors=True)
