"""Where webhooks may be sent: rules for addresses and for URLs.

For: the URL check at an endpoint's creation, and the check of every address before it is connected to. A merchant
chooses the target and we send from inside the operator's network, so a target must not be able to reach what only
we can reach (server-side request forgery).
Holds true: only global unicast addresses pass; an address that carries another one inside (IPv4-mapped, NAT64, 6to4,
Teredo) never passes, whatever it carries. With `allow_private`, which the operator sets, private, loopback and
link-local addresses pass too, and nothing else.
Must not: resolve names (an answer may differ each time: the deliverer checks what it connects to), or do any I/O.

The table follows the IANA special-purpose address registries (RFC 6890 and the RFCs named below). It is written out,
and `is_global` of the standard library is asked only after it, because that property changed between Python versions.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias
from urllib.parse import urlsplit

Address: TypeAlias = IPv4Address | IPv6Address

URL_LENGTH_MAX: Final = 2048
_HOST_LENGTH_MAX: Final = 253

# Opened by the operator's `allow_private_targets`.
_PRIVATE: Final = {
    "127.0.0.0/8": "loopback",
    "::1/128": "loopback",
    "10.0.0.0/8": "private (RFC 1918)",
    "172.16.0.0/12": "private (RFC 1918)",
    "192.168.0.0/16": "private (RFC 1918)",
    "fc00::/7": "private (RFC 4193)",
    "169.254.0.0/16": "link-local",
    "fe80::/10": "link-local",
}
# Never opened: nothing of ours and no merchant's server is there.
_NEVER: Final = {
    "0.0.0.0/8": "unspecified",
    "100.64.0.0/10": "shared by a carrier's NAT (RFC 6598)",
    "192.0.0.0/24": "reserved for protocols (RFC 6890)",
    "192.0.2.0/24": "for documentation (RFC 5737)",
    "192.88.99.0/24": "a 6to4 relay (RFC 7526)",
    "198.18.0.0/15": "for benchmarks (RFC 2544)",
    "198.51.100.0/24": "for documentation (RFC 5737)",
    "203.0.113.0/24": "for documentation (RFC 5737)",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved or broadcast (RFC 1112)",
    "::/128": "unspecified",
    "::ffff:0:0/96": "IPv4-mapped (RFC 4291)",
    "::ffff:0:0:0/96": "IPv4-translated (RFC 2765)",
    "::/96": "IPv4-compatible (RFC 4291)",
    "64:ff9b::/96": "NAT64 (RFC 6052)",
    "64:ff9b:1::/48": "NAT64 (RFC 8215)",
    "100::/64": "discard-only (RFC 6666)",
    "2001::/32": "Teredo (RFC 4380)",
    "2001:db8::/32": "for documentation (RFC 3849)",
    "2001::/23": "reserved for protocols (RFC 2928)",
    "2002::/16": "6to4 (RFC 3056)",
    "3fff::/20": "for documentation (RFC 9637)",
    "5f00::/16": "for segment routing (RFC 9602)",
    "fec0::/10": "site-local (RFC 3879)",
    "ff00::/8": "multicast",
}


def _table(rules: dict[str, str]) -> tuple[tuple[IPv4Network | IPv6Network, str], ...]:
    return tuple((ip_network(network), reason) for network, reason in rules.items())


_PRIVATE_TABLE: Final = _table(_PRIVATE)
_NEVER_TABLE: Final = _table(_NEVER)
_GLOBAL_UNICAST_V6: Final = IPv6Network("2000::/3")  # RFC 4291 2.4: everything else is special or unassigned

_NAME: Final = re.compile(
    r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?", re.ASCII | re.IGNORECASE
)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII | re.IGNORECASE)
_PRINTABLE: Final = re.compile(r"[!-~]+", re.ASCII)


def refused_target(ip: Address, *, allow_private: bool = False) -> str | None:
    """Why webhooks must not be sent to `ip`, in words, or None if they may.

    `allow_private` lets loopback, private and link-local addresses pass.
    """
    for network, reason in _PRIVATE_TABLE:
        if ip.version == network.version and ip in network:
            return None if allow_private else reason
    for network, reason in _NEVER_TABLE:
        if ip.version == network.version and ip in network:
            return reason
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST_V6:
        return "not a global unicast address (RFC 4291)"
    return None if ip.is_global else "not a public address"


def refused_text(text: str, *, allow_private: bool = False) -> str | None:
    """The same for an address as text, as resolvers and sockets give it. What is no address is refused.

    An IPv6 zone (`%eth0`) only makes sense on a link, and is judged with its address.
    """
    try:
        ip = ip_address(text)
    except ValueError:
        return "not an IP address"
    return refused_target(ip, allow_private=allow_private)


def url_problem(url: str, *, allow_private: bool = False) -> str | None:
    """What is wrong with `url` as a webhook's target, as a sentence for its owner, or None.

    Stricter than browsers on purpose: whatever two URL parsers could read differently is refused.
    With `allow_private` also http and private literal addresses are accepted.
    """
    if len(url) > URL_LENGTH_MAX:
        return f"The URL may have at most {URL_LENGTH_MAX} characters."
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        return (
            "The URL may have printable ASCII characters only, no spaces or backslashes; write names as xn--…"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "This is not a URL."
    if parts.scheme not in ({"https", "http"} if allow_private else {"https"}):
        return "The URL must begin with https://"
    if "@" in parts.netloc:
        return "The URL must not contain a user name or password."
    if not host:
        return "The URL must name a host."
    if port == 0 or parts.netloc.endswith(":"):
        return "The port must be a number from 1 to 65535."
    if "#" in url:
        return "The URL must not have a fragment (#…): it would not be sent."
    return _host_problem(host, bracketed="[" in parts.netloc, allow_private=allow_private)


def _host_problem(host: str, *, bracketed: bool, allow_private: bool) -> str | None:
    if bracketed or _is_dotted_quad(host):
        reason = refused_text(host, allow_private=allow_private)
        return f"Webhooks are not sent to this address: it is {reason}." if reason else None
    last = host.rstrip(".").rpartition(".")[2]
    if _NUMBER.fullmatch(last):
        # 2130706433, 0x7f.1, 127.1: some resolvers read these as addresses (WHATWG URL, "ends in a number").
        return "The host looks like an IP address in an unusual form; write it as four decimal numbers."
    if len(host) > _HOST_LENGTH_MAX or not _NAME.fullmatch(host):
        return "The host is not a valid name."
    if not allow_private and (last == "localhost" or host == "localhost"):
        return "Webhooks are not sent to this host: it is loopback."
    return None


def _is_dotted_quad(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True
