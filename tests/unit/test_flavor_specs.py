"""Validation of extra specs and their conversion to hardware options."""

import pytest

from app.core import errors
from compute_api.flavors.extra_specs import check_supported, hardware_options, validate
from hypervisor.api.spec import CpuLimits, DiskLimits, Rate


@pytest.mark.parametrize(
    ("vcpus", "specs", "seen"),
    [
        (4, {"hw:cpu_sockets": "1"}, (1, 4, 1)),
        (4, {"hw:cpu_sockets": "2"}, (2, 2, 1)),
        (4, {"hw:cpu_threads": "2"}, (2, 1, 2)),
        (4, {"hw:cpu_sockets": "1", "hw:cpu_cores": "2", "hw:cpu_threads": "2"}, (1, 2, 2)),
        (8, {"hw:max_cpu_sockets": "2"}, (2, 4, 1)),
        (4, {"hw:cpu_sockets": "3"}, (4, 1, 1)),
        (1, {"hw:cpu_sockets": "4"}, (1, 1, 1)),
    ],
)
def test_topology_matches_most_preferences(vcpus: int, specs: dict[str, str], seen: tuple[int, int, int]) -> None:
    found = hardware_options(specs, vcpus).topology
    assert found is not None
    assert (found.sockets, found.cores, found.threads) == seen


def test_no_topology_without_extra_specs() -> None:
    assert hardware_options({"hw:cpu_policy": "shared", "quota:cpu_limit": "5"}, 4) == hardware_options({}, 4)


def test_limits_reach_the_host_in_its_units() -> None:
    found = hardware_options(
        {
            "quota:cpu_quota": "25000",
            "quota:cpu_shares": "512",
            "quota:disk_read_bytes_sec": "1000000",
            "quota:disk_write_iops_sec": "50",
            "quota:vif_inbound_average": "1000",
            "quota:vif_inbound_burst": "64",
            "quota:vif_outbound_average": "500",
            "quota:vif_outbound_peak": "900",
        },
        2,
    )
    assert found.cpu == CpuLimits(shares=512, quota_us=25000)
    assert found.disk == DiskLimits(read_bytes=1000000, write_requests=50)
    assert found.inbound == Rate(average=1_000_000, burst=65536)
    assert found.outbound == Rate(average=500_000, peak=900_000)


@pytest.mark.parametrize(
    "specs",
    [
        {"hw:cpu_policy": "dedicated"},
        {"hw:cpu_sockets": "many"},
        {"hw:cpu_sockets": "٣"},
        {"hw:max_cpu_sockets": "1", "hw:max_cpu_cores": "2", "hw:max_cpu_threads": "1"},
        {"hw:cpu_sockets": "4", "hw:max_cpu_sockets": "2"},
        {"hw:mem_page_size": "large"},
        {"os:secure_boot": "required"},
        {"quota:disk_total_bytes_sec": "1", "quota:disk_read_bytes_sec": "1"},
        {"quota:vif_inbound_peak": "1"},
        {"quota:cpu_quota": "1"},
        {"quota:cpu_quota": "5000", "quota:cpu_period": "1"},
        {"quota:disk_read_iops_sec": str(2**60)},
    ],
)
def test_unsupported_extra_specs_are_rejected(specs: dict[str, str]) -> None:
    with pytest.raises(errors.BadRequest):
        check_supported(specs, 4)


@pytest.mark.parametrize(
    ("specs", "why"),
    [
        ({"hw:cpu_policy": "often"}, "is not one of: dedicated, shared, mixed."),
        ({"hw:cpu_sockets": "x"}, "'x' is not a valid integer value."),
        ({"hw:cpu_sockets": "0"}, "less than the min value of '1'"),
        ({"hw:cpu_realtime": "maybe"}, "is not a valid boolean-like value."),
        ({"hw:numa_cpus.0": "a"}, "is not of the format"),
        ({"hw:cpu_scokets": "1"}, "extra spec 'hw:cpu_scokets' does not appear to be a valid extra spec."),
        ({"quota:disk_reads": "1"}, "does not appear to be a valid extra spec."),
    ],
)
def test_invalid_extra_specs_have_novas_messages(specs: dict[str, str], why: str) -> None:
    with pytest.raises(errors.BadRequest, match="Validation failed; ") as refused:
        validate(specs)
    assert why in refused.value.message


def test_unknown_namespaces_are_not_validated() -> None:
    validate({"ours:color": "red", "color": "red", "trait:HW_CPU_X86_AVX": "required", "hw:numa_cpus.1": "0-3,^2"})
