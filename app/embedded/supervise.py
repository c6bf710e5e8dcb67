"""Runs one server and ends it when its starter is gone, however that came about. Started as a script; stdlib only.

It is a process of its own because only then the server's life can hang on it: the kernel ties "kill me when my parent
dies" to the *thread* that forked, forgets it when the user changes, and a fork with Python code between fork and exec
is only safe in a program with one thread. This program is made for all three.

    python -I -S supervise.py <<< '{"argv": [...], "parent": PID, "log": PATH, "cwd": PATH, "env": {...},
                                "uid": N or null, "gid": N or null, "grace_s": SECONDS}'

It prints the server's process id, and exits with the server's exit code.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.25


def main(order: dict) -> int:  # type: ignore[type-arg]
    """Run the server that `order` describes until it ends, SIGTERM comes or the parent is gone."""
    # taken by sigtimedwait below
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    libc = ctypes.CDLL(None)
    supervisor = os.getpid()

    def in_child() -> None:
        # runs after the change of user, so the kernel keeps it
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != supervisor:
            os._exit(1)

    account = {}
    if order["uid"] is not None:
        account = {"user": order["uid"], "group": order["gid"], "extra_groups": []}
    os.umask(0o077)  # what servers write is for nobody else to read
    with open(order["log"], "wb") as log:
        child = subprocess.Popen(
            order["argv"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=order["cwd"],
            env=order["env"],
            preexec_fn=in_child,  # noqa: PLW1509 - one thread, see above
            **account,
        )
    print(child.pid, flush=True)
    while child.poll() is None and os.getppid() == order["parent"]:
        arrived = signal.sigtimedwait({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}, _LOOK_S)
        if arrived and arrived.si_signo != signal.SIGCHLD:
            break
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(order["grace_s"])
        except subprocess.TimeoutExpired:
            child.kill()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(json.load(sys.stdin)))
