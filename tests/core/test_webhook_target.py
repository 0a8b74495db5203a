"""Where webhooks may be sent: addresses and URLs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.webhook_target import refused_target, refused_text, url_problem

PUBLIC = [
    "8.8.8.8",
    "93.184.215.14",
    "172.15.255.255",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
]
PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12:3456::1",
]
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::a00:1",
    "64:ff9b:1:ffff::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_pass(text: str) -> None:
    assert refused_text(text) is None


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_pass_only_where_the_operator_allows_them(text: str) -> None:
    assert refused_text(text) is not None
    assert refused_text(text, allow_private=True) is None


@pytest.mark.parametrize("text", NEVER)
def test_special_addresses_never_pass(text: str) -> None:
    assert refused_text(text) is not None
    assert refused_text(text, allow_private=True) is not None


@pytest.mark.parametrize(
    "text", ["", "localhost", "2130706433", "0x7f.1", "127.1", "127.0.0.01", "1.2.3.4.5"]
)
def test_what_is_no_address_never_passes(text: str) -> None:
    assert refused_text(text, allow_private=True) == "not an IP address"


@given(st.integers(0, 2**32 - 1))
def test_nothing_passes_that_the_standard_library_calls_special_v4(number: int) -> None:
    ip = IPv4Address(number)
    if refused_target(ip) is None:
        assert ip.is_global
        assert not ip.is_multicast


@given(st.integers(0, 2**128 - 1))
def test_nothing_passes_that_the_standard_library_calls_special_v6(number: int) -> None:
    ip = IPv6Address(number)
    if refused_target(ip) is None:
        assert ip.is_global
        assert not ip.is_multicast
        assert ip.ipv4_mapped is None
        assert ip.sixtofour is None
        assert ip.teredo is None


@given(st.integers(0, 2**32 - 1), st.sampled_from(["::ffff:{}", "64:ff9b::{}", "::{}"]))
def test_no_v4_address_passes_inside_a_v6_address(number: int, form: str) -> None:
    assert refused_target(ip_address(form.format(IPv4Address(number)))) is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example.com/hooks",
        "https://shop.example.com:8443/hooks?x=1&y=%20",
        "https://xn--bcher-kva.example/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]:8443/",
        "HTTPS://Shop.Example.COM./",
        "https://a_b.example.com",
        "https://example.com/" + "a" * (2048 - len("https://example.com/")),
    ],
)
def test_good_urls(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://shop.example.com/", "https://"),
        ("ftp://shop.example.com/", "https://"),
        ("javascript:alert(1)", "https://"),
        ("//shop.example.com/", "https://"),
        ("shop.example.com", "https://"),
        ("", "characters"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https://user:pw@shop.example.com/", "user name"),
        ("https://@shop.example.com/", "user name"),
        ("https://shop.example.com:0/", "port"),
        ("https://shop.example.com:/", "port"),
        ("https://shop.example.com:99999/", "not a URL"),
        ("https://shop.example.com:x/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://shop.example.com/#part", "fragment"),
        ("https://shop.example.com/ x", "characters"),
        ("https://shop.example.com\\@evil.example/", "characters"),
        ("https://shop.example.com/\r\nX: y", "characters"),
        ("https://shop.example.com/\x00", "characters"),
        ("https://bücher.example/", "xn--"),
        ("https://example.com/" + "a" * 2048, "2048"),
        ("https://127.0.0.1/", "loopback"),
        ("https://10.1.2.3/", "private"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("https://[::1]/", "loopback"),
        ("https://[::ffff:127.0.0.1]/", "IPv4-mapped"),
        ("https://[::127.0.0.1]/", "IPv4-compatible"),
        ("https://[64:ff9b::7f00:1]/", "NAT64"),
        ("https://[fe80::1%25eth0]/", "address"),
        ("https://0.0.0.0/", "unspecified"),
        ("https://2130706433/", "unusual form"),
        ("https://0x7f.1/", "unusual form"),
        ("https://0x7f000001/", "unusual form"),
        ("https://017700000001/", "unusual form"),
        ("https://127.1/", "unusual form"),
        ("https://127.0.0.01/", "unusual form"),
        ("https://1.2.3.4.5/", "unusual form"),
        ("https://shop.0x/", "unusual form"),
        ("https://127.0.0.1./", "unusual form"),
        ("https://%31%32%37.0.0.1/", "unusual form"),
        ("https://localhost/", "loopback"),
        ("https://app.localhost./", "loopback"),
        ("https://-a.example/", "name"),
        ("https://a..example/", "name"),
        ("https://ex%61mple.com/", "name"),
    ],
)
def test_bad_urls(url: str, word: str) -> None:
    problem = url_problem(url)
    assert problem is not None
    assert word in problem


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/x",
        "http://localhost:3000/",
        "http://[::1]/",
        "http://10.0.0.5/",
        "https://shop.test/",
    ],
)
def test_the_operator_can_allow_private_targets(url: str) -> None:
    assert url_problem(url, allow_private=True) is None


@pytest.mark.parametrize(
    "url", ["http://2130706433/", "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/", "http://127.1/"]
)
def test_odd_forms_stay_refused_where_private_targets_are_allowed(url: str) -> None:
    assert url_problem(url, allow_private=True) is not None


@given(st.text(max_size=60))
def test_the_check_never_fails(text: str) -> None:
    assert url_problem("https://" + text) is None or url_problem("https://" + text)
