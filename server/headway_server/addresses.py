"""Which addresses the server may send something to of its own accord."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Behind these a gateway reaches the IPv4 address that their last 32 bits are."""


def may_reach(address: Address, *, private: bool) -> bool:
    """Whether something may be sent there; `private`: to this machine and its own network too.

    Never to link-local addresses, where clouds serve a machine's credentials, nor to whole groups.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return may_reach(address.ipv4_mapped, private=private)
        if address in NAT64:
            return may_reach(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF), private=private)
        if address.sixtofour is not None or address.teredo is not None or address.is_site_local:
            # Tunnels that lead to whatever IPv4 address is written in them, and what was private once.
            return False
    if address.is_loopback:
        return private
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        return False
    return private or address.is_global
