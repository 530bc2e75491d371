"""What is measured on: files, zips and image layouts, made from fixed seeds.

The bytes imitate programs and texts: they compress as much, and inflate as slowly, as real ones. Big members repeat one
unit that is longer than deflate's window, so that repetition saves the zip nothing and its making takes seconds.
"""

import hashlib
import json
import os
import random
import struct
import subprocess
import zlib

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
MODULE = "application/vnd.opentofu.modulepkg"
PROVIDER = "application/vnd.opentofu.provider"
PROVIDER_TARGET = "application/vnd.opentofu.provider-target"

# 1980-01-01 00:00:00, as zips write it.
DOS_TIME = 0x00210000


def program_like(seed, size, share, fresh):
    """Bytes of which `share` are phrases seen before, with `fresh` random bytes after every few hundred words."""
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randint(1, 8)) for _ in range(2000)]
    weights = [1 / (rank + 2) for rank in range(len(words))]
    phrases = [b"".join(chance.choices(words, weights, k=chance.randint(2, 9))) for _ in range(1000)]
    out = bytearray()
    while len(out) < size:
        out += b"".join(chance.choices(phrases, k=int(200 * share)))
        out += b"".join(chance.choices(words, weights, k=int(600 * (1 - share))))
        out += chance.randbytes(fresh)
    return bytes(out[:size])


def text_like(seed, size):
    """Lines of words."""
    chance = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 11))) for _ in range(3000)]
    weights = [1 / (rank + 5) for rank in range(len(words))]
    out, length = [], 0
    while length < size:
        line = "  " + " ".join(chance.choices(words, weights, k=chance.randint(2, 14))) + "\n"
        out.append(line)
        length += len(line)
    return "".join(out).encode()[:size]


class Zip:
    """A zip that is written front to back; members may be given as a unit and how often it is repeated."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.directory = []

    def add(self, name, unit, times=1, mode=0o644):
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        # After a full flush nothing refers back, so what was made of one unit can be repeated as it is.
        packed = packer.compress(unit) + packer.flush(zlib.Z_FULL_FLUSH)
        end = packer.flush(zlib.Z_FINISH)
        crc = 0
        for _ in range(times):
            crc = zlib.crc32(unit, crc)
        offset, name = self.file.tell(), name.encode()
        common = struct.pack(
            "<HHHIIIIHH", 20, 0, 8, DOS_TIME, crc, len(packed) * times + len(end), len(unit) * times, len(name), 0
        )
        self.file.write(b"PK\3\4" + common + name)
        for _ in range(times):
            self.file.write(packed)
        self.file.write(end)
        made_by = struct.pack("<H", 3 << 8 | 20)
        attributes = struct.pack("<HHHII", 0, 0, 0, (0o100000 | mode) << 16, offset)
        self.directory.append(b"PK\1\2" + made_by + common + attributes + name)

    def close(self):
        start, directory = self.file.tell(), b"".join(self.directory)
        count = len(self.directory)
        self.file.write(directory + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), start, 0))
        self.file.close()


def write_repeated(path, unit, times, mode=0o644):
    """Writes a file as installers do, in pieces of 32 KiB: the kernel maps what was written at once faster."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    pieces = [unit[at : at + (32 << 10)] for at in range(0, len(unit), 32 << 10)]
    with open(path, "wb", 0) as file:
        for _ in range(times):
            for piece in pieces:
                file.write(piece)
    os.chmod(path, mode)


def write_tree(directory, archive, count, size):
    """`count` text files of `size` bytes on average, in directories of 100."""
    source = text_like("tree", 1 << 20)
    chance = random.Random("files")
    for number in range(count):
        name = f"d{number // 100:03}/file{number % 100:02}.tf"
        length = chance.randint(size // 2, size * 3 // 2)
        start = chance.randrange(len(source) - length)
        content = source[start : start + length]
        archive.add(name, content)
        path = os.path.join(directory, name)
        if number % 100 == 0:
            os.makedirs(os.path.dirname(path))
        with open(path, "wb") as file:
            file.write(content)


def build_program(path, workdir, size):
    """A static program of `size` bytes that reads a byte of every 16 KiB of itself and exits."""
    pad = os.path.join(workdir, "pad")
    with open(pad, "wb") as file:
        unit = program_like("program", min(size, 4 << 20), 0.72, 80)
        file.write((unit * (size // len(unit) + 1))[:size])
    assembly = f'.section .rodata\n.globl pad\npad: .incbin "{pad}"\n.section .note.GNU-stack,"",%progbits\n'
    code = (
        f"extern const volatile unsigned char pad[];\n"
        f"int main(void) {{ unsigned s = 0; for (long i = 0; i < {size}; i += 16384) s += pad[i]; return s == 1; }}\n"
    )
    for name, text in (("pad.s", assembly), ("main.c", code)):
        with open(os.path.join(workdir, name), "w", encoding="utf-8") as file:
            file.write(text)
    sources = [os.path.join(workdir, name) for name in ("main.c", "pad.s")]
    subprocess.run(["cc", "-O1", "-static", "-o", path, *sources], check=True)
    for name in (pad, *sources):
        os.unlink(name)


def digest_of(path):
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


class Repository:
    """A repository of a registry: its documents, and the files that its blobs are."""

    def __init__(self, name):
        self.name = name
        self.blobs = {}
        self.documents = []

    def _document(self, media_type, artifact_type, rest, tag=None):
        body = {"schemaVersion": 2, "mediaType": media_type, "artifactType": artifact_type, **rest}
        content = json.dumps(body, sort_keys=True).encode()
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self.documents.append((tag or digest, digest, media_type, content))
        return {"mediaType": media_type, "artifactType": artifact_type, "digest": digest, "size": len(content)}

    def _image(self, artifact_type, path, tag=None):
        empty = "sha256:" + hashlib.sha256(b"{}").hexdigest()
        self.blobs[empty] = b"{}"
        digest = digest_of(path)
        self.blobs[digest] = path
        layer = {"mediaType": "archive/zip", "digest": digest, "size": os.path.getsize(path)}
        config = {"mediaType": EMPTY, "digest": empty, "size": 2}
        self.package = digest
        return self._document(IMAGE, artifact_type, {"config": config, "layers": [layer]}, tag)

    def module(self, tag, path):
        self._image(MODULE, path, tag)

    def provider(self, tag, platform, path):
        target = self._image(PROVIDER_TARGET, path)
        target["platform"] = dict(zip(("os", "architecture"), platform.split("_")))
        self._document(INDEX, PROVIDER, {"manifests": [target]}, tag)
