"""Supervisor of one server: ends it when its starter is gone, whatever the cause. Run as a script; stdlib only.

It is a separate process because only then can the server's life depend on it: the kernel ties PR_SET_PDEATHSIG to the
*thread* that forked and forgets it when the user changes, and a fork with Python code between fork and exec is safe
only in a program with one thread. This program is made for all three.

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
    """Run the server described by `order` until it ends, SIGTERM arrives or the parent is gone."""
    # sigtimedwait below takes them
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    libc = ctypes.CDLL(None)
    supervisor = os.getpid()

    def in_child() -> None:
        # runs after the change of user, so that the kernel keeps it
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != supervisor:
            os._exit(1)

    account = {}
    if order["uid"] is not None:
        account = {"user": order["uid"], "group": order["gid"], "extra_groups": []}
    os.umask(0o077)  # files of the servers are private
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
