"""The benchmark that scripts/bench runs. See docs/performance.md."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile

import account
import clients
import data
import measures
import mounts
import publishing
import registry
import table

MEASURES = {**measures.ALL, **clients.ALL, **publishing.ALL, **account.ALL}


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures a mount beside a plain directory, fuse-zip and curl.")
    parser.add_argument("--quick", action="store_true", help="small data and three rounds: to see that it works")
    parser.add_argument("--only", action="append", metavar="NAME", choices=sorted(MEASURES),
                        help=f"only this measure; may be given several times ({', '.join(MEASURES)})")
    parser.add_argument("--also", action="append", default=[], metavar="LABEL=OPTIONS",
                        help="one more mount beside the first, with these options of `tofufs mount`; may be given several times")
    parser.add_argument("--json", metavar="FILE", help="write every single time to this file")
    parser.add_argument("--dir", default=None, metavar="DIR", help="where the data is made [default: the target directory]")
    return parser.parse_args()


def output_of(*command):
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def host_line(directory, server, load):
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    file_system = output_of("findmnt", "-no", "FSTYPE", "-T", directory) or "an unknown file system"
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    version = output_of(os.environ["TOFUFS"], "--version")
    return (f"{version} as {user}, Linux {platform.release()}, {os.cpu_count()} × {model}, {memory:.0f} GiB, {file_system}, "
            f"{server.kind} over TLS on 127.0.0.1, load before {load:.1f}")


class Bed:
    """Data, registry and mounts; what is started is stopped by `close`, in whatever state it is."""

    def __init__(self, options):
        self.quick = options.quick
        self.rounds = 3 if options.quick else 7
        # What other programs take of the machine.
        self.load = os.getloadavg()[0]
        default = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "tmp")
        os.makedirs(options.dir or default, exist_ok=True)
        # As the kernel lists mounts: without symbolic links.
        self.base = os.path.realpath(tempfile.mkdtemp(prefix="bench.", dir=options.dir or default))
        self.started = []
        self.counter = 0
        self.peer = {}

    def open(self, options):
        self.sizes()
        say("making the data")
        repositories = self.make_data()
        say("starting the registry")
        self.registry = self.keep(registry.start(self.base))
        for repository in repositories:
            self.registry.push(repository)
        cache = os.path.join(self.base, "cache")
        self.mounts = {"tofufs": self.keep(mounts.Mount(self.new("mount"), self.registry, cache))}
        for also in options.also:
            label, _, extra = also.partition("=")
            mount = mounts.Mount(self.new("mount"), self.registry, cache, extra.split())
            self.mounts[label] = self.keep(mount)
        if shutil.which("fuse-zip"):
            for name in ("member", "tree", "program"):
                peer = mounts.FuseZip(self.new("fuse-zip"), os.path.join(self.base, f"{name}.zip"))
                self.peer[name] = self.keep(peer)

    def sizes(self):
        quick = self.quick
        self.unit = (2 if quick else 8) << 20
        self.member_times = 16 if quick else 87
        self.files = 1000 if quick else 10_000
        self.program_size = (9 if quick else 90) * 1_000_000
        self.provider_times = 10 if quick else 78
        system, machine = platform.system().lower(), platform.machine()
        self.platform = f"{system}_{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"

    def make_data(self):
        os.makedirs(os.path.join(self.base, "plain"))
        unit = data.program_like("member", self.unit, 0.73, 75)
        archive = data.Zip(self.zip("member"))
        archive.add("member.bin", unit, self.member_times)
        archive.close()
        data.write_repeated(self.plain("member", "member.bin"), unit, self.member_times)

        archive = data.Zip(self.zip("tree"))
        data.write_tree(self.plain("tree"), archive, self.files, 5000)
        archive.close()

        os.makedirs(self.plain("program"))
        program = self.plain("program", "program")
        data.build_program(program, self.base, self.program_size)
        archive = data.Zip(self.zip("program"))
        with open(program, "rb") as file:
            archive.add("program", file.read(), mode=0o755)
        archive.close()

        name = "terraform-provider-big_v1.0.0"
        unit = data.program_like("provider", self.unit, 0.35, 300)
        archive = data.Zip(self.zip("provider"))
        archive.add(name, unit, self.provider_times, 0o755)
        archive.close()
        data.write_repeated(self.plain("provider", name), unit, self.provider_times, 0o755)

        repositories = []
        for name in ("member", "tree", "program"):
            repository = data.Repository(f"bench/{name}")
            repository.module("1.0.0", self.zip(name))
            repositories.append(repository)
        self.member_package = repositories[0].package
        provider = data.Repository("bench/providers/big")
        provider.provider("1.0.0", self.platform, self.zip("provider"))
        return [*repositories, provider]

    def zip(self, name):
        return os.path.join(self.base, f"{name}.zip")

    def plain(self, *path):
        return os.path.join(self.base, "plain", *path)

    def new(self, kind):
        """The name of a directory that is not there yet."""
        self.counter += 1
        return os.path.join(self.base, f"{kind}{self.counter}")

    def keep(self, part):
        self.started.append(part)
        return part

    def fresh_mount(self):
        """A mount with an empty cache; its user stops it."""
        return self.keep(mounts.Mount(self.new("fresh"), self.registry))

    def drop(self, part):
        part.stop()
        self.started.remove(part)

    def close(self):
        for part in reversed(self.started):
            try:
                part.stop()
            except Exception as error:  # what else was started has to be stopped all the same
                say(f"while cleaning up: {error}")
        for path in mounts.below(self.base):
            mounts.detach(path)
        mounts.remove(self.base)


def say(text):
    print(text, file=sys.stderr, flush=True)


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bed = Bed(options)
    try:
        bed.open(options)
        results, counts = [], []
        for name in options.only or MEASURES:
            say(f"measuring {name}")
            try:
                MEASURES[name](bed, results, counts)
            except measures.Skipped as reason:
                say(f"  left out: {reason}")
        for label, mount in bed.mounts.items():
            now, peak = mount.memory()
            counts.append(f"{label}: {mount.mode()}")
            counts.append(f"memory of {label} at the end: {now:.0f} MiB, at its peak {peak:.0f} MiB")
        host = host_line(bed.base, bed.registry, bed.load)
        statuses = {label: mount.status() for label, mount in bed.mounts.items()}
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # A second Ctrl-C must not leave mounts behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        bed.close()
    labels = [*bed.mounts, *(["fuse-zip"] if bed.peer else [])]
    print(f"{host}{', small data' if options.quick else ''}\n")
    print(table.markdown(results, labels))
    print()
    for count in counts:
        print(f"* {count}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"host": host, "quick": options.quick, "results": results, "counts": counts, "mounts": statuses}, file, indent=1)


main()
