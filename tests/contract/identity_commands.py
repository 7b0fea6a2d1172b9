"""Runs `openstack` commands, one JSON list of words a line on stdin; answers [status, output, errors] a line.

One process for all of them: starting the client takes longer than most of what it does.
"""

import contextlib
import io
import json
import sys

from openstackclient.shell import OpenStackShell


def main() -> None:
    for line in sys.stdin:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = OpenStackShell().run(json.loads(line))
            except SystemExit as end:
                status = end.code
        sys.stdout.write(json.dumps([status, out.getvalue(), err.getvalue()]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
