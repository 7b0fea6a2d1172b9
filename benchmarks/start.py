"""Benchmark of server creation, from POST /servers to a running qemu, relative to a shell script that starts qemu.

Both with the image on the host, the network's segment there, and one guest at a time. Needs root and the tiny guest.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks import cloud
from benchmarks.load import Client
from hypervisor.qemu.accelerator import AcceleratorSelector

TINY = cloud.ROOT / "var/images/tiny.qcow2"
SCRIPT = Path(__file__).with_name("by-hand.sh")
MEMBER = "sixstack"
TIMES = 10
GOAL = 1.2


def show() -> None:
    """Print both medians and their ratio."""
    if not TINY.exists():
        print("POST to qemu running: there is no tiny guest yet; make image")
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as work:
        hand = by_hand(Path(work))
        posted, answered = by_post(Path(work))
    print(f"From the request to a running qemu, median of {TIMES}, milliseconds. Goal: {GOAL}x the script.\n")
    print(f"  a shell script by hand           {hand:7.0f}     1.00")
    print(f"  POST /servers, until it is ACTIVE {posted:6.0f}  {posted / hand:7.2f}")
    print(f"  of which until POST has answered  {answered:6.0f}")


def by_hand(work: Path) -> float:
    """Run the script in a network namespace of its own; returns milliseconds."""
    kind = AcceleratorSelector("auto", work / "accelerator.json").select().accelerator
    command = ["unshare", "--net", "bash", str(SCRIPT), str(TINY), str(work / "hand"), str(TIMES), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return statistics.median(float(line) for line in done.stdout.split())


def by_post(work: Path) -> tuple[float, float]:
    """Create a server; returns milliseconds until it is ACTIVE and until the response to POST."""
    settings = cloud.prepare(work / "state", cloud.free_port())
    sixstack = str(Path(sys.executable).with_name("sixstack"))
    up = [sixstack, "up", "--state", str(settings.state), "--listen", settings.listen]
    with cloud.process(up, {}, settings.address[1]):
        try:
            subject, _project = cloud.token(settings, MEMBER)
            client = Client(settings.address[1], {"X-Auth-Token": subject})
            image = _upload(client)
            first = _create(client, image)[0]
            assert client("POST", f"/compute/v2.1/servers/{first}/action", b'{"pause": null}')[0] == 202
            _wait(client, first, "PAUSED")
            found = []
            for _ in range(TIMES):
                server_id, whole, answered = _create(client, image)
                found.append((whole, answered))
                client("DELETE", f"/compute/v2.1/servers/{server_id}")
                _wait(client, server_id, None)
            return statistics.median(one[0] for one in found), statistics.median(one[1] for one in found)
        finally:
            down = [sixstack, "down", "--servers", "--state", str(settings.state)]
            subprocess.run(down, cwd=cloud.ROOT, capture_output=True, check=False)


def _upload(client: Client) -> str:
    body = {"name": "tiny", "disk_format": "qcow2", "container_format": "bare"}
    image_id: str = orjson.loads(client("POST", "/image/v2/images", orjson.dumps(body))[1])["id"]
    status, answer = client(
        "PUT", f"/image/v2/images/{image_id}/file", TINY.read_bytes(), kind="application/octet-stream"
    )
    assert status == 204, answer
    return image_id


def _create(client: Client, image: str) -> tuple[str, float, float]:
    body = {"server": {"name": "benchmark", "imageRef": image, "flavorRef": "1"}}
    began = time.perf_counter()
    status, answer = client("POST", "/compute/v2.1/servers", orjson.dumps(body))
    answered = time.perf_counter() - began
    assert status == 202, answer
    server_id: str = orjson.loads(answer)["server"]["id"]
    _wait(client, server_id, "ACTIVE")
    return server_id, (time.perf_counter() - began) * 1000, answered * 1000


def _wait(client: Client, server_id: str, wanted: str | None) -> None:
    """Wait until the server has the status, or is deleted for None."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status, answer = client("GET", f"/compute/v2.1/servers/{server_id}")
        now = orjson.loads(answer)["server"]["status"] if status == 200 else None
        if now == wanted:
            return
        assert now != "ERROR", answer
        time.sleep(0.004)
    raise SystemExit(f"A server did not become {wanted} in a minute.")
