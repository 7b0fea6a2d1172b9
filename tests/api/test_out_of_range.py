"""Numbers and times that nothing can hold are the client's mistake, wherever they turn up."""

import pytest

from tests.api.conftest import Api


@pytest.mark.parametrize(
    "path",
    [
        "/compute/v2.1/flavors?minRam=99999999999999999999999",
        "/compute/v2.1/servers?changes-since=9999-12-31T23:59:59-14:00",
        "/network/v2.0/networks?limit=99999999999999999999",
        "/network/v2.0/networks?mtu=99999999999999999999999",
    ],
)
def test_values_out_of_range_are_refused(as_admin: Api, path: str) -> None:
    assert as_admin.get(path).status_code == 400
