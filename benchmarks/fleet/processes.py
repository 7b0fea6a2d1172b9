"""CPU time and memory of a process and its descendants."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def family(root: int) -> list[int]:
    """Return the pids of a process and its living descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        if fields := _stat(path):
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def cpu_seconds(root: int) -> float:
    """Return user and system time of a process tree, including reaped children such as parallel workers."""
    return sum(
        sum(map(int, fields[11:15])) / TICKS for pid in family(root) if (fields := _stat(Path(f"/proc/{pid}/stat")))
    )


def pss_mib(root: int) -> list[float]:
    """Return the PSS of each process of the tree in MiB, largest first."""
    return sorted((_pss(pid) for pid in family(root)), reverse=True)


def _pss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def _stat(path: Path) -> list[str]:
    """Return the fields of /proc/PID/stat after the command name."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []
