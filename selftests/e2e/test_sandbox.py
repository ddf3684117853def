#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the daemons give up once they have started, and that they can do their work without it:
new interfaces, new credentials, name servers, a spool of somebody else's."""
import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import threading

import harness
import pcap
from harness import run

BPF, NET_ADMIN, PERFMON, DAC_OVERRIDE = 39, 12, 38, 1
SYS_ADMIN, SYS_PTRACE = 21, 19
THREE = 1 << BPF | 1 << NET_ADMIN | 1 << PERFMON
COUNT = 40


def threads(daemon):
    """What the kernel says of each."""
    found = []
    for task in os.listdir(f"/proc/{daemon.pid}/task"):
        with open(f"/proc/{daemon.pid}/task/{task}/status") as f:
            found.append(dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line))
    return found


def caps(status, name):
    return int(status[f"Cap{name}"], 16)


def check_confined(daemon, keep, n_threads):
    found = threads(daemon)
    assert len(found) >= n_threads, found
    for status in found:
        for name in ("Eff", "Prm"):
            assert caps(status, name) == keep, (name, status)
        for name in ("Inh", "Amb", "Bnd"):
            assert caps(status, name) == 0, (name, status)
        assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2", status


def filtered(daemon):
    """Not so under a sanitizer, and without libseccomp."""
    said = daemon.wait_for(r"capabilities that are kept: .*")
    if "system calls that are kept" not in said[0]:
        raise harness.Skip(said[0])


def every_thread_of_both_daemons_is_confined(lab):
    collector = lab.collector()
    agent = lab.agent(f"spool:\n  path: {lab.path('spool')}\n  mode: always\n")
    filtered(agent)
    lab.blast(COUNT)
    harness.wait_until("the packets to be committed",
                       lambda: agent.snapshot()["committed"] == COUNT)
    check_confined(agent, THREE, 4)   # loop, reader, mover, uplink
    check_confined(collector, 0, 3)   # main, worker, committer
    assert re.search(r"capabilities that are kept: CAP_NET_ADMIN CAP_PERFMON CAP_BPF; "
                     r"system calls that are kept: \d+$", agent.text(), re.M), agent.text()
    assert "capabilities that are kept: none; " in collector.text()
    assert agent.stop() == 0 and collector.stop() == 0
    assert len(pcap.read(lab.path("dump.pcap")).packets) == COUNT


def an_interface_that_comes_later_is_captured(lab):
    collector, agent = lab.collector(), lab.agent(interfaces='["ps1", "late*"]')
    for i in range(3):
        lab.veth(lab.tx, f"peer{i}", lab.rx, f"late{i}")
        agent.wait_for(f'capturing interface "late{i}"')
        lab.blast(COUNT, dev=f"peer{i}")
        run("ip", "-n", lab.rx, "link", "del", f"late{i}")
        agent.wait_for(rf'interface "late{i}" \(index \d+\) is gone')
    assert agent.stop() == 0 and collector.stop() == 0
    assert agent.total("captured") == 3 * COUNT == collector.total("committed")


def credentials_of_root_alone_are_read_again(lab):
    pki = lab.pki()
    collector, agent = lab.collector(), lab.agent()
    agent.wait_for("connected to the collector")
    for who in ("agent", "collector"):
        assert os.stat(f"{pki}/{who}.key").st_mode & 0o777 == 0o600
    run(harness.COLLECTOR, "--init-pki", lab.path("new"))
    for who in ("agent", "collector"):
        for end in ("crt", "key"):
            os.replace(f"{lab.path('new')}/{who}.{end}", f"{pki}/{who}.{end}")
    os.replace(f"{lab.path('new')}/ca.crt", f"{pki}/ca.crt")
    for daemon, says in ((collector, "credentials were loaded again"),
                         (agent, "credentials were read again")):
        daemon.signal(signal.SIGHUP)
        daemon.wait_for(says)
    agent.wait_for("connected to the collector", count=2)
    lab.blast(COUNT)
    assert agent.stop() == 0 and collector.stop() == 0
    assert agent.total("committed", "ps1", "ingress") == COUNT


def an_agent_of_another_user_needs_no_more_than_three_capabilities(lab):
    collector = lab.collector()
    uid = 54321
    os.chmod(lab.dir, 0o755)
    os.mkdir(lab.path("spool"))
    for name in ("spool", "pki/agent.key"):
        os.chown(lab.path(name), uid, uid)
    os.chmod(lab.path("pki"), 0o755)
    agent = lab.agent(f"spool:\n  path: {lab.path('spool')}\n  mode: always\n",
                      wrap=harness.as_user(uid))
    filtered(agent)
    for status in threads(agent):
        assert caps(status, "Eff") == THREE and status["Uid"].split()[0] == str(uid), status
        assert caps(status, "Amb") == 0 and status["NoNewPrivs"].strip() == "1", status
    lab.blast(COUNT)
    lab.veth(lab.tx, "peer0", lab.rx, "late0")
    assert agent.stop() == 0 and collector.stop() == 0
    assert agent.total("committed", "ps1", "ingress") == COUNT
    assert {d["verdict"] for d in agent.ledgers() + collector.ledgers()} == {"complete"}


def a_spool_of_somebody_elses_goes_on_working(lab):
    """Root without CAP_DAC_OVERRIDE could not make a file in it: the capability stays."""
    os.mkdir(lab.path("spool"), 0o700)
    os.chown(lab.path("spool"), 12345, 12345)
    agent = lab.agent(f"spool:\n  path: {lab.path('spool')}\n  mode: always\n  maxBytes: 16MB\n"
                      "  segmentBytes: 64KB\n  minFree: 0\n")
    filtered(agent)
    assert f'CAP_DAC_OVERRIDE for "{lab.path("spool")}", which is somebody else\'s' in agent.text()
    for status in threads(agent):
        assert caps(status, "Eff") == THREE | 1 << DAC_OVERRIDE, status

    def segments():
        return len([n for d, _, names in os.walk(lab.path("spool")) for n in names])
    before, sent = segments(), 0

    def new_files():
        nonlocal sent
        sent += lab.blast(2000, 1000)
        return segments() > before + 1
    harness.wait_until("new files in the spool", new_files, 20)
    collector = lab.collector()
    assert agent.stop() == 0 and collector.stop() == 0
    assert agent.total("committed", "ps1", "ingress") == sent == agent.total("seen", "ps1", "ingress")


def answer(query):
    """127.0.0.1 for an A record, nothing for the rest."""
    name = query[12:query.index(b"\0", 12) + 5]
    kind, = struct.unpack(">H", name[-4:-2])
    records = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + bytes([127, 0, 0, 1])
    return (query[:2] + struct.pack(">HHHHH", 0x8180, 1, kind == 1, 0, 0) + name +
            (records if kind == 1 else b""))


@contextlib.contextmanager
def name_server(lab):
    folder = f"/etc/netns/{lab.rx}"
    os.makedirs(folder)
    with open(f"{folder}/resolv.conf", "w") as f:
        f.write("nameserver 127.0.0.53\n")
    s = harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.53", 53))
    asked = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                query, who = s.recvfrom(512)
                if not query:
                    return
                asked.append(query)
                s.sendto(answer(query), who)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        with harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", ("127.0.0.53", 53))
        thread.join()
        s.close()
        os.remove(f"{folder}/resolv.conf")
        os.rmdir(folder)


def a_name_server_is_asked(lab):
    with name_server(lab) as asked:
        lab.pki("collector.test")
        collector = lab.collector()
        agent = lab.agent(host="collector.test")
        agent.wait_for("connected to the collector")
        assert any(b"collector" in query for query in asked), asked
        lab.blast(COUNT)
        assert agent.stop() == 0 and collector.stop() == 0
        assert agent.total("committed", "ps1", "ingress") == COUNT


def watches(daemon):
    """Inodes of the folders that it has an inotify watch on."""
    found = set()
    for fd in os.listdir(f"/proc/{daemon.pid}/fdinfo"):
        with contextlib.suppress(OSError), open(f"/proc/{daemon.pid}/fdinfo/{fd}") as f:
            found.update(int(ino, 16) for ino in re.findall(r"^inotify wd:\d+ ino:(\w+)", f.read(), re.M))
    return found


def namespaces_of_processes_are_found_by_links(lab):
    """In a folder that is watched, and of a process that has more rights than the agent keeps."""
    folder = lab.path("links")
    guest = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        agent = lab.agent(f"netns: ['{folder}/*']\n", output=lab.path("x.pcap"))
        os.mkdir(folder)
        filtered(agent)
        for status in threads(agent):
            assert caps(status, "Eff") == THREE | 1 << SYS_ADMIN | 1 << SYS_PTRACE, status
        harness.wait_until("a watch", lambda: os.stat(folder).st_ino in watches(agent))
        harness.wait_until("its namespace", lambda: os.stat(f"/proc/{guest.pid}/ns/net").st_ino !=
                           os.stat("/proc/self/ns/net").st_ino)
        os.symlink(f"/proc/{guest.pid}/ns/net", f"{folder}/guest")
        agent.wait_for(f'capturing in namespace .* \\("{folder}/guest"')
        assert agent.stop() == 0
    finally:
        guest.kill()
        guest.wait()


def without_a_sandbox_all_is_kept(lab):
    collector, agent = lab.collector("sandbox: false\n"), lab.agent("sandbox: false\n")
    with open("/proc/self/status") as f:
        mine = int(re.search(r"CapEff:\s*(\w+)", f.read())[1], 16)
    for daemon in (collector, agent):
        assert "sandbox is false: all rights and system calls are kept" in daemon.text()
        for status in threads(daemon):
            assert caps(status, "Eff") == mine and status["NoNewPrivs"].strip() == "0", status
            assert status["Seccomp"].strip() == "0", status
    assert agent.stop() == 0 and collector.stop() == 0


if __name__ == "__main__":
    harness.main([
        every_thread_of_both_daemons_is_confined,
        an_interface_that_comes_later_is_captured,
        credentials_of_root_alone_are_read_again,
        an_agent_of_another_user_needs_no_more_than_three_capabilities,
        a_spool_of_somebody_elses_goes_on_working,
        a_name_server_is_asked,
        namespaces_of_processes_are_found_by_links,
        without_a_sandbox_all_is_kept])
