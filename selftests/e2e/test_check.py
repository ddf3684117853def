#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""--check names what is missing, and only that: each set-up here is broken in one way, and the
rows that fail (or warn) are exactly those that have to do with it. Nothing stays attached."""
import contextlib
import ctypes
import errno
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import threading
import time

import harness
import tcprog
from harness import run
from test_interfaces import ARPHRD_CAN, open_tun
from test_security import KEY, PLAIN, mixed, other_pki, shared_key, sign

MAY_WARN = {"clock"}  # nobody may have synchronised that of the machine
HERE, THERE, NOBODY = "192.0.2.2", "192.0.2.1", "192.0.2.77"
XDP, BPF_LINK_XDP = 6, 37
SECCOMP_RET_ALLOW, SECCOMP_RET_EPERM = 0x7FFF0000, 0x00050001
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 38, 22


class Report:
    def __init__(self, done):
        self.status, self.err = done.returncode, done.stderr.decode()
        whole = json.loads(done.stdout)
        assert set(whole) == {"ok", "checks"}, whole
        self.rows, self.ok = whole["checks"], whole["ok"]
        for row in self.rows:
            assert set(row) - {"subject"} == {"check", "status", "text", "hint"}, row
            assert row["status"] in ("ok", "warn", "failed") and row["text"], row
            assert (row["status"] == "ok") <= (row["hint"] == ""), row

    def names(self, status):
        return {(r["check"], r.get("subject")) for r in self.rows if r["status"] == status}

    def row(self, check, subject=None):
        found = [r for r in self.rows if r["check"] == check and r.get("subject") == subject]
        assert len(found) == 1, (check, subject, self.rows)
        return found[0]

    def says(self, status, check, subject, *words):
        """That row has that status and names all of that."""
        row = self.row(check, subject)
        said = f"{row['text']} -> {row['hint']}"
        assert row["status"] == status, row
        for word in words:
            assert word in said, (word, row)

    def only(self, status, *names):
        """No other rows than these, (check, subject), fail or warn."""
        got = {n for n in self.names(status) if status != "warn" or n[0] not in MAY_WARN}
        assert got == set(names), (status, got, self.rows)


def command(lab, config, *options):
    path = lab.file("check.yaml", config)
    return [harness.AGENT, "--config", path, "--check", *options]


def check(lab, config, wrap=(), ns=None, **kw):
    done = run("ip", "netns", "exec", ns or lab.rx, *wrap, *command(lab, config, "--json"),
               check=False, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
               timeout=60 * harness.PATIENCE, **kw)
    assert done.returncode in (0, 1), (done.returncode, done.stderr.decode())
    report = Report(done)
    assert report.ok == (done.returncode == 0) == (not report.names("failed")), report.rows
    return report


def config(lab, tls=None, host="127.0.0.1", port=8081, interfaces="[ps1]", extra=""):
    return (f"agentName: agent\ninterfaces: {interfaces}\n"
            f"output:\n  server:\n    address: {host}\n    port: {port}\n"
            f"{lab.tls('agent') if tls is None else tls}{extra}")


def to_file(lab, extra="", interfaces="[ps1]"):
    """No collector is needed."""
    backend = "" if "backend:" in extra else "backend: tc\n"
    return (f"interfaces: {interfaces}\noutput:\n  file:\n    path: {lab.path('out.pcap')}\n"
            f"{backend}{extra}")


def tcx_programs(index, where):
    """How many; none where the kernel has no TCX."""
    try:
        return tcprog.tcx_count(index, where)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        return 0


def attached(ns, dev="ps1"):
    """What is on the hooks of the interface, in words of the tools."""
    index = json.loads(run("ip", "-n", ns, "-j", "link", "show", dev).stdout)[0]["ifindex"]
    with harness.inside(ns):
        tcx = [tcx_programs(index, where) for where in (tcprog.TCX_INGRESS, tcprog.TCX_EGRESS)]
    return (tcx, run("tc", "-n", ns, "qdisc", "show", "dev", dev, "clsact", check=False).stdout,
            run("tc", "-n", ns, "filter", "show", "dev", dev, "ingress", check=False).stdout,
            "xdp" in run("ip", "-n", ns, "link", "show", dev).stdout.decode())


def complaints(daemon):
    """But for one that some machines cause: a guest allows fewer open files."""
    return [line for line in daemon.text().splitlines() if re.search(r" (warning|error) ", line)
            and "limit of open files" not in line]


# Good ones.

def a_good_set_up_is_all_ok_and_leaves_nothing(lab):
    before = attached(lab.rx)
    collector = lab.collector()
    text = config(lab, extra=f"spool:\n  path: {lab.path('spool')}\n")
    report = check(lab, text)
    report.only("failed")
    report.only("warn")
    assert report.status == 0
    for name in ("configuration", "kernel", "btf", "capabilities", "bpf", "memory", "memlock",
                 "interfaces", "capture", "tls", "spool"):
        report.says("ok", name, None)
    report.says("ok", "hook", "ps1", "attached and taken off again")
    report.says("ok", "collector", "127.0.0.1:8081", "verified")
    assert not os.path.exists(lab.path("spool"))
    assert attached(lab.rx) == before
    # For people: the same rows, one line each.
    done = run("ip", "netns", "exec", lab.rx, *command(lab, text), check=False)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0 and len(lines) == len(report.rows), lines
    assert all(re.match(r"\S+( \S+)? +(ok|warn) +\S", line) for line in lines), lines
    # Two visits, and the collector has nothing to complain of and wrote nothing.
    assert collector.stop() == 0
    assert complaints(collector) == [] and collector.ledgers() == []


def a_shared_key_and_plain_text_are_tried_too(lab):
    collector = lab.collector(tls=shared_key(KEY))
    report = check(lab, config(lab, tls=shared_key(KEY)))
    report.only("failed")
    report.says("ok", "tls", None, "shared key")
    report.says("ok", "collector", "127.0.0.1:8081", "verified")
    assert collector.stop() == 0 and complaints(collector) == []
    collector = lab.collector(tls=PLAIN, name="plain")
    report = check(lab, config(lab, tls=PLAIN))
    report.only("failed")
    report.only("warn", ("tls", None))
    report.says("ok", "collector", "127.0.0.1:8081", "plain text")
    assert collector.stop() == 0
    assert len(complaints(collector)) == 1, complaints(collector)  # that it is plain text


def wrong_usage_is_not_a_failed_check(lab):
    path = lab.file("good.yaml", to_file(lab))
    for options in (["--json"], ["--check", "--json", "surplus"]):
        assert run(harness.AGENT, "--config", path, *options, check=False).returncode == 2
    assert run(harness.AGENT, "--check", check=False).returncode == 2


def a_running_agent_is_not_disturbed(lab):
    collector = lab.collector()
    spool = f"spool:\n  path: {lab.path('spool')}\n"
    agent = lab.agent(spool)
    lab.blast(50)
    report = check(lab, config(lab, extra=spool))
    report.only("failed")
    report.only("warn", ("spool", None))
    report.says("warn", "spool", None, lab.path("spool"), "another agent uses it", "stop")
    lab.blast(50)
    assert agent.stop() == 0 and collector.stop() == 0
    assert agent.total("captured", "ps1", "ingress") == 100 == collector.total("committed", "ps1", "ingress")
    assert complaints(agent) == [] and complaints(collector) == []


def a_signal_in_the_middle_leaves_nothing(lab):
    """In the middle: when the first of many hooks has been told of."""
    devices = [f"many{i}" for i in range(24)]
    for dev in devices:
        lab.veth(lab.tx, f"peer{dev}", lab.rx, dev)
    before = [attached(lab.rx, dev) for dev in devices]
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(["ip", "netns", "exec", lab.rx,
                               *command(lab, to_file(lab, interfaces='["many*"]'))],
                              stdout=subprocess.PIPE) as p:
            told = next(line for line in p.stdout if line.startswith(b"hook "))
            p.send_signal(number)
            rest = p.stdout.read()
            assert p.wait() == -number, (p.returncode, told, rest)
        assert rest.count(b"hook ") < len(devices) - 1, rest
        assert [attached(lab.rx, dev) for dev in devices] == before


# Rights.

def without(*caps):
    return ["setpriv", "--bounding-set", ",".join(f"-{c}" for c in caps), "--inh-caps", "-all"]


def lacks(lab, cap, failed):
    report = check(lab, to_file(lab), wrap=without(cap, "sys_admin"))
    name = f"CAP_{cap.upper()}"
    report.says("failed", "capabilities", None, f"missing: {name} (", "AmbientCapabilities")
    text = report.row("capabilities")["text"]
    assert text.count("CAP_") == 1, text
    report.only("failed", ("capabilities", None), *failed)
    report.says("failed", "capture", None, name, "see the rows capabilities")
    # What does not depend on it is still tried.
    report.says("ok", "interfaces", None, "ps1")
    report.says("ok", "file", None, lab.path("out.pcap"))


def no_cap_bpf(lab):
    with open("/proc/sys/kernel/unprivileged_bpf_disabled") as f:
        refused = f.read().strip() != "0"
    lacks(lab, "bpf", [("capture", None)] + [("bpf", None)] * refused)


def no_cap_net_admin(lab):
    lacks(lab, "net_admin", [("capture", None)])


def no_cap_perfmon(lab):
    lacks(lab, "perfmon", [("capture", None)])


def without_cap_bpf_pcap_takes_over(lab):
    report = check(lab, to_file(lab, "backend: auto\n"), wrap=without("bpf", "sys_admin"))
    report.only("failed")
    report.says("warn", "capabilities", None, "missing: CAP_BPF (")
    report.says("warn", "capture", None, "by libpcap", "backend tc: no right")
    report.says("ok", "hook", "ps1", "pcap", "attached and taken off again")
    # Not without the right that it takes itself.
    report = check(lab, to_file(lab, "backend: pcap\n"), wrap=without("net_raw"))
    report.only("failed", ("capabilities", None), ("capture", None))
    report.says("failed", "capabilities", None, "missing: CAP_NET_RAW (to open packet sockets)")


def pcap_does_not_take_over_what_it_needs_itself(lab):
    netns = f"netns: [/run/netns/{lab.tx}]\n"
    report = check(lab, to_file(lab, f"backend: auto\n{netns}"), wrap=without("bpf", "sys_admin"))
    report.says("failed", "capabilities", None, "CAP_BPF (", "CAP_SYS_ADMIN (to enter")
    report.says("failed", "netns", None, "CAP_SYS_ADMIN is needed")
    report.only("failed", ("capabilities", None), ("netns", None))
    report.says("ok", "hook", "ps1")
    # Looking for processes' namespaces may do without.
    report = check(lab, to_file(lab, f"netns: ['/proc/{os.getpid()}/ns/net']\n"),
                   wrap=without("sys_ptrace"))
    report.only("failed")
    report.says("warn", "capabilities", None, "missing: CAP_SYS_PTRACE (")


def needs_taps():
    if harness.KERNEL < (5, 18):
        raise harness.Skip("no capture at XDP before Linux 5.18")


def a_tap_without_cap_ipc_lock(lab):
    needs_taps()
    report = check(lab, to_file(lab, "taps: [ps1]\nringSize: 2MB\n"),
                   wrap=["prlimit", "--memlock=8388608:8388608", *without("ipc_lock")])
    report.only("failed")
    report.says("warn", "capabilities", None, "missing: CAP_IPC_LOCK (", "RLIMIT_MEMLOCK")
    report.says("ok", "hook", "ps1", "AF_XDP")


def a_set_that_cannot_be_read(lab):
    report = check(lab, to_file(lab, "filter: \"host in bad\"\nsets:\n  bad:\n"
                                     f"    file: {lab.path('none.txt')}\n"))
    report.only("failed", ("configuration", None))
    report.says("failed", "configuration", None, "filter: ", lab.path("none.txt"))


def a_filter_that_is_too_long_for_the_kernel(lab):
    hosts = " or ".join(f"host 10.{n >> 8}.{n & 255}.7" for n in range(400))
    report = check(lab, to_file(lab, f"filter: \"{hosts}\"\n"))
    report.only("failed", ("hook", "ps1"))
    report.says("failed", "hook", "ps1", "too long", "belong in a named set", "ps-filter(7)")


def the_three_capabilities_are_enough(lab):
    os.chmod(lab.dir, 0o777)
    report = check(lab, to_file(lab), wrap=harness.as_user(65534))
    report.only("failed")
    report.says("ok", "hook", "ps1")


def a_user_namespace(lab):
    report = check(lab, to_file(lab), wrap=["unshare", "--user", "--map-root-user"])
    report.says("failed", "capabilities", None, "user namespace", "rootless")
    assert ("capture", None) in report.names("failed")
    # Over a network namespace of its own it has the rights that pcap needs.
    rootless = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c",
                "ip link add ps1 up type veth peer other && exec \"$@\"", "sh"]
    report = check(lab, to_file(lab, "backend: auto\n"), wrap=rootless)
    report.only("failed")
    report.says("warn", "capabilities", None, "user namespace", "rootless")
    report.says("warn", "capture", None, "by libpcap")
    report.says("ok", "hook", "ps1", "pcap")
    report = check(lab, to_file(lab, "backend: pcap\n"), wrap=rootless)
    report.only("failed")
    report.only("warn")


def a_time_namespace(lab):
    report = check(lab, to_file(lab), wrap=["unshare", "--time", "--fork", "--boottime", "100000"])
    report.only("failed", ("clock", None))
    report.says("failed", "clock", None, "time namespace", "CLOCK_BOOTTIME")


def forbid_bpf():
    """In the child: bpf(2) is answered with EPERM."""
    code = b"".join([
        struct.pack("=HBBI", 0x20, 0, 0, 0),                         # ld the number of the call
        struct.pack("=HBBI", 0x15, 0, 1, tcprog.SYS_BPF),            # is it bpf?
        struct.pack("=HBBI", 0x06, 0, 0, SECCOMP_RET_EPERM),
        struct.pack("=HBBI", 0x06, 0, 0, SECCOMP_RET_ALLOW)])
    program = ctypes.create_string_buffer(code)
    fprog = struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(program))
    if harness.LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or \
            harness.LIBC.prctl(PR_SET_SECCOMP, 2, ctypes.c_char_p(fprog), 0, 0):
        os._exit(99)


def bpf_forbidden_by_a_seccomp_filter(lab):
    report = check(lab, to_file(lab), preexec_fn=forbid_bpf)
    report.only("failed", ("bpf", None), ("capture", None))
    report.says("ok", "capabilities", None, "CAP_BPF")
    report.says("failed", "bpf", None, "seccomp", "seccompProfile")
    report.says("failed", "capture", None, "see the rows")


def no_btf(lab):
    hide = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\""
    if not os.path.isdir("/sys/kernel/btf"):
        hide = "exec \"$@\""
    report = check(lab, to_file(lab), wrap=["unshare", "--mount", "sh", "-c", hide, "sh"])
    report.only("failed")
    report.only("warn", ("btf", None))
    report.says("warn", "btf", None, "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF", "do without")


def a_real_time_kernel(lab):
    """The agent warns as well; not with libpcap."""
    show = ("mkdir $0 && mount --bind /sys/kernel $0 && mount -t tmpfs none /sys/kernel && "
            "echo 1 >/sys/kernel/realtime && mkdir /sys/kernel/btf && "
            "if test -d $0/btf; then mount --bind $0/btf /sys/kernel/btf; fi && exec \"$@\"")

    def wrap(name):
        return ["unshare", "--mount", "sh", "-c", show, lab.path(name)]
    report = check(lab, to_file(lab), wrap=wrap("one"))
    report.only("failed")
    report.says("warn", "kernel", None, "real-time", "counters be wrong", "backend: pcap")
    agent = lab.agent("backend: tc\n", output=lab.path("tc.pcap"), wrap=wrap("two"))
    assert agent.stop() == 0 and any("real-time" in c for c in complaints(agent)), agent.text()
    check(lab, to_file(lab, "backend: pcap\n"), wrap=wrap("three")).says("ok", "kernel", None)
    agent = lab.agent("backend: pcap\n", output=lab.path("pcap.pcap"), name="pcap", wrap=wrap("four"))
    assert agent.stop() == 0 and "real-time" not in agent.text(), agent.text()


# Memory.

def more_memory_than_there_is(lab):
    with open("/proc/meminfo") as f:
        available = int(re.search(r"MemAvailable: +(\d+)", f.read())[1]) >> 10
    queue = min(available + 4096, 65536)
    assert queue > available, "this machine has more memory than the largest queue"
    report = check(lab, config(lab, tls=PLAIN, extra=f"queueSize: {queue}MB\n"))
    report.says("failed", "memory", None, f"{queue} MiB for the queue", "are available",
                "make ringSize or queueSize smaller")
    report.only("failed", ("memory", None), ("collector", "127.0.0.1:8081"))
    report.says("ok", "hook", "ps1")


@contextlib.contextmanager
def memory_group(bytes_):
    """A control group with that limit: the command that puts itself there."""
    if os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        root, limit = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
    else:
        root, limit = "/sys/fs/cgroup", "memory.max"
        if not os.path.exists(f"{root}/cgroup.subtree_control"):
            raise harness.Skip("no control groups for memory")
        with contextlib.suppress(OSError), open(f"{root}/cgroup.subtree_control", "w") as f:
            f.write("+memory")
    folder = f"{root}/ps-e2e-{os.getpid()}"
    os.mkdir(folder)
    try:
        if not os.path.exists(f"{folder}/{limit}"):
            raise harness.Skip("control groups here have no memory controller")
        with open(f"{folder}/{limit}", "w") as f:
            f.write(str(bytes_))
        yield ["sh", "-c", f"echo 0 >{folder}/cgroup.procs && exec \"$@\"", "sh"]
    finally:
        harness.wait_until("the group to be empty", lambda: not open(f"{folder}/cgroup.procs").read())
        os.rmdir(folder)


def rings_larger_than_the_groups_limit(lab):
    # `ip netns exec` mounts a /sys of its own, without the groups.
    with memory_group(64 << 20) as enter:
        path = command(lab, to_file(lab, "ringSize: 256MB\n"), "--json")
        done = run("nsenter", f"--net=/run/netns/{lab.rx}", *enter, *path, check=False,
                   stderr=subprocess.PIPE)
    report = Report(done)
    report.only("failed", ("memory", None))
    report.says("failed", "memory", None, "256 MiB for rings", "the cgroup's limit leaves", "MemoryMax")
    report.says("ok", "hook", "ps1")


def locked_memory_is_short(lab):
    report = check(lab, to_file(lab), wrap=["prlimit", "--memlock=1048576:1048576",
                                            *without("sys_resource")])
    if harness.MEMLOCK_COUNTS:
        report.says("failed", "memlock", None, "RLIMIT_MEMLOCK is 1048576 bytes", "LimitMEMLOCK")
        report.only("failed", ("memlock", None), ("capture", None))
    else:
        report.only("failed")
        report.says("ok", "memlock", None)


# Interfaces and hooks.

def an_interface_that_does_not_exist(lab):
    report = check(lab, to_file(lab, interfaces="[ps1, eth99]"))
    report.only("failed", ("interface", "eth99"))
    report.says("failed", "interface", "eth99", 'no interface "eth99"', "interfaces names", "pattern")
    report.says("ok", "hook", "ps1")
    report = check(lab, to_file(lab, 'pcapMode: allow\ncaptureInterfacesPorts:\n  eth98: [80]\n'))
    report.only("failed", ("interface", "eth98"))
    report.says("failed", "interface", "eth98", "captureInterfacesPorts names")


def an_interface_that_is_down(lab):
    lab.veth(lab.tx, "psd0", lab.rx, "psd1")
    run("ip", "-n", lab.rx, "link", "set", "psd1", "down")
    report = check(lab, to_file(lab, interfaces="[psd1]"))
    report.only("failed", ("interface", "psd1"))
    report.says("failed", "interface", "psd1", '"psd1"', "is down", "ip link set")
    report.says("warn", "interfaces", None, "0 to capture")


def an_unsupported_link_type(lab):
    with os.fdopen(open_tun(lab.rx, "odd0", ARPHRD_CAN), "rb", 0):
        run("ip", "-n", lab.rx, "link", "set", "odd0", "up")
        report = check(lab, to_file(lab, interfaces="[ps1, odd0]"))
        report.only("failed", ("interface", "odd0"))
        report.says("failed", "interface", "odd0", f"ARPHRD {ARPHRD_CAN}", "odd0")
        # By a pattern it is left alone, and that is said.
        report = check(lab, to_file(lab, interfaces='["*"]'))
        report.only("failed")
        report.says("ok", "interfaces", None, "ps1", "odd0")


def an_occupied_xdp_hook(lab):
    lab.veth(lab.tx, "psx0", lab.rx, "psx1")  # native XDP takes no jumbo frames
    code = ctypes.create_string_buffer(tcprog.insn(0xB7, 0, imm=2) + tcprog.insn(0x95))  # XDP_PASS
    license_ = ctypes.c_char_p(b"GPL")
    prog = tcprog.bpf(tcprog.PROG_LOAD, "IIQQIIQII16s", XDP, 2, ctypes.addressof(code),
                      ctypes.cast(license_, ctypes.c_void_p).value, 0, 0, 0, 0, 0, b"somebodys")
    index = json.loads(run("ip", "-n", lab.rx, "-j", "link", "show", "psx1").stdout)[0]["ifindex"]
    with harness.inside(lab.rx):
        link = tcprog.bpf(tcprog.LINK_CREATE, "IIIIQQQ", prog, index, BPF_LINK_XDP, 0, 0, 0, 0)
    with open(f"/proc/self/fdinfo/{prog}") as f:
        number = re.search(r"prog_id:\s*(\d+)", f.read())[1]
    try:
        report = check(lab, to_file(lab, interfaces="[psx1]"))
        report.only("failed")
        report.only("warn", ("xdp", "psx1"))
        report.says("warn", "xdp", "psx1", f"program {number} ", "somebodys", "native", "redirects")
        report.says("ok", "hook", "psx1")
        report = check(lab, to_file(lab, "backend: xdp\n", interfaces="[psx1]"))
        report.only("failed", ("xdp", "psx1"), ("hook", "psx1"))
        report.says("failed", "xdp", "psx1", f"program {number} ", "room for one", "backend: tc")
        report.says("failed", "hook", "psx1", "another XDP program is there")
        if harness.KERNEL >= (5, 18):
            report = check(lab, to_file(lab, "taps: [psx1]\n", interfaces='["!*"]'))
            report.only("failed", ("xdp", "psx1"), ("hook", "psx1"))
            report.says("failed", "xdp", "psx1", "room for one", "take that program off")
        assert attached(lab.rx, "psx1")[3], "the program is gone"
    finally:
        os.close(link)
        os.close(prog)
    check(lab, to_file(lab, interfaces="[psx1]")).only("warn")


def a_qdisc_in_the_way(lab):
    """Of the old kind: it has no egress side. Only where hooks are filters does that matter."""
    run("tc", "-n", lab.rx, "qdisc", "add", "dev", "ps1", "ingress")
    report = check(lab, to_file(lab))
    by_tcx = report.row("capture")["text"].endswith("by tcx")
    report.only("failed", *([] if by_tcx else [("hook", "ps1")]))
    report.says("ok" if by_tcx else "failed", "hook", "ps1", *([] if by_tcx else ['"ingress"']))


def a_tap_that_the_host_uses(lab):
    needs_taps()
    lab.veth(lab.tx, "pst0", lab.rx, "pst1")
    run("ip", "-n", lab.rx, "addr", "add", f"{HERE}/24", "dev", "ps1")
    report = check(lab, to_file(lab, "taps: [pst1, ps1, typo9]\n", interfaces='["!*"]'))
    report.says("ok", "hook", "pst1", "AF_XDP", "attached and taken off again")
    report.says("failed", "hook", "ps1", "takes packets away from the host", HERE, "take it out of taps")
    report.says("failed", "interface", "typo9", "there is no interface", "which taps names")
    report.only("failed", ("hook", "ps1"), ("interface", "typo9"))
    assert attached(lab.rx, "pst1")[3] is False


def interfaces_at_another_capture_point(lab):
    """A veth is no wire."""
    report = check(lab, to_file(lab, "capturePoint: wire\n", interfaces='["*"]'))
    report.only("failed")
    report.says("warn", "interfaces", None, "0 to capture now", "capturePoint")
    report = check(lab, to_file(lab, "capturePoint: wire\n"))
    report.only("failed", ("interface", "ps1"))
    report.says("failed", "interface", "ps1", '"ps1", which interfaces names', "capturePoint")
    assert not [r for r in report.rows if r["check"] == "hook"], report.rows
    check(lab, to_file(lab, "capturePoint: pod\n")).says("ok", "hook", "ps1")


def namespace(lab, name):
    ns = lab.namespace(lab.tag + name)
    lab.veth(ns, "inner0", lab.tx, f"x{name}")
    return ns


def other_network_namespaces(lab):
    one, two = namespace(lab, "p1"), namespace(lab, "p2")
    folder = f"/run/netns/{lab.tag}"
    paths = f"'{folder}p*', '{folder}p1', '{folder}gone'"
    before = [attached(one, "inner0"), attached(lab.rx)]
    # Where a named one is need not be known: that it is in no namespace is no fault.
    report = check(lab, to_file(lab, f"netns: ['!self', {paths}]\n", interfaces="[inner0, ps1, late0]"))
    report.only("failed")
    report.only("warn", ("netns", f"{folder}gone"))
    report.says("ok", "netns", None, "2 of netns are there now")
    for ns in (one, two):
        report.says("ok", "netns", ns, "1 to capture now: inner0")
        report.says("ok", "hook", f"{ns}/inner0", "attached and taken off again")
    assert len([r for r in report.rows if r["check"] in ("hook", "netns")]) == 6, report.rows
    assert [attached(one, "inner0"), attached(lab.rx)] == before
    report = check(lab, to_file(lab, f"netns: [{folder}p1]\n", interfaces='["*", "!x*"]'))
    report.only("failed")
    report.says("ok", "interfaces", None, "1 to capture now: ps1")
    assert {r["subject"] for r in report.rows if r["check"] == "hook"} == {"ps1", f"{one}/inner0"}
    # Pods are captured inside.
    report = check(lab, to_file(lab, f"netns: [{folder}p1]\ncapturePoint: pod\n", interfaces='["*"]'))
    report.only("failed")
    report.says("ok", "interfaces", None, "0 to capture now")
    assert {r["subject"] for r in report.rows if r["check"] == "hook"} == {f"{one}/inner0"}


def a_tap_of_a_namespace_that_is_left_out(lab):
    needs_taps()
    ns = namespace(lab, "p1")
    report = check(lab, to_file(lab, f"netns: ['!self', /run/netns/{ns}]\ntaps: [ps1]\n"))
    report.only("failed", ("interface", "ps1"))
    report.says("failed", "interface", "ps1", "netns leaves out", "!self")


# Collectors.

def refused(lab, tls, *words, host="127.0.0.1", row="collector", port=8081):
    report = check(lab, config(lab, tls=tls, host=host, port=port))
    subject = f"{host}:{port}" if row == "collector" else None
    report.says("failed", row, subject, *words)
    report.only("failed", (row, subject))
    report.says("ok", "hook", "ps1")
    report.says("ok", "spool", None)
    return report


def a_collector_that_is_not_there(lab):
    refused(lab, None, "Connection refused", "127.0.0.1:8081", "start ps-collector")


def bounded(lab, *args, **kw):
    """No more than what the man page says, and it is not slow that makes it so."""
    begin = time.monotonic()
    report = refused(lab, *args, **kw)
    assert time.monotonic() - begin < 13 * harness.PATIENCE
    return report


def a_collector_in_a_black_hole(lab):
    lab.address((lab.tx, "ps0", THERE), (lab.rx, "ps1", HERE))
    run("ip", "-n", lab.rx, "neigh", "replace", NOBODY, "lladdr", lab.mac(lab.tx, "ps0"), "dev",
        "ps1", "nud", "permanent")
    bounded(lab, None, f"{NOBODY}:8081", "timed out", "firewall", host=NOBODY)


def a_name_that_cannot_be_resolved(lab):
    bounded(lab, None, 'cannot resolve "collector.invalid"', "/etc/resolv.conf", host="collector.invalid")


def a_network_without_a_route(lab):
    refused(lab, None, "203.0.113.9:8081", "nreachable", "no route", host="203.0.113.9")


def a_collector_that_another_authority_signed(lab):
    ours, other = lab.pki(), other_pki(lab)
    collector = lab.collector(tls=mixed(lab, "collector", other, ours))
    refused(lab, None, "signed by nobody in", f"{ours}/ca.crt", "tls.cafile")
    assert len(complaints(collector)) == 1, collector.text()


def a_collector_of_another_name(lab):
    lab.collector(tls=sign(lab, "elsewhere", "tls_www_server", 600, names=("elsewhere.example",))[1])
    refused(lab, None, "is for elsewhere.example, not for 127.0.0.1", "tls.serverName")
    check(lab, config(lab, tls=lab.tls("agent") + "  serverName: elsewhere.example\n")).only("failed")


def a_collector_whose_certificate_has_expired(lab):
    # It does not start with one, so another server has to stand in.
    sign(lab, "late", "tls_www_server", -60)
    with other_server(lab, "--x509certfile", lab.path("late.crt"), "--x509keyfile", lab.path("late.key"),
                      "--alpn", "ps/1"):
        refused(lab, None, "the certificate of the collector expired on", "renew")


def an_agent_whose_certificate_has_expired(lab):
    lab.collector()
    report = check(lab, config(lab, tls=sign(lab, "old", "tls_www_client", -60)[1]))
    report.says("failed", "tls", None, lab.path("old.crt"), "expired on")
    report.says("warn", "collector", "127.0.0.1:8081", "takes connections", "see the row tls")
    report.only("failed", ("tls", None))


def a_key_of_another_certificate(lab):
    pki, other = lab.pki(), other_pki(lab)
    refused(lab, f"tls:\n  certfile: {pki}/agent.crt\n  keyfile: {other}/agent.key\n  cafile: {pki}/ca.crt\n",
            "tls.keyfile", f"{other}/agent.key", row="tls", port=free_listener(lab))


def an_agent_that_another_authority_signed(lab):
    """A client of TLS 1.3 is through before the server has judged it."""
    ours, other = lab.pki(), other_pki(lab)
    lab.collector()
    refused(lab, mixed(lab, "agent", other, ours), "refused our certificate", "log of the collector")


def an_agent_that_the_collector_does_not_allow(lab):
    lab.collector('agents:\n  allow: ["urn:ps:somebody"]\n')
    refused(lab, None, "agents.allow", "log of the collector")


def another_shared_key(lab):
    lab.collector(tls=shared_key(KEY))
    refused(lab, shared_key("wrong horse battery staple"), "has another auth.key", "the same on both sides")


def a_collector_in_plain_text(lab):
    lab.collector(tls=PLAIN)
    refused(lab, None, "does not speak TLS", "tls.enable", "the same on both sides")


@contextlib.contextmanager
def other_server(lab, *options):
    """GnuTLS's own server on port 8081, without a client's certificate."""
    server = lab.spawn("other", ["gnutls-serv", "--port", "8081", "--disable-client-cert", "--echo",
                                 "--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.3", *options], ns=lab.rx)
    server.wait_for(r"listening on .*8081|Server ready")
    yield server
    server.kill()


def a_server_that_is_no_collector(lab):
    pki = lab.pki()
    with other_server(lab, "--x509certfile", f"{pki}/collector.crt", "--x509keyfile", f"{pki}/collector.key",
                      "--alpn", "http/1.1", "--alpn-fatal"):
        refused(lab, None, "speaks TLS but not ps/1: not ours")


@contextlib.contextmanager
def listener(lab, say):
    """Takes connections, says something or nothing, and keeps them open."""
    s = harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 8081))
    s.listen(8)
    taken = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                taken.append(s.accept()[0])
                taken[-1].sendall(say)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        s.shutdown(socket.SHUT_RDWR)
        thread.join()
        for c in (s, *taken):
            c.close()


def a_port_of_another_protocol(lab):
    with listener(lab, b"SSH-2.0-OpenSSH_9.2\r\n"):
        refused(lab, None, "does not speak TLS")


def a_port_that_says_nothing(lab):
    with listener(lab, b""):
        bounded(lab, None, "there is no TLS handshake", "is it a ps-collector")


def free_listener(lab):
    """A port where a collector listens that takes anybody's connection."""
    lab.collector()
    return 8081


def one_of_several_collectors_is_enough(lab):
    lab.collector()
    servers = ["127.0.0.1:8081", "127.0.0.1:8082"] + [f"127.0.0.{i}:9" for i in range(2, 40)]
    text = (f"interfaces: [ps1]\noutput:\n  servers: {json.dumps(servers)}\n{lab.tls('agent')}")
    report = check(lab, text)
    report.only("failed")
    report.only("warn", *[("collector", s) for s in servers[1:]])
    report.says("ok", "collector", servers[0], "verified")
    # In the order of the file.
    assert [r["subject"] for r in report.rows if r["check"] == "collector"] == servers


# Files.

def a_spool_that_cannot_be_written(lab):
    lab.collector()
    os.mkdir(lab.path("ro"))
    readonly = f"mount --bind -o ro {shlex.quote(lab.path('ro'))} {shlex.quote(lab.path('ro'))} && exec \"$@\""
    report = check(lab, config(lab, extra=f"spool:\n  path: {lab.path('ro')}/spool\n"),
                   wrap=["unshare", "--mount", "sh", "-c", readonly, "sh"])
    report.only("failed", ("spool", None))
    report.says("failed", "spool", None, lab.path("ro"), "Read-only", "spool.path")


def a_spool_without_room(lab):
    lab.collector()
    report = check(lab, config(lab, extra=f"spool:\n  path: {lab.path('spool')}\n  minFree: 16000GB\n"))
    report.only("failed", ("spool", None))
    report.says("failed", "spool", None, "are free", "spool.minFree")


def a_file_in_a_folder_that_does_not_exist(lab):
    report = check(lab, to_file(lab).replace(lab.path("out.pcap"), "/nonexistent/out.pcap"))
    report.only("failed", ("file", None))
    report.says("failed", "file", None, "/nonexistent", "output.file.path")


def check_collector(lab, output, extra=""):
    text = (f"input:\n  address: 127.0.0.1\n  port: 8081\noutput:\n  file:\n    path: {output}\n"
            f"{lab.tls('collector')}{extra}")
    return [harness.COLLECTOR, "--config", lab.file("collector.yaml", text), "--check"]


def a_log_that_cannot_be_written(lab):
    """Of either daemon; and nothing is made."""
    report = check(lab, to_file(lab, f"logFilename: {lab.path('new.log')}\n"))
    report.only("failed")
    report.says("ok", "log", None, lab.path("new.log"))
    assert not os.path.exists(lab.path("new.log"))
    for path in ("/nonexistent/agent.log", lab.dir):
        report = check(lab, to_file(lab, f"logFilename: {path}\n"))
        report.only("failed", ("log", None))
        report.says("failed", "log", None, os.path.dirname(path), "logFilename")
        done = run(*check_collector(lab, lab.path("dump.pcap"), f"logFilename: {path}\n"), check=False)
        assert done.returncode == 1 and b"\nlog      FAILED cannot " in done.stdout, done.stdout


def on_terminal(argv):
    ours, its = os.openpty()
    said = b""
    with subprocess.Popen(argv, stdout=its, stdin=subprocess.DEVNULL) as p:
        os.close(its)
        with contextlib.suppress(OSError):
            while block := os.read(ours, 4096):
                said += block
    os.close(ours)
    return p.returncode, said.decode()


def standard_output_that_is_a_terminal(lab):
    """A run may have another one."""
    text = to_file(lab).replace(lab.path("out.pcap"), "stdout")
    status, said = on_terminal(["ip", "netns", "exec", lab.rx, *command(lab, text)])
    assert status == 0 and re.search(r"^file +warn .* is a terminal", said, re.M), said
    status, said = on_terminal(check_collector(lab, "stdout"))
    assert status == 0 and re.search(r"^output +ok .*terminal", said, re.M), said


def a_configuration_with_errors(lab):
    report = check(lab, to_file(lab, "nonsense: 1\nringSize: 5\n"))
    report.only("failed", ("configuration", None))
    report.says("failed", "configuration", None, "check.yaml:", "and 1 more", "ps-agent.yaml(5)")
    assert len(report.err.splitlines()) == 2 and "nonsense" in report.err, report.err
    # What can be said without one is said.
    report.says("ok", "capabilities", None)
    report.says("ok", "bpf", None)
    report = check(lab, to_file(lab) + 'filename: "\\xff\\"\n')
    assert report.names("failed") == {("configuration", None)}


if __name__ == "__main__":
    harness.main([
        a_good_set_up_is_all_ok_and_leaves_nothing,
        a_shared_key_and_plain_text_are_tried_too,
        wrong_usage_is_not_a_failed_check,
        a_running_agent_is_not_disturbed,
        a_signal_in_the_middle_leaves_nothing,
        no_cap_bpf,
        no_cap_net_admin,
        no_cap_perfmon,
        without_cap_bpf_pcap_takes_over,
        pcap_does_not_take_over_what_it_needs_itself,
        a_tap_without_cap_ipc_lock,
        a_set_that_cannot_be_read,
        a_filter_that_is_too_long_for_the_kernel,
        the_three_capabilities_are_enough,
        a_user_namespace,
        a_time_namespace,
        bpf_forbidden_by_a_seccomp_filter,
        no_btf,
        a_real_time_kernel,
        more_memory_than_there_is,
        rings_larger_than_the_groups_limit,
        locked_memory_is_short,
        an_interface_that_does_not_exist,
        an_interface_that_is_down,
        an_unsupported_link_type,
        an_occupied_xdp_hook,
        a_qdisc_in_the_way,
        a_tap_that_the_host_uses,
        interfaces_at_another_capture_point,
        other_network_namespaces,
        a_tap_of_a_namespace_that_is_left_out,
        a_collector_that_is_not_there,
        a_collector_in_a_black_hole,
        a_name_that_cannot_be_resolved,
        a_network_without_a_route,
        a_collector_that_another_authority_signed,
        a_collector_of_another_name,
        a_collector_whose_certificate_has_expired,
        an_agent_whose_certificate_has_expired,
        a_key_of_another_certificate,
        an_agent_that_another_authority_signed,
        an_agent_that_the_collector_does_not_allow,
        another_shared_key,
        a_collector_in_plain_text,
        a_server_that_is_no_collector,
        a_port_of_another_protocol,
        a_port_that_says_nothing,
        one_of_several_collectors_is_enough,
        a_spool_that_cannot_be_written,
        a_spool_without_room,
        a_file_in_a_folder_that_does_not_exist,
        a_log_that_cannot_be_written,
        standard_output_that_is_a_terminal,
        a_configuration_with_errors])
