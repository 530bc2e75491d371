"""Providers through the clients: every use of a mount beside OpenTofu's own ways to get a provider."""

import json
import os
import shutil
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import data
import mounts
import registry
from measures import Skipped
from table import Contender, race

ORIGIN = "bench.example"
PLATFORMS = [
    f"{system}_{machine}"
    for system in ("darwin", "freebsd", "linux", "windows")
    for machine in ("386", "amd64", "arm64")
]
# How many directories are initialised, and how many of them at once.
DIRECTORIES, AT_ONCE = 16, 8


def mapping(host, repositories):
    """The flags that map the providers of the benchmark to `repositories` of a registry."""
    return ["--oci-mirror", f"{host}/{repositories}/${{type}}", "--include", f"{ORIGIN}/bench/*"]


def declared(types):
    return [word for kind in types for word in ("--provider", f"{ORIGIN}/bench/{kind}")]


def client():
    """OpenTofu, else Terraform, which knows no oci_mirror."""
    found = shutil.which("tofu") or shutil.which("terraform")
    if not found:
        raise Skipped("neither tofu nor terraform is installed")
    return found


class Way:
    """A CLI configuration, and working directories that are initialised with it."""

    def __init__(self, bed, label, configuration, types=("big",), lock=None):
        self.label, self.program = label, client()
        self.base = bed.new("way")
        os.makedirs(self.base)
        self.types, self.lock, self.count = types, lock, 0
        self.directories = []
        self.configuration = os.path.join(self.base, "tofurc")
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write(configuration)
        temporary = os.path.join(self.base, "tmp")
        os.makedirs(temporary)
        self.env = {**os.environ, "TF_CLI_CONFIG_FILE": self.configuration, "HOME": self.base, "CHECKPOINT_DISABLE": "1",
                    "SSL_CERT_FILE": bed.registry.ca, "TMPDIR": temporary, "NO_PROXY": "127.0.0.1"}

    def make(self, count=1):
        """Fresh working directories in place of those that there are."""
        self.clear()
        for _ in range(count):
            self.count += 1
            directory = os.path.join(self.base, f"work{self.count}")
            os.makedirs(directory)
            requirements = "".join(f'    {t} = {{ source = "{ORIGIN}/bench/{t}" }}\n' for t in self.types)
            with open(os.path.join(directory, "main.tf"), "w", encoding="utf-8") as file:
                file.write(f"terraform {{\n  required_providers {{\n{requirements}  }}\n}}\n")
            if self.lock:
                with open(os.path.join(directory, ".terraform.lock.hcl"), "w", encoding="utf-8") as file:
                    file.write(self.lock)
            self.directories.append(directory)

    def command(self, directory, *words):
        done = subprocess.run([self.program, *words], check=False, cwd=directory, env=self.env, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{self.label}: {words}: {done.stdout}{done.stderr}")

    def init(self):
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda directory: self.command(directory, "init", "-no-color", "-input=false"), self.directories))

    def locked(self):
        with open(os.path.join(self.directories[0], ".terraform.lock.hcl"), encoding="utf-8") as file:
            return file.read()

    def bytes(self):
        """What the working directories take on disk; what they link to is not theirs."""
        total = 0
        for directory in self.directories:
            for base, _, files in os.walk(directory):
                total += sum(os.lstat(os.path.join(base, name)).st_blocks * 512 for name in files)
        return total

    def clear(self):
        for directory in self.directories:
            mounts.remove(directory)
        self.directories = []


def file_system(path):
    return f'provider_installation {{\n  filesystem_mirror {{\n    path = "{path}"\n  }}\n}}\n'


def oci_mirror(bed):
    template = f"{bed.registry.host}/bench/providers/${{type}}"
    return (f'provider_installation {{\n  oci_mirror {{\n    repository_template = "{template}"\n'
            f'    include = ["{ORIGIN}/bench/*"]\n  }}\n}}\n')


def cached(path, rest, setting=False):
    more = "plugin_cache_may_break_dependency_lock_file = true\n" if setting else ""
    return f'plugin_cache_dir = "{path}"\n{more}{rest}'


def provider_mount(bed):
    """A mount with the views of the large provider, and an empty cache."""
    options = mapping(bed.registry.host, "bench/providers") + declared(["big"])
    return bed.keep(mounts.Mount(bed.new("views"), bed.registry, None, options))


def local_mirrors(bed):
    """The large provider as an unpacked and as a packed mirror on disk."""
    base = os.path.join(bed.base, "local")
    unpacked, packed = os.path.join(base, "unpacked"), os.path.join(base, "packed")
    if os.path.exists(base):
        return unpacked, packed
    version = os.path.join(unpacked, ORIGIN, "bench", "big", "1.0.0", bed.platform)
    os.makedirs(os.path.dirname(version))
    # As installers leave it: a directory of its own, written front to back.
    os.rename(bed.plain("provider"), version)
    os.symlink(version, bed.plain("provider"))
    provider = os.path.join(packed, ORIGIN, "bench", "big")
    os.makedirs(provider)
    os.link(bed.zip("provider"), os.path.join(provider, f"terraform-provider-big_1.0.0_{bed.platform}.zip"))
    return unpacked, packed


def size_of(bed):
    size = os.path.getsize(bed.zip("provider")) / 1e6
    return f"a provider of {bed.unit * bed.provider_times / 1e6:.0f} MB (zip: {size:.0f} MB)"


def many(way, sizes):
    """Init of many directories by a way; `sizes` gets what they take on disk."""

    def measure():
        sizes[way.label] = way.bytes()
        way.clear()

    return Contender(way.label, way.init, lambda: way.make(DIRECTORIES), measure)


def many_name(bed):
    return f"`{os.path.basename(client())} init` of {DIRECTORIES} fresh directories, {AT_ONCE} at once, {size_of(bed)}"


def tell_sizes(sizes, counts):
    for label, size in sizes.items():
        counts.append(f"{DIRECTORIES} directories by {label}: {size / 1e6:.1f} MB in them on disk")


def has_oci(bed):
    return os.path.basename(client()) == "tofu" and bed.registry.kind == "docker-registry"


def using(bed, rows, counts):
    """Init by the ways that copy nothing: the first one, later ones, and many at once."""
    program = os.path.basename(client())
    unpacked, _ = local_mirrors(bed)
    rounds = 3 if bed.quick else 5
    plain = Way(bed, "unpacked directory", file_system(unpacked))

    # The first on a mount that has nothing.
    mount = None

    def mount_cold():
        nonlocal mount, cold
        mount = provider_mount(bed)
        cold = Way(bed, "plugins/, cold mount", file_system(os.path.join(mount.path, "plugins")))
        cold.make()

    def unmount():
        cold.clear()
        bed.drop(mount)

    cold = None
    ways = [Contender("plugins/, cold mount", lambda: cold.init(), mount_cold, unmount),
            Contender("unpacked directory", plain.init, plain.make, plain.clear)]
    if has_oci(bed):
        oci = Way(bed, "oci_mirror", oci_mirror(bed))
        ways.insert(0, Contender("oci_mirror", oci.init, oci.make, oci.clear))
    rows.append(race(f"`{program} init`, {size_of(bed)}, the first", ways, 3, "≤ 0.35 of oci_mirror"))

    mount = provider_mount(bed)
    views = {name: os.path.join(mount.path, name) for name in ("plugins", "mirror", "plugin-cache")}
    plugins = Way(bed, "plugins/", file_system(views["plugins"]))
    plugins.make()
    plugins.init()
    lock = plugins.locked()
    cache = Way(bed, "plugin-cache/, lock file", cached(views["plugin-cache"], file_system(views["plugins"]), True), lock=lock)
    ways = [Contender(way.label, way.init, way.make, way.clear) for way in (plain, plugins, cache)]
    rows.append(race(f"`{program} init`, {size_of(bed)}, later ones", ways, rounds, "≤ 1.1"))

    sizes = {}
    rows.append(race(many_name(bed), [many(way, sizes) for way in (plain, plugins, cache)], 3, "≤ 1.15"))
    tell_sizes(sizes, counts)
    requests = mount.status()["requests"]
    counts.append(f"requests of the mount for all inits on it: {requests['total']}, {requests['blob']} of them for blobs")

    # The first of many, on a mount that has nothing.
    bed.drop(mount)
    mount = provider_mount(bed)
    first = Way(bed, "cold", file_system(os.path.join(mount.path, "plugins")))
    first.make(DIRECTORIES)
    began = time.perf_counter()
    first.init()
    requests = mount.status()["requests"]
    counts.append(
        f"{DIRECTORIES} fresh directories, {AT_ONCE} at once, on a cold mount: {time.perf_counter() - began:.2f} s, "
        f"{requests['total']} requests, {requests['blob']} of them for blobs, {first.bytes() / 1e6:.1f} MB in the directories"
    )
    first.clear()
    bed.drop(mount)


def copying(bed, rows, counts):
    """Init of many directories by the ways that give each its copy, or download for each."""
    unpacked, packed = local_mirrors(bed)
    mount = provider_mount(bed)
    ways = [Way(bed, "unpacked directory", file_system(unpacked)), Way(bed, "packed mirror on disk", file_system(packed)),
            Way(bed, "mirror/", file_system(os.path.join(mount.path, "mirror")))]
    if has_oci(bed):
        directory = bed.new("plugin-cache-dir")
        os.makedirs(directory)
        warm = Way(bed, "plugin_cache_dir on disk, warm", cached(directory, oci_mirror(bed)))
        warm.make()
        warm.init()
        locked = Way(bed, "plugin_cache_dir on disk, warm, lock file", cached(directory, oci_mirror(bed)), lock=warm.locked())
        ways += [warm, locked, Way(bed, "oci_mirror", oci_mirror(bed))]
    sizes = {}
    rows.append(race(many_name(bed), [many(way, sizes) for way in ways], 1, None, warm_up=False))
    tell_sizes(sizes, counts)
    bed.drop(mount)


def tiny_zip(bed, directory, kind, version, platform, unit=b"a program", times=1):
    path = os.path.join(directory, f"terraform-provider-{kind}_{version}_{platform}.zip")
    archive = data.Zip(path)
    archive.add(f"terraform-provider-{kind}_v{version}", unit, times, 0o755)
    archive.close()
    return path


def walking(bed, _, counts):
    """An init with many providers of many versions beside the one that is wanted."""
    providers, versions = (5, 10) if bed.quick else (20, 100)
    base = bed.new("walk")
    os.makedirs(base)
    own = bed.keep(registry.start(base))
    types = [f"p{number}" for number in range(providers)]
    for kind in types:
        repository = data.Repository(f"bench/walk/{kind}")
        repository.provider("1.0.0", bed.platform, tiny_zip(bed, base, kind, "1.0.0", bed.platform))
        tag, digest, media_type, content = repository.documents[-1]
        repository.documents += [(f"1.{minor}.0", digest, media_type, content) for minor in range(1, versions)]
        own.push(repository)
    options = mapping(own.host, "bench/walk") + declared(types)
    cache = os.path.join(base, "cache")
    mount = bed.keep(mounts.Mount(bed.new("walks"), own, cache, options))
    what = f"`{os.path.basename(client())} init` with one of {providers} providers of {versions} versions"

    def measure(state, rounds):
        way = Way(bed, state, file_system(os.path.join(mount.path, "plugins")), ["p0"])
        before, seconds = mount.status()["requests"], []
        for _ in range(rounds):
            way.make()
            began = time.perf_counter()
            way.init()
            seconds.append(time.perf_counter() - began)
        way.clear()
        after = mount.status()["requests"]
        total, blob = after["total"] - before["total"], after["blob"] - before["blob"]
        counts.append(f"{what}, {state}: {statistics.median(seconds):.2f} s (n = {rounds}, {min(seconds):.2f}–{max(seconds):.2f}), "
                      f"{total} requests, {blob} of them for blobs")

    measure("cold", 1)
    measure("warm", 5)
    bed.drop(own)
    measure("registry stopped", 5)
    bed.drop(mount)
    mount = bed.keep(mounts.Mount(bed.new("walks"), own, cache, options))
    measure("registry stopped, mounted anew", 1)
    bed.drop(mount)


def locking(bed, rows, counts):
    """Lock files for all platforms: from manifests alone, and from a local mirror of all packages."""
    terraform = shutil.which("terraform") or client()
    platforms = PLATFORMS[:3] if bed.quick else PLATFORMS
    types = [f"l{number}" for number in range(3 if bed.quick else 10)]
    base = bed.new("lock")
    mirror, unit = os.path.join(base, "mirror"), data.program_like("lock", 1 << 20, 0.35, 300)
    env = {**os.environ, "HOME": base, "XDG_STATE_HOME": os.path.join(base, "state"), "no_proxy": "127.0.0.1"}
    size = 0
    for kind in types:
        directory = os.path.join(mirror, ORIGIN, "bench", kind)
        os.makedirs(directory)
        zips = [tiny_zip(bed, directory, kind, "1.0.0", platform, kind.encode() + platform.encode() + unit, 8) for platform in platforms]
        size += sum(os.path.getsize(path) for path in zips)
        command = [os.environ["TOFUFS"], "push", "--ca-file", bed.registry.ca, *zips, f"{bed.registry.host}/bench/lock/{kind}:1.0.0"]
        subprocess.run(command, check=True, env=env, capture_output=True)
    way = Way(bed, "lock", "", types)
    way.program = terraform
    words = [f"-platform={platform}" for platform in platforms]
    cache = os.path.join(base, "cache")
    asked = []

    def by_manifests():
        command = [os.environ["TOFUFS"], "lock", "--json", "--ca-file", bed.registry.ca, "--cache-dir", cache]
        command += [*mapping(bed.registry.host, "bench/lock"), way.directories[0]]
        done = subprocess.run(command, check=True, env=env, capture_output=True, text=True)
        asked.append(json.loads(done.stdout)["requests"])

    def forget():
        mounts.remove(cache)
        way.make()

    by_client = f"`{os.path.basename(terraform)} providers lock -fs-mirror`"
    rows.append(race(
        f"lock {len(types)} providers of {len(platforms)} platforms ({size / 1e6:.0f} MB of zips)",
        [
            Contender(by_client, lambda: way.command(way.directories[0], "providers", "lock", f"-fs-mirror={mirror}", *words), way.make),
            Contender("`tofufs lock`, empty cache", by_manifests, forget),
            Contender("`tofufs lock` again", by_manifests, way.make),
        ],
        3,
    ))
    counts.append(f"`tofufs lock` with an empty cache: {asked[0]['total']} requests, {asked[0]['blob']} of them for blobs")
    way.clear()


ALL = {"clients": using, "copies": copying, "walk": walking, "lock": locking}
