# SPDX-License-Identifier: Apache-2.0
"""The capture rules in plain Python, written from their description and not from the
BPF code: what ps-agent must keep of a sequence of packets."""
import fnmatch
import struct

TAGS = {0x8100, 0x88A8, 0x9100}
WITH_PORTS = {6, 17, 33, 132, 136}  # TCP, UDP, DCCP, SCTP, UDP-Lite
HOP, ROUTING, FRAGMENT, AUTH, DEST, MOBILITY, HIP, SHIM6 = 0, 43, 44, 51, 60, 135, 139, 140


class Ports:
    """The ports of each packet of a sequence; later fragments have those of the first."""

    def __init__(self):
        self.fragments = {}

    def of(self, data):
        if len(data) < 14:
            return set()
        at, kind = 14, struct.unpack("!H", data[12:14])[0]
        while kind in TAGS and len(data) >= at + 4:
            kind = struct.unpack("!H", data[at + 2:at + 4])[0]
            at += 4
        if kind == 0x0800:
            return self.ipv4(data[at:])
        if kind == 0x86DD:
            return self.ipv6(data[at:])
        return set()

    @staticmethod
    def l4(proto, data):
        if proto not in WITH_PORTS or len(data) < 4:
            return set()
        return set(struct.unpack("!HH", data[:4]))

    def fragment(self, key, offset, ports):
        if offset == 0:
            self.fragments[key] = ports
            return ports
        return self.fragments.get(key, set())

    def ipv4(self, ip):
        if len(ip) < 20 or ip[0] >> 4 != 4 or (ip[0] & 15) < 5:
            return set()
        size, ident, frag = (ip[0] & 15) * 4, ip[4:6], struct.unpack("!H", ip[6:8])[0]
        ports = self.l4(ip[9], ip[size:])
        if frag & 0x3FFF:
            return self.fragment((4, ip[12:20], ident, ip[9]), frag & 0x1FFF, ports)
        return ports

    def ipv6(self, ip):
        if len(ip) < 40 or ip[0] >> 4 != 6:
            return set()
        proto, at, key, offset = ip[6], 40, None, 0
        while True:
            if proto in (HOP, ROUTING, DEST, MOBILITY, HIP, SHIM6):
                if len(ip) < at + 2:
                    return set()
                proto, at = ip[at], at + (ip[at + 1] + 1) * 8
            elif proto == AUTH:
                if len(ip) < at + 2:
                    return set()
                proto, at = ip[at], at + (ip[at + 1] + 2) * 4
            elif proto == FRAGMENT:
                if len(ip) < at + 8:
                    return set()
                field = struct.unpack("!H", ip[at + 2:at + 4])[0]
                if field & 0xFFF9:
                    key, offset = (6, ip[8:40], ip[at + 4:at + 8]), field >> 3
                proto, at = ip[at], at + 8
                if offset:
                    return self.fragments.get(key, set())
            else:
                break
        ports = self.l4(proto, ip[at:])
        return self.fragment(key, 0, ports) if key else ports


class Rules:
    """A configuration's rules as seen by one interface."""

    def __init__(self, config, interface):
        self.mode = config.get("pcapMode", "all").lower()
        self.ignored = set(config.get("ignorePorts", []))
        self.everywhere = set(config.get("capturePorts", []))
        self.lists = [set(v) for k, v in config.get("captureInterfacesPorts", {}).items()
                      if fnmatch.fnmatchcase(interface, k)]

    def keep(self, ports):
        listed = bool(ports & self.everywhere) or any(ports & v for v in self.lists)
        if self.mode == "allow":
            kept = listed or any(not v for v in self.lists)
        else:
            kept = self.mode == "all" or not listed
        return kept and not ports & self.ignored


def select(config, interface, packets):
    """The packets that are kept, in order."""
    rules, ports = Rules(config, interface), Ports()
    return [p for p, has in [(p, ports.of(p)) for p in packets] if rules.keep(has)]
