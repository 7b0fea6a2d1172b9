"""`python -m benchmarks`: runs all benchmarks and prints their results as ratios to baselines of the same run."""

import argparse
import sys

from benchmarks import download, image, requests, start

PARTS = ("requests", "start", "image", "download")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which parts (default: all)")
    parts = parser.parse_args().parts or PARTS
    if "requests" in parts:
        print("CPU of one request, all of the server's processes. Goal: 2.5x Flask; a list of 1,000 in 5 ms.\n")
        print(f"{'':62} {'CPU us':>8} {'x Flask':>8} {'wall us':>8} {'bytes':>9}")
        for name, cost, flask in requests.rows():
            ratio = cost.cpu_us / flask.cpu_us
            print(f"{name:62} {cost.cpu_us:8.0f} {ratio:8.2f} {cost.wall_us:8.0f} {cost.size:9}", flush=True)
        print()
    if "start" in parts:
        start.show()
        print()
    if "image" in parts:
        image.show()
        print()
    if "download" in parts:
        download.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
