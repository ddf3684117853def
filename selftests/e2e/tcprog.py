# SPDX-License-Identifier: Apache-2.0
"""Another program on a TC or XDP hook, beside the agent's: counts what it sees and drops IPv4
packets of one type of service. Made of raw instructions, so that the tests need neither a
compiler nor a newer libbpf or bpftool."""
import ctypes
import os
import platform
import struct

SYS_BPF = {"x86_64": 321}.get(platform.machine(), 280)
MAP_CREATE, MAP_LOOKUP_ELEM, PROG_LOAD, OBJ_PIN, PROG_QUERY, LINK_CREATE = 0, 1, 5, 6, 16, 28
LINK_GET_FD_BY_ID, LINK_DETACH = 30, 34
MAP_TYPE_ARRAY, PROG_TYPE_SCHED_CLS, PROG_TYPE_XDP = 2, 3, 6
TCX_INGRESS, TCX_EGRESS, XDP = 46, 47, 37
XDP_DROP, XDP_PASS, XDP_NATIVE, XDP_GENERIC = 1, 2, 1 << 2, 1 << 1
BEFORE, AFTER = 1 << 3, 1 << 4
TOS_OFFSET, DROPPED_TOS = 15, 0x68
LIBC = ctypes.CDLL(None, use_errno=True)


def bpf(cmd, fmt, *values):
    attr = ctypes.create_string_buffer(struct.pack("=" + fmt, *values), 128)
    r = LIBC.syscall(SYS_BPF, cmd, attr, 128)
    if r < 0:
        raise OSError(ctypes.get_errno(), f"bpf({cmd}): {os.strerror(ctypes.get_errno())}")
    return attr if cmd == PROG_QUERY else r


def tcx_ids(ifindex, attach):
    """Of the programs there. To be called inside the namespace."""
    ids = (ctypes.c_uint32 * 64)()
    try:
        attr = bpf(PROG_QUERY, "IIIIQII", ifindex, attach, 0, 0, ctypes.addressof(ids), len(ids), 0)
    except FileNotFoundError:
        return []
    return list(ids[:struct.unpack_from("=I", attr.raw, 24)[0]])


def tcx_count(ifindex, attach):
    return len(tcx_ids(ifindex, attach))


def insn(code, dst=0, src=0, off=0, imm=0):
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm)


class Counting:
    """A program and its counter."""

    def __init__(self, kind, body, flags=0):
        self.map = bpf(MAP_CREATE, "4I", MAP_TYPE_ARRAY, 4, 8, 1)
        code = b"".join([
            insn(0xBF, 6, 1),                     # r6 = ctx
            insn(0x62, 10, 0, -4, 0),             # key = 0
            insn(0xBF, 2, 10), insn(0x07, 2, imm=-4),
            insn(0x18, 1, 1, imm=self.map), insn(0),
            insn(0x85, imm=1),                    # map_lookup_elem
            insn(0x15, 0, 0, 2, 0),               # NULL: on
            insn(0xB7, 1, imm=1),
            insn(0xDB, 0, 1, 0, 0),               # lock *value += 1
            *body,
            insn(0x95),
        ])
        self.code, self.license = ctypes.create_string_buffer(code), ctypes.c_char_p(b"GPL")
        self.prog = bpf(PROG_LOAD, "IIQQIIQII", kind, len(code) // 8,
                        ctypes.addressof(self.code),
                        ctypes.cast(self.license, ctypes.c_void_p).value, 0, 0, 0, 0, flags)
        self.fds = [self.map, self.prog]

    def count(self):
        key, value = ctypes.c_uint32(0), ctypes.c_uint64(0)
        bpf(MAP_LOOKUP_ELEM, "IIQQQ", self.map, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
        return value.value

    def close(self):
        for fd in self.fds:
            os.close(fd)
        self.fds = []


def detach_link(number):
    """By force: whoever has it keeps it, attached to nothing."""
    fd = bpf(LINK_GET_FD_BY_ID, "I", number)
    bpf(LINK_DETACH, "I", fd)
    os.close(fd)


class Program(Counting):
    """For TC. Returns @verdict for what it does not drop: 0 ends the chain, -1 does not."""

    def __init__(self, verdict):
        super().__init__(PROG_TYPE_SCHED_CLS, [
            insn(0x72, 10, 0, -8, 0),
            insn(0xBF, 1, 6), insn(0xB7, 2, imm=TOS_OFFSET),
            insn(0xBF, 3, 10), insn(0x07, 3, imm=-8), insn(0xB7, 4, imm=1),
            insn(0x85, imm=26),                   # skb_load_bytes(ctx, 15, &byte, 1)
            insn(0x71, 1, 10, -8),
            insn(0xB7, 0, imm=verdict),
            insn(0x55, 1, 0, 1, DROPPED_TOS),
            insn(0xB7, 0, imm=2),                 # TC_ACT_SHOT
        ])

    def attach_tcx(self, ifindex, flags, attach=TCX_INGRESS):
        """@flags: BEFORE, the head; AFTER, the tail. To be called inside the namespace."""
        self.fds.append(bpf(LINK_CREATE, "IIIIIIQ", self.prog, ifindex, attach, flags, 0, 0, 0))

    def pin(self, path):
        self.path = ctypes.c_char_p(path.encode())
        bpf(OBJ_PIN, "QI", ctypes.cast(self.path, ctypes.c_void_p).value, self.prog)


class Xdp(Counting):
    def __init__(self):
        super().__init__(PROG_TYPE_XDP, [
            insn(0x61, 2, 6, 0), insn(0x61, 3, 6, 4),  # data, data_end
            insn(0xB7, 0, imm=XDP_PASS),
            insn(0xBF, 1, 2), insn(0x07, 1, imm=TOS_OFFSET + 1),
            insn(0x2D, 1, 3, 3),                  # shorter: on
            insn(0x71, 1, 2, TOS_OFFSET),
            insn(0x55, 1, 0, 1, DROPPED_TOS),
            insn(0xB7, 0, imm=XDP_DROP),
        ])

    def attach(self, ifindex, mode):
        """To be called inside the namespace."""
        self.fds.append(bpf(LINK_CREATE, "IIIIIIQ", self.prog, ifindex, XDP, mode, 0, 0, 0))
