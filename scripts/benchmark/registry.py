"""A registry over TLS on a free port of 127.0.0.1: Debian's docker-registry, or a small one where that is missing."""

import http.client
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time


def make_certificates(directory):
    """An authority and a certificate for 127.0.0.1: the paths of authority, certificate and key."""
    ca, ca_key, cert, key, request, extension = (
        os.path.join(directory, name) for name in ("ca.pem", "ca.key", "cert.pem", "key.pem", "request", "extension")
    )
    with open(extension, "w", encoding="utf-8") as file:
        file.write("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)

    openssl("req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", "/CN=benchmark authority")
    openssl("req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=127.0.0.1")
    signing = ["-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extension]
    openssl("x509", "-req", "-in", request, "-out", cert, *signing)
    return ca, cert, key


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class DockerRegistry:
    """Debian's docker-registry, with its storage in `directory`."""

    kind = "docker-registry"

    def __init__(self, directory, certificates):
        self.ca, certificate, key = certificates
        port = free_port()
        self.host = f"127.0.0.1:{port}"
        self.config = os.path.join(directory, "registry.json")
        settings = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": os.path.join(directory, "registry")}},
            "http": {"addr": self.host, "secret": "none", "tls": {"certificate": certificate, "key": key}},
        }
        with open(self.config, "w", encoding="utf-8") as file:
            # JSON is YAML.
            json.dump(settings, file)
        self.start()

    def start(self):
        """Starts it, also after it was stopped: on the same port, with what it held."""
        self.process = subprocess.Popen(
            ["docker-registry", "serve", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._wait(int(self.host.rsplit(":", 1)[1]))
        except BaseException:
            self.stop()
            raise

    def _wait(self, port):
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise SystemExit("docker-registry does not start")
                time.sleep(0.05)

    def _request(self, method, url, body=None, media_type="application/octet-stream"):
        context = ssl.create_default_context(cafile=self.ca)
        connection = http.client.HTTPSConnection(self.host, context=context, blocksize=1 << 20)
        connection.request(method, url, body, {"Content-Type": media_type})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status not in (201, 202):
            raise SystemExit(f"{method} {url}: {answer.status} {text[:300]}")
        return answer.headers.get("Location")

    def push(self, repository):
        base = f"/v2/{repository.name}"
        for digest, blob in repository.blobs.items():
            location = self._request("POST", f"{base}/blobs/uploads/")
            location = location[location.index("/v2/") :]
            url = f"{location}{'&' if '?' in location else '?'}digest={digest}"
            if isinstance(blob, bytes):
                self._request("PUT", url, blob)
            else:
                with open(blob, "rb") as file:
                    self._request("PUT", url, file)
        for reference, _, media_type, content in repository.documents:
            self._request("PUT", f"{base}/manifests/{reference}", content, media_type)

    def stop(self):
        self.process.kill()
        self.process.wait()


class SmallRegistry:
    """As much of the distribution API as reading needs, in this process."""

    kind = "a registry in Python"

    def __init__(self, _directory, certificates):
        self.ca, certificate, key = certificates
        self.repositories = {}
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                registry.answer(self, with_body=True)

            def do_HEAD(self):
                registry.answer(self, with_body=False)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def push(self, repository):
        self.repositories[repository.name] = repository

    def _find(self, path):
        """Media type, digest and content (bytes, or the path of a file) of what `path` names."""
        if path.rstrip("/") == "/v2":
            return "application/json", None, b"{}"
        for name, repository in self.repositories.items():
            if not path.startswith(f"/v2/{name}/"):
                continue
            kind, _, reference = path[len(f"/v2/{name}/") :].partition("/")
            if kind == "tags":
                tags = [r for r, *_ in repository.documents if ":" not in r]
                return "application/json", None, json.dumps({"name": name, "tags": tags}).encode()
            if kind == "blobs" and reference in repository.blobs:
                return "application/octet-stream", reference, repository.blobs[reference]
            for known, digest, media_type, content in repository.documents:
                if kind == "manifests" and reference in (known, digest):
                    return media_type, digest, content
        return None

    def answer(self, handler, with_body):
        found = self._find(handler.path.partition("?")[0])
        if found is None:
            # A body of this form is what makes a 404 a registry's word.
            text = json.dumps({"errors": [{"code": "NAME_UNKNOWN", "message": "not here"}]}).encode()
            handler.send_response(404)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(text)))
            handler.end_headers()
            if with_body:
                handler.wfile.write(text)
            return
        media_type, digest, content = found
        size = len(content) if isinstance(content, bytes) else os.path.getsize(content)
        handler.send_response(200)
        handler.send_header("Content-Type", media_type)
        handler.send_header("Content-Length", str(size))
        if digest:
            handler.send_header("Docker-Content-Digest", digest)
        handler.end_headers()
        if not with_body:
            return
        if isinstance(content, bytes):
            handler.wfile.write(content)
            return
        with open(content, "rb") as file:
            shutil.copyfileobj(file, handler.wfile, 1 << 20)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def start(directory):
    certificates = make_certificates(directory)
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    kind = DockerRegistry if shutil.which("docker-registry", path=path) else SmallRegistry
    return kind(directory, certificates)
