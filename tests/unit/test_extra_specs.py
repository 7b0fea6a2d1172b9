"""Extra spec operators that match flavors with metadata of aggregates."""

import pytest

from compute_api.flavors.matching import matches


@pytest.mark.parametrize(
    ("value", "wanted", "fits"),
    [
        ("ssd", "ssd", True),
        ("ssd", "hdd", False),
        ("nvme", "<or> ssd <or> nvme", True),
        ("hdd", "<or> ssd <or> nvme", False),
        ("two words", "<or> two words <or> x", True),
        ("ssd,nvme", "<in> nvme", True),
        ("aes mmx", "<all-in> aes mmx", True),
        ("aes", "<all-in> aes mmx", False),
        ("8", "= 4", True),
        ("2", "= 4", False),
        ("4", "== 4.0", True),
        ("5", "!= 4", True),
        ("4", ">= 4", True),
        ("10", "<= 9", False),
        ("many", ">= 4", False),
        ("b", "s> a", True),
        ("a", "s== a", True),
        ("a", "s!= a", False),
        ("", "", True),
        (">=", ">=", True),
    ],
)
def test_values_match(value: str, wanted: str, fits: bool) -> None:
    assert matches(value, wanted) is fits
