"""Process with all modules of the `openstack` command loaded, which forks for each command.

Each input line is a command, `[words, environment]`; each output line its result, `[status, output, errors]`.
"""

import contextlib
import io
import json
import os
import signal
import sys
from typing import NoReturn

from openstackclient.shell import OpenStackShell

SECONDS = 300


def main() -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        OpenStackShell().run(["complete"])  # loads all commands
    for line in sys.stdin:
        out, err = os.memfd_create("output"), os.memfd_create("errors")
        child = os.fork()
        if child == 0:
            words, environment = json.loads(line)
            _become(words, environment, out, err)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([status, _text(out), _text(err)]), flush=True)


def _become(words: list[str], environment: dict[str, str], out: int, err: int) -> NoReturn:
    for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
        os.dup2(descriptor, number)
    os.environ.clear()
    os.environ.update(environment)
    signal.alarm(SECONDS)
    sys.exit(OpenStackShell().run(words))


def _text(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8") as file:
        file.seek(0)
        return file.read()


if __name__ == "__main__":
    main()
