"""Publishing a directory of many files: copied into a mount and committed, pushed as it is, or by zip and oras."""

import os
import shutil
import subprocess

import mounts
from table import Contender, race


def environment(bed):
    return {**os.environ, "HOME": bed.base, "XDG_STATE_HOME": os.path.join(bed.base, "push-state"), "no_proxy": "127.0.0.1"}


def command(bed, *words, cwd=None):
    done = subprocess.run(words, check=False, cwd=cwd, env=environment(bed), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")


class Release:
    """A directory that differs in one file each time, so that its package is always a new one."""

    def __init__(self, bed):
        self.bed, self.number, self.tree = bed, 0, bed.plain("tree")

    def next(self):
        self.number += 1
        with open(os.path.join(self.tree, "release"), "w", encoding="utf-8") as file:
            file.write(f"release {self.number}\n")
        return f"1.0.{self.number}"


def publishing(bed, rows, _):
    release = Release(bed)
    mount = bed.fresh_mount()
    staging = os.path.join(mount.path, "staging", bed.registry.host, "bench", "published")
    os.makedirs(staging)
    disk = bed.new("copies")
    os.makedirs(disk)
    staged = copied = packed = None

    def onto_disk():
        nonlocal copied
        copied = os.path.join(disk, release.next())
        command(bed, "cp", "-r", release.tree, copied)

    def into_staging():
        nonlocal staged
        staged = os.path.join(staging, release.next())
        command(bed, "cp", "-r", release.tree, staged)

    def remove_copy():
        mounts.remove(copied)

    def remove_staged():
        # As an operator does: what was copied is not wanted after all.
        command(bed, "rm", "-r", staged)

    copying = [Contender("`cp -r` onto the disk", onto_disk, os.sync, remove_copy),
               Contender("`cp -r` into `staging/`", into_staging, os.sync, remove_staged)]
    rows.append(race(f"copy {bed.files} files", copying, 3, "≤ 1.5"))

    def push():
        reference = f"{bed.registry.host}/bench/pushed:{os.path.basename(copied)}"
        command(bed, os.environ["TOFUFS"], "push", "--ca-file", bed.registry.ca, copied, reference)

    def commit():
        command(bed, os.environ["TOFUFS"], "commit", staged)
        if os.path.exists(staged):
            raise RuntimeError(f"{staged} was published and is staged still")

    def by_hand():
        nonlocal packed
        packed = os.path.join(disk, "package.zip")
        command(bed, "zip", "-q", "-r", packed, ".", cwd=copied)
        reference = f"{bed.registry.host}/bench/orased:{os.path.basename(copied)}"
        kind = "application/vnd.opentofu.modulepkg"
        command(bed, "oras", "push", "--ca-file", bed.registry.ca, "--artifact-type", kind, reference, "package.zip:archive/zip", cwd=disk)

    def remove_packed():
        os.unlink(packed)
        remove_copy()

    publishing = [Contender("`tofufs push`", push, onto_disk, remove_copy),
                  Contender("`tofufs commit` of what was copied into `staging/`", commit, into_staging)]
    if shutil.which("oras") and shutil.which("zip"):
        publishing.append(Contender("`zip -r`, `oras push`", by_hand, onto_disk, remove_packed))
    rows.append(race(f"publish {bed.files} files", publishing, 3, "commit ≤ 1.1 of push"))
    os.unlink(os.path.join(release.tree, "release"))
    bed.drop(mount)


ALL = {"publish": publishing}
