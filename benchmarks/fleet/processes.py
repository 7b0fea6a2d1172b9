"""What processes cost: CPU time and memory of a process and all that come from it."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def family(root: int) -> list[int]:
    """The process and its living descendants."""
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
    """User and system time of the family, with those of its members that ended: parallel workers, for one."""
    return sum(
        sum(map(int, fields[11:15])) / TICKS for pid in family(root) if (fields := _stat(Path(f"/proc/{pid}/stat")))
    )


def pss_mib(root: int) -> list[float]:
    """MiB of each member of the family, largest first; memory that several share is counted in parts."""
    return sorted((_pss(pid) for pid in family(root)), reverse=True)


def _pss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def _stat(path: Path) -> list[str]:
    """The fields behind the name, from the state on."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []
