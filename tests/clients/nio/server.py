"""A server of its own for each test module, which can be killed and started again on the same data."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

READY_SECONDS = 60


class Server:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="postern-nio.")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = None
        self.start()

    def start(self):
        """Starts it, and returns when it takes requests."""
        with open(f"{self.directory}/log", "ab") as log:
            self.process = subprocess.Popen([os.environ["POSTERN_SERVE"], self.directory, str(self.port)], stdout=log, stderr=log)
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/_postern/health/ready", timeout=5):
                    return
            except OSError as error:
                ended = self.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    self.stop()
                    log = pathlib.Path(f"{self.directory}/log").read_text(errors="replace")
                    raise RuntimeError(f"the server did not become ready:\n{log}") from error
                time.sleep(0.05)

    def kill(self):
        """Ends it as a power cut would: with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Ends it in order."""
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()

    def close(self):
        """Ends it and removes its data."""
        self.stop()
        if os.environ.get("POSTERN_KEEP"):
            print(f"kept: {self.directory}")
        else:
            shutil.rmtree(self.directory)
