"""What counts as one address, where requests and wrong passwords are counted."""

from __future__ import annotations

import ipaddress


def name_client(address: str) -> str:
    """Return what counts as one address: an IPv6 network of 64 bits, which one home has."""
    try:
        found = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
