import socket

import pytest

from engine.errors import FeatureDisabled
from serve.config import Settings
from serve.server import AddressInUse, bind


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.8.8"])
def test_loopback_addresses_are_bound_and_port_0_takes_a_free_one(host):
    with bind(Settings(host=host, port=0)) as listener:
        assert listener.getsockname()[1] > 0
        with socket.create_connection(listener.getsockname()[:2], timeout=2):
            pass


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "8.8.8.8", "example.com", "", "127.0.0.1.nip.io"]
)
def test_any_other_address_is_refused_with_the_reason(host):
    with pytest.raises(FeatureDisabled, match=r"no authentication.*127\.0\.0\.1"):
        bind(Settings(host=host, port=0))


def test_a_taken_port_is_one_line_that_says_what_to_do():
    with bind(Settings(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"{port}: Address already in use.*--port") as raised:
            bind(Settings(port=port))
    assert "\n" not in str(raised.value)
