"""Which host names are valid, and which addresses the server may connect to."""

import ipaddress
import re

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""A gateway maps these addresses to the IPv4 address in their last 32 bits."""

LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""A gateway maps these too, but only the network's operator knows which bits are the IPv4 address."""

METADATA_SERVICES = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
        "fd00:42::42",  # Scaleway
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google
    )
)
"""Addresses where clouds serve a machine's credentials and settings, besides the link-local ones."""

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"


def is_host(text: str) -> bool:
    """Whether this is a valid name or address of a host, as written before a port; IPv6 in brackets."""
    if text.startswith("[") and text.endswith("]"):
        address, separator, zone = text[1:-1].partition("%")
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            return False
        return not separator or re.fullmatch(r"[A-Za-z0-9._-]{1,15}", zone) is not None
    return len(text) <= 253 and re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*\.?", text) is not None


def may_reach(address: Address, *, private: bool) -> bool:
    """Whether the server may connect to the address. `private`: this machine and its own network are allowed too.

    Addresses where clouds serve credentials, and multicast addresses, are never allowed.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            address = ipaddress.IPv6Address(int(address))
        if address.ipv4_mapped is not None:
            return may_reach(address.ipv4_mapped, private=private)
        if address in NAT64:
            return may_reach(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF), private=private)
        if address.sixtofour is not None or address.teredo is not None or address.is_site_local:
            # Tunnels to any IPv4 address, and an outdated kind of private addresses.
            return False
        if address in LOCAL_NAT64:
            return False
    if address in METADATA_SERVICES:
        return False
    if address.is_loopback:
        return private
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        return False
    return private or address.is_global
