"""Jobs of a test's run as forks of a process that has torch imported: the import is most of a small job's time.

Snakemake starts this file in place of Python, with a job's script; it asks the process that `serve` forks to run it.
"""

import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from pathlib import Path

ADDRESS = "MIAPRUNE_TEST_JOBS"


def serve(address):
    """Fork a process that runs scripts for those who connect to ``address``, for as long as this process lives."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    alive, ours = os.pipe()
    if os.fork():  # ours stays open in this process alone, until it ends
        os.close(alive)
        listener.close()
        return
    os.close(ours)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the jobs
    while alive not in select.select([listener, alive], [], [])[0]:
        connection, _ = listener.accept()
        if not os.fork():
            _job(connection)
        connection.close()
    os._exit(0)


def _job(connection):
    """Do what Python does with a script, with the caller's files, folder and environment."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    for number, file in enumerate(files):
        os.dup2(file, number)
    script, folder, environment = json.loads(connection.makefile().readline())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, sys.path[0] = [script], str(Path(script).parent)
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code]))
    os._exit(code)


def _ask(script):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[ADDRESS])
        socket.send_fds(connection, [b"-"], [0, 1, 2])
        connection.sendall(json.dumps([script, os.getcwd(), dict(os.environ)]).encode() + b"\n")
        code = connection.recv(1)
    sys.exit(code[0] if code else "the job ended without a word")


if __name__ == "__main__":
    _ask(*sys.argv[1:])
