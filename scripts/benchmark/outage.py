"""A registry is killed under a busy mount, stays away, and comes back: what readers notice of it."""

import argparse
import errno
import multiprocessing
import os
import random
import tempfile
import time

import data
import mounts
import registry

READERS = 2
RELEASES = 10
FILES = 50
# How often something is asked for that is not in the cache.
PAUSE = 0.05
# How long the registry's return may take to be noticed.
PATIENCE = 60


def read_for_ever(paths, stop, results):
    """Reads files at random, by their whole paths; hands over when each was read and how long it took."""
    seen, failed = [], 0
    while not stop.is_set():
        path = random.choice(paths)
        began = time.monotonic()
        try:
            with open(path, "rb", 0) as file:
                while file.read(1 << 20):
                    pass
        except OSError:
            failed += 1
        seen.append((began, time.monotonic() - began))
    results.put((seen, failed))


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def milliseconds(seconds):
    return f"{seconds * 1000:.2f} ms"


def row(name, values):
    cells = [f"{len(values)}", *(milliseconds(percentile(values, share)) for share in (0.5, 0.99, 1))]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


class Bed:
    """A registry, a mount of it, and releases of which some are in the cache."""

    def __init__(self, directory):
        self.server = registry.DockerRegistry(directory, registry.make_certificates(directory))
        self.repository = data.Repository("acme/network")
        # One of them is asked for when the registry is away, and again when it is back.
        for number in range(RELEASES + 1):
            path = os.path.join(directory, f"{number}.zip")
            archive = data.Zip(path)
            for member in range(FILES):
                archive.add(f"modules/m{member}/main.tf", data.text_like(number * FILES + member, 4000))
            archive.close()
            self.repository.module(f"1.{number}.0", path)
        self.server.push(self.repository)
        options = ["--deadline", "5s"]
        self.mount = mounts.Mount(os.path.join(directory, "base"), self.server, options=options, tag_ttl="2s")

    def release(self, number):
        return os.path.join(self.mount.root, "acme/network", f"1.{number}.0")

    def log_says(self, words):
        with open(self.mount.log, encoding="utf-8") as file:
            return words in file.read()

    def stop(self):
        self.mount.stop()
        self.server.stop()


def ask(path):
    """Asks for something that is not cached: how long the answer took, and which it is."""
    began = time.monotonic()
    try:
        os.stat(path)
        answer = 0
    except OSError as error:
        answer = error.errno
    return time.monotonic() - began, answer


def run(bed, seconds):
    paths = [
        os.path.join(bed.release(number), f"modules/m{member}/main.tf")
        for number in range(RELEASES)
        for member in range(FILES)
    ]
    for path in paths:
        with open(path, "rb") as file:
            file.read()
    stop, results = multiprocessing.Event(), multiprocessing.Queue()
    readers = [multiprocessing.Process(target=read_for_ever, args=(paths, stop, results)) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    time.sleep(seconds)

    killed = time.monotonic()
    bed.server.stop()
    opened, answers, other = None, [], set()
    while time.monotonic() < killed + seconds:
        # Each name is a new one: what was asked for just now is answered from memory.
        took, answer = ask(f"{os.path.dirname(bed.release(0))}:9.9.{random.randrange(10**9)}")
        if opened is not None:
            answers.append(took)
        if answer not in (errno.EHOSTUNREACH, errno.ETIMEDOUT):
            other.add(errno.errorcode.get(answer, "no error"))
        if opened is None and bed.log_says("left alone"):
            opened = time.monotonic()
        time.sleep(PAUSE)

    back = time.monotonic()
    bed.server.start()
    served = None
    while served is None and time.monotonic() < back + PATIENCE:
        fresh = os.path.join(bed.release(RELEASES), "modules/m0/main.tf")
        if os.path.exists(fresh):
            served = time.monotonic() - back
        time.sleep(PAUSE)
    stop.set()
    seen, failed = [], 0
    for _ in readers:
        times, failures = results.get()
        seen += times
        failed += failures
    for reader in readers:
        reader.join()
    report(seconds, killed, back, opened, answers, other, served, seen, failed)


def report(seconds, killed, back, opened, answers, other, served, seen, failed):
    normal = [took for began, took in seen if began < killed]
    away = [took for began, took in seen if killed <= began < back]
    print(f"A registry away for {seconds} s; {READERS} readers of {RELEASES} cached releases, --tag-ttl 2s\n")
    print("| | count | median | p99 | max |\n|---|---|---|---|---|")
    row("cached reads, registry there", normal)
    row("cached reads, registry away", away)
    row("uncached names, breaker open", answers)
    ratio = percentile(away, 0.99) / percentile(normal, 0.99)
    print(f"\np99 of cached reads: {ratio:.2f} of normal (goal: at most 1.2); reads that failed: {failed}")
    print(f"the breaker opened {opened - killed:.1f} s after the registry was killed" if opened else "no breaker opened")
    print(f"uncached, breaker open: p99 {milliseconds(percentile(answers, 0.99))} (goal: at most 10 ms)")
    print(f"answers that were no outage: {', '.join(sorted(other)) or 'none'}")
    print(f"full service {served:.1f} s after its return (goal: 30 s)" if served else f"no service after {PATIENCE} s")


def main():
    parser = argparse.ArgumentParser(prog="scripts/outage", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long the registry is away (default: 60)")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as directory:
        bed = Bed(directory)
        try:
            run(bed, seconds)
        finally:
            bed.stop()


if __name__ == "__main__":
    main()
