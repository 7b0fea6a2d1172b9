"""Extra specs of flavors: validation, unsupported values, and conversion to the hardware options of a machine.

Names are Nova's. From microversion 2.86 on, invalid extra specs are rejected when they are set on a flavor. Values that
no host supports are rejected when a server is created or resized, so that no server gets less than its flavor promises.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.core import errors
from app.core.booleans import FALSE, TRUE
from hypervisor.api.spec import CpuLimits, DiskLimits, Rate, Topology

Specs = Mapping[str, str]
Validator = Callable[[str], str | None]
"""Returns the error in a value, or None if it is valid."""

CPU_MASK = r"\^?\d+((-\d+)?(,\^?\d+(-\d+)?)?)*"
MAX_VALUE = 2**40
MIN_PERIOD_US, MAX_PERIOD_US = 1000, 1_000_000


def _number(least: int | None = None) -> Validator:
    def wrong(value: str) -> str | None:
        if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value, re.ASCII):
            return f"'{value}' is not a valid integer value."
        if least is not None and int(value) < least:
            return f"'{int(value)}' is less than the min value of '{least}'."
        return None

    return wrong


def _one_of(*words: str) -> Validator:
    return lambda value: None if value in words else f"'{value}' is not one of: {', '.join(words)}."


def _pattern(pattern: str) -> Validator:
    return lambda value: None if re.fullmatch(pattern, value) else f"'{value}' is not of the format '{pattern}'."


def _boolean(value: str) -> str | None:
    known = value.strip().lower() in (*TRUE, *FALSE)
    return None if known else f"'{value}' is not a valid boolean-like value."


def _any_value(_: str) -> None:
    return None


VALIDATORS: dict[str, Validator] = {
    **dict.fromkeys(
        (f"hw:{most}cpu_{part}" for most in ("", "max_") for part in ("sockets", "cores", "threads")), _number(1)
    ),
    "hw:cpu_policy": _one_of("dedicated", "shared", "mixed"),
    "hw:cpu_thread_policy": _one_of("prefer", "isolate", "require"),
    "hw:emulator_threads_policy": _one_of("isolate", "share"),
    "hw:cpu_dedicated_mask": _pattern(CPU_MASK),
    "hw:cpu_realtime": _boolean,
    "hw:cpu_realtime_mask": _pattern(CPU_MASK),
    "hw:hide_hypervisor_id": _boolean,
    "hw:mem_page_size": _pattern(r"(large|small|any|\d+([kKMGT]i?)?(b|bit|B)?)"),
    "hw:numa_nodes": _number(1),
    "hw:pci_numa_affinity_policy": _one_of("required", "preferred", "legacy", "socket"),
    "hw:boot_menu": _boolean,
    "hw:mem_encryption": _boolean,
    "hw:mem_encryption_model": _any_value,
    "hw:locked_memory": _boolean,
    "hw:pmem": _pattern(r"([a-zA-Z0-9_]+(,)?)+"),
    "hw:pmu": _boolean,
    "hw:serial_port_count": _number(0),
    "hw:tpm_model": _one_of("tpm-tis", "tpm-crb"),
    "hw:tpm_version": _one_of("1.2", "2.0"),
    "hw:tpm_secret_security": _any_value,
    "hw:watchdog_action": _one_of("none", "pause", "poweroff", "reset", "disabled"),
    "hw:vif_multiqueue_enabled": _boolean,
    "hw:virtio_packed_ring": _boolean,
    "hw:viommu_model": _any_value,
    "hw:maxphysaddr_mode": _one_of("passthrough", "emulate"),
    "hw:maxphysaddr_bits": _number(0),
    "hw:ephemeral_encryption": _boolean,
    "hw:ephemeral_encryption_format": _any_value,
    "hw:sound_model": _any_value,
    "hw:usb_model": _any_value,
    "hw:redirected_usb_ports": _number(0),
    "hw_rng:allowed": _boolean,
    "hw_rng:rate_bytes": _number(0),
    "hw_rng:rate_period": _number(0),
    "hw_video:ram_max_mb": _number(0),
    "os:secure_boot": _one_of("disabled", "optional", "required"),
    **dict.fromkeys((f"quota:cpu_{what}" for what in ("shares", "period", "quota")), _number(0)),
    **dict.fromkeys(
        (f"quota:disk_{way}_{unit}_sec" for way in ("read", "write", "total") for unit in ("bytes", "iops")), _number(0)
    ),
    **dict.fromkeys(
        (f"quota:vif_{way}_{what}" for way in ("inbound", "outbound") for what in ("average", "peak", "burst")),
        _number(0),
    ),
    # Extra specs of other hypervisors; Nova's libvirt driver ignores them as well.
    **dict.fromkeys(
        (
            f"quota:{of}_{what}"
            for of in ("cpu", "memory", "disk_io", "vif")
            for what in ("limit", "reservation", "shares_share")
        ),
        _number(),
    ),
    **dict.fromkeys((f"quota:{of}_shares_level" for of in ("cpu", "memory", "disk_io", "vif")), _any_value),
}
NUMBERED_VALIDATORS = (
    (re.compile(r"hw:numa_cpus\.\d+"), _pattern(CPU_MASK)),
    (re.compile(r"hw:numa_mem\.\d+"), _number(1)),
)
NAMESPACES = frozenset(name.partition(":")[0] for name in VALIDATORS)


def validate(specs: Specs) -> None:
    """Raise BadRequest, with Nova's message, for an invalid value or an unknown name in a known namespace."""
    for name, value in specs.items():
        rule = VALIDATORS.get(name) or next(
            (rule for pattern, rule in NUMBERED_VALIDATORS if pattern.fullmatch(name)), None
        )
        if rule is not None:
            if wrong := rule(value):
                raise errors.BadRequest(f"Validation failed; {wrong}")
        elif ":" in name and name.partition(":")[0] in NAMESPACES:
            raise errors.BadRequest(f"Validation failed; extra spec '{name}' does not appear to be a valid extra spec.")


UNSUPPORTED: tuple[tuple[str, Callable[[str], bool], str], ...] = (
    ("hw:cpu_policy", lambda value: value != "shared", "guests share the processors of their host"),
    ("hw:cpu_realtime", lambda value: value.lower() in TRUE, "guests share the processors of their host"),
    ("hw:mem_page_size", lambda value: value not in ("small", "any"), "guests have small pages only"),
    ("hw:numa_nodes", lambda value: value != "1", "guests have one NUMA node"),
    ("hw:mem_encryption", lambda value: value.lower() in TRUE, "memory is not encrypted"),
    ("hw:ephemeral_encryption", lambda value: value.lower() in TRUE, "disks are not encrypted"),
    ("hw:tpm_version", lambda _: True, "guests have no TPM"),
    ("hw:pmem", lambda _: True, "hosts have no persistent memory to give"),
    ("hw:watchdog_action", lambda value: value != "disabled", "guests have no watchdog"),
    ("hw:locked_memory", lambda value: value.lower() in TRUE, "memory is not locked"),
    ("hw:serial_port_count", lambda value: value != "1", "guests have one serial port"),
    ("hw_rng:rate_bytes", lambda value: value != "0", "the random numbers of guests have no limit"),
    ("os:secure_boot", lambda value: value == "required", "guests boot without it"),
    ("pci_passthrough:alias", lambda _: True, "hosts have no PCI devices to give"),
    ("accel:device_profile", lambda _: True, "hosts have no accelerators to give"),
)
"""Extra specs that no host supports: name, predicate for the unsupported values, reason."""


def check_supported(specs: Specs, vcpus: int) -> None:
    """Raise BadRequest when no host supports these extra specs."""
    for name, is_unsupported, why in UNSUPPORTED:
        if name in specs and is_unsupported(specs[name].strip()):
            raise errors.BadRequest(
                f"The flavor requires {name}={specs[name]}, which this cloud does not support: {why}."
            )
    hardware_options(specs, vcpus)


@dataclass(frozen=True, slots=True)
class HardwareOptions:
    """The extra specs that affect a machine: CPU topology and limits of CPU, disks and NICs."""

    topology: Topology | None = None
    cpu: CpuLimits | None = None
    disk: DiskLimits | None = None
    inbound: Rate | None = None
    outbound: Rate | None = None


def hardware_options(specs: Specs, vcpus: int) -> HardwareOptions:
    """Parse the extra specs that affect a machine. Raises BadRequest for invalid or contradictory values."""
    if not any(name.startswith(("hw:", "quota:")) for name in specs):
        return HardwareOptions()
    return HardwareOptions(
        topology=_topology(specs, vcpus),
        cpu=_cpu(specs),
        disk=_disk(specs),
        inbound=_rate(specs, "inbound"),
        outbound=_rate(specs, "outbound"),
    )


def _topology(specs: Specs, vcpus: int) -> Topology | None:
    """Choose the topology that matches most preferences; on a tie fewer threads, then more sockets, as Nova does."""
    parts = ("sockets", "cores", "threads")
    preferred = [_value(specs, f"hw:cpu_{part}") for part in parts]
    limits = [_value(specs, f"hw:max_cpu_{part}") for part in parts]
    if not any((*preferred, *limits)):
        return None
    if any(limit and size > limit for size, limit in zip(preferred, limits, strict=True)):
        raise errors.BadRequest(
            f"Requested vCPU topology {':'.join(map(str, preferred))} exceeds the limits {':'.join(map(str, limits))}"
        )
    candidates = [
        (sockets, vcpus // sockets // threads, threads)
        for sockets in _divisors(vcpus)
        for threads in _divisors(vcpus // sockets)
    ]
    allowed = [
        sizes
        for sizes in candidates
        if all(not limit or size <= limit for size, limit in zip(sizes, limits, strict=True))
    ]
    if not allowed:
        shown = ":".join(str(limit or 65536) for limit in limits)
        raise errors.BadRequest(f"Requested vCPU limits {shown} are impossible to satisfy for vcpus count {vcpus}")

    def rank(sizes: tuple[int, int, int]) -> tuple[int, int, int]:
        matches = sum(size == wanted for size, wanted in zip(sizes, preferred, strict=True))
        return matches, -sizes[2], sizes[0]

    sockets, cores, threads = max(allowed, key=rank)
    return Topology(sockets=sockets, cores=cores, threads=threads)


def _divisors(number: int) -> list[int]:
    low = [divisor for divisor in range(1, int(number**0.5) + 1) if number % divisor == 0]
    return sorted({*low, *(number // divisor for divisor in low)})


def _cpu(specs: Specs) -> CpuLimits | None:
    shares, period, quota = (_value(specs, f"quota:cpu_{what}") for what in ("shares", "period", "quota"))
    if not (shares or quota):
        return None
    if period and not MIN_PERIOD_US <= period <= MAX_PERIOD_US:
        raise errors.BadRequest(
            f"quota:cpu_period is {period}; it is between {MIN_PERIOD_US} and {MAX_PERIOD_US} microseconds."
        )
    if quota and quota < MIN_PERIOD_US:
        raise errors.BadRequest(f"quota:cpu_quota is {quota}; it is {MIN_PERIOD_US} microseconds or more.")
    return CpuLimits(shares=shares or None, period_us=period or None, quota_us=quota or None)


def _disk(specs: Specs) -> DiskLimits | None:
    limits = {
        f"{way}_{name}": _value(specs, f"quota:disk_{way}_{unit}_sec")
        for way in ("total", "read", "write")
        for unit, name in (("bytes", "bytes"), ("iops", "requests"))
    }
    for name in ("bytes", "requests"):
        if limits[f"total_{name}"] and (limits[f"read_{name}"] or limits[f"write_{name}"]):
            raise errors.BadRequest("quota:disk_total_* excludes quota:disk_read_* and quota:disk_write_*.")
    return DiskLimits(**limits) if any(limits.values()) else None


def _rate(specs: Specs, way: str) -> Rate | None:
    """Convert average and peak from kB/s and burst from KiB to bytes, as libvirt and tc do."""
    average, peak, burst = (_value(specs, f"quota:vif_{way}_{what}") for what in ("average", "peak", "burst"))
    if not average:
        if peak or burst:
            raise errors.BadRequest(f"quota:vif_{way}_peak and _burst need quota:vif_{way}_average.")
        return None
    return Rate(average=average * 1000, peak=peak * 1000, burst=min(burst * 1024, 2**31))


def _value(specs: Specs, name: str) -> int:
    """Return the number, 0 when it is not set. Flavors may hold invalid values that were set below 2.86."""
    value = specs.get(name, "0")
    if (wrong := _number(0)(value)) is not None or int(value) > MAX_VALUE:
        raise errors.BadRequest(f"The flavor's extra spec {name} is invalid: {wrong or f'{value} is too large.'}")
    return int(value)
