#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What strangers send hurts nobody but themselves. In every test a good agent streams all
the while, and at the end its packets are all there and the collector is alive and small."""
import contextlib
import os
import random
import resource
import socket
import struct
import threading
import time
import zlib

import harness
import pcap
import psstream as ps
from checks import SIZE, check_complete, check_same, traffic

PLAIN = "tls:\n  enable: false\n"
GUEST = bool(os.environ.get("PS_GUEST"))
STREAMS = 1500 if GUEST else 10000
MAX_SESSIONS = 64
MAX_PAYLOAD = MAX_RAW = 4 << 20
with open(harness.COLLECTOR, "rb") as f:
    SANITIZED = b"__asan_init" in f.read()


def memory(daemon):
    """The most that the daemon ever had, in MiB."""
    with open(f"/proc/{daemon.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:")) / 1024


def processor(daemon):
    """Seconds of processor time that the daemon had so far."""
    with open(f"/proc/{daemon.pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def good_agent(lab, mib=64, count=6000, pps=3000, extra="", tls=PLAIN):
    """An agent with traffic beside what the test does; @mib: what the collector may take."""
    collector = lab.collector(f"maxSessions: {MAX_SESSIONS}\n{extra}", tls=tls)
    agent = lab.agent("ringSize: 8MB\n", tls=tls)
    agent.wait_for("connected to the collector")
    with traffic(lab, count, pps):
        yield collector
    assert collector.proc.poll() is None, collector.text()[-2000:]
    assert agent.stop() == 0
    most = memory(collector)
    assert collector.stop() == 0
    ours = [x for x in collector.ledgers() if x["agent"] == "agent"]
    assert ours and {x["verdict"] for x in ours} == {"complete"}
    check_complete(agent)
    check_same(agent, collector)
    good = [struct.unpack("<Q", p.data[42:50])[0] for p in pcap.read(lab.path("dump.pcap")).packets
            if len(p.data) == SIZE and p.data[26:34] == bytes([192, 0, 2, 1, 192, 0, 2, 2])]
    assert good == list(range(count)), f"{len(good)} of {count} packets"
    print(f"# the collector took {most:.0f} MiB at most")
    assert SANITIZED or most < mib, f"{most} MiB"


def connect(lab):
    s = harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(30 * harness.PATIENCE)
    s.connect(("127.0.0.1", 8081))
    return s


def answer(s):
    """Everything until the collector closes."""
    out = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            data = s.recv(65536)
            if not data:
                break
            out += data
    return out


def talk(lab, stream):
    """Send the stream, hang up, and return the answer in messages."""
    with connect(lab) as s:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            s.sendall(stream)
            s.shutdown(socket.SHUT_WR)
        raw = answer(s)
    messages = ps.parse(raw)
    assert sum(ps.HEADER + len(p) for _, p in messages) == len(raw), "an answer is torn"
    assert all(k in (ps.WELCOME, ps.ERROR, ps.ACK, ps.PONG, ps.BYE) for k, _ in messages)
    return messages


def refusal(messages):
    """The sentence of the ERROR at the end."""
    assert messages and messages[-1][0] == ps.ERROR, [k for k, _ in messages]
    return ps.fields(messages[-1][1])[3].decode()


# Streams that begin well, and what may become of them.

def guest_packet(rng):
    return b"GUEST" + rng.randbytes(rng.randrange(0, 120))


def guest_blocks(rng, n=5):
    packets = [guest_packet(rng) for _ in range(n)]
    return ([ps.block(1, p, option=ps.offload() if i % 2 else b"") for i, p in enumerate(packets)],
            sum(map(len, packets)))


def guest_messages(rng, blocks=None):
    """All types of messages; packets are of a link type that goes to a file of its own."""
    iface = ps.interface(1, b"guest0", ps.LINK_RAW)
    blocks, size = blocks or guest_blocks(rng)
    more, more_size = guest_blocks(rng, 2)
    parts = [(1, 1, [(c, 7, 700) for c in range(14)])]
    return [ps.hello(rng.randbytes(16), epoch=rng.randrange(1 << 60), interfaces=[iface]),
            ps.meta(1, 2, b"guest1", ps.LINK_RAW, more=ps.how_captured()),
            ps.data(2, b"".join(blocks), len(blocks), size), ps.ping(), ps.stats(3, parts),
            ps.gap(4, 6, [(1, 1, 3, 300)]), ps.data(7, b"".join(more), len(more), more_size),
            ps.note(8, b"host 192.0.2.1", iface=2), ps.bye(8)]


def damage(rng, data, times):
    out = bytearray(data)
    for _ in range(times):
        if not out:
            break
        at = rng.randrange(len(out))
        kind = rng.randrange(5)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice((0, 1, 0x7f, 0x80, 0xff))
        elif kind == 2:
            del out[at:at + rng.randrange(1, 9)]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            word = rng.choice((0, 1, 0xff, 0x7fffffff, 0xffffffff, rng.randrange(1 << 32)))
            out[at:at + 4] = struct.pack("<I", word)
    return bytes(out)


def resealed(rng, raw):
    """A message whose payload or header was changed, with checksums that fit."""
    head, payload = bytearray(raw[:ps.HEADER]), raw[ps.HEADER:]
    if rng.random() < 0.7:
        payload = damage(rng, payload, rng.randrange(1, 4))
        head[8:12] = struct.pack("<I", len(payload))
        head[24:28] = struct.pack("<I", zlib.crc32(payload))
    else:
        head = bytearray(damage(rng, head, 1)[:28].ljust(28, b"\0"))
    return bytes(head[:28]) + struct.pack("<I", zlib.crc32(bytes(head[:28]))) + payload


def other_blocks(rng):
    blocks, size = guest_blocks(rng)
    at = rng.randrange(len(blocks))
    blocks[at] = damage(rng, blocks[at], rng.randrange(1, 3))
    return blocks, size


def hostile_stream(rng):
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(0, 2000))
    if kind == 1:
        return b"PS\x01" + rng.randbytes(rng.randrange(0, 200))
    messages = guest_messages(rng, other_blocks(rng) if kind == 2 else None)
    if kind == 3:
        stream = b"".join(messages)
        return stream[:rng.randrange(len(stream))]
    if kind == 4:
        return damage(rng, b"".join(messages), rng.randrange(1, 6))
    if kind in (5, 6):
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(len(messages))
            messages[at] = resealed(rng, messages[at])
    elif kind == 7:
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(messages))
            messages.insert(rng.randrange(len(messages)), rng.choice((
                messages[at], messages.pop(at), rng.choice(guest_messages(rng)))))
    return b"".join(messages)


def a_stranger_that_keeps_to_the_rules_is_served(lab):
    """Otherwise the streams below would prove nothing."""
    rng = random.Random(1)
    with good_agent(lab):
        messages = guest_messages(rng)
        got = talk(lab, b"".join(messages))
        assert [k for k, _ in got if k != ps.ACK] == [ps.WELCOME, ps.PONG, ps.BYE], got
        # One byte at a time is a way to keep to them too.
        with connect(lab) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"".join(guest_messages(rng)):
                s.send(bytes([byte]))
            s.shutdown(socket.SHUT_WR)
            assert [k for k, _ in ps.parse(answer(s)) if k != ps.ACK] == \
                [ps.WELCOME, ps.PONG, ps.BYE]
    guests = pcap.read(lab.path("dump.raw.pcap"))
    assert guests.link_type == ps.LINK_RAW and len(guests.packets) == 14
    assert all(p.data.startswith(b"GUEST") for p in guests.packets)


def random_and_mutated_streams_are_survived(lab):
    done, wrong = [], []

    def work(seed, n):
        rng = random.Random(seed)
        try:
            for _ in range(n):
                done.append([k for k, _ in talk(lab, hostile_stream(rng))])
        except Exception as e:
            wrong.append(e)

    with good_agent(lab, mib=96, count=30000) as collector:
        workers = [threading.Thread(target=work, args=(seed, STREAMS // 4)) for seed in range(4)]
        for w in workers:
            w.start()
        for w in workers:
            w.join()
        assert collector.proc.poll() is None, collector.text()[-3000:]
    assert not wrong, wrong
    welcome = sum(ps.WELCOME in kinds for kinds in done)
    refused = sum(ps.ERROR in kinds for kinds in done)
    print(f"# {len(done)} streams: {welcome} were let in, {refused} refused")
    assert len(done) == STREAMS // 4 * 4 and min(welcome, refused) > STREAMS // 8
    for name in os.listdir(lab.dir):
        if name.endswith(".pcap"):
            pcap.read(lab.path(name))


def bombs_and_lengths_that_lie_are_refused(lab):
    rng = random.Random(2)
    start = guest_messages(rng)[0]
    raw = b"".join(guest_blocks(rng)[0])
    zeros = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(256)) + zeros.flush()
    head = ps.data_head(5, 500)
    cases = [
        (ps.data(1, raw, 5, 500, body=bomb, raw_len=MAX_RAW), "256 MiB where 4 are declared"),
        (ps.data(1, raw, 5, 500, body=bomb, raw_len=44), "256 MiB instead of a packet"),
        (ps.data(1, raw, 5, 500, body=ps.gzipped(raw) * 2), "two members"),
        (ps.data(1, raw, 5, 500, body=ps.gzipped(raw) + b"x"), "something after the member"),
        (ps.data(1, raw, 5, 500, body=ps.gzipped(raw)[:-1]), "a member without its end"),
        (ps.data(1, raw, 5, 500, raw_len=len(raw) - 1), "a byte more than declared"),
        (ps.data(1, raw, 5, 500, raw_len=len(raw) + 1), "a byte less than declared"),
        (ps.data(1, raw, 5, 500, body=b""), "no member"),
        (ps.data(1, raw, 4, 500), "a packet more than declared"),
        (ps.data(1, b"", 1, 0), "no packet"),
        (ps.header(ps.DATA, 0xffffffff, 0, seq=1, raw_len=44), "4 GiB to come"),
        (ps.header(ps.DATA, MAX_PAYLOAD + 1, 0, seq=1, raw_len=44), "a byte above the limit"),
        (ps.header(ps.DATA, 100, 0, seq=1, raw_len=0xffffffff), "4 GiB inflated"),
        (ps.header(ps.META, (1 << 20) + 1, 0, seq=1), "a META of more than a MiB"),
        (ps.message(99, b"x"), "a type that nobody knows"),
        (ps.message(ps.META, ps.interface(1), seq=3), "a hole"),
        (ps.note(1, b"x" * 1025), "a note that is too long"),
        (ps.note(1, b"two\nlines"), "a note of two lines"),
        (ps.message(ps.NOTE, ps.note(1, b"x")[ps.HEADER:-5], seq=1), "a note without a text"),
        (ps.meta(1, 2, more=ps.how_captured(text=b"x" * 1025)), "a filter that is too long"),
        (ps.gap(1, 0), "a gap that ends before it begins"),
        (ps.gap(1, (1 << 64) - 1), "a gap of everything"),
        (ps.message(ps.DATA, head + ps.gzipped(ps.block(9, b"x")), seq=1, raw_len=48),
         "an interface that was never described"),
    ]
    cases += [(ps.message(ps.DATA, ps.data_head(1, 1, 1, 1) + ps.gzipped(
        ps.block(1, b"x", option=option)), seq=1, raw_len=48 + len(option)), what)
        for option, what in (
            (ps.offload(pen=1), "an option of somebody else"),
            (ps.offload(version=2), "a newer version of the option"),
            (ps.offload(csum=3), "an unknown checksum state"),
            (ps.offload() * 2, "the option twice"),
            (struct.pack("<HH4sHH4s", 1, 4, b"text", 1, 4, b"text"), "comments"))]
    with good_agent(lab):
        for message, what in cases:
            said = refusal(talk(lab, start + message))
            assert said, what
        for first in (ps.header(ps.HELLO, 0xffffffff, 0), ps.ping(), b"GET / HTTP/1.1\r\n\r\n" * 3,
                      ps.message(ps.HELLO, version=9), ps.hello(bytes(16), first=5, following=2),
                      ps.hello(bytes(16), interfaces=[ps.interface(i) for i in range(4097)])):
            refusal(talk(lab, first))
    assert not os.path.exists(lab.path("dump.raw.pcap")), "a message was written in part"


def an_agent_that_talks_all_the_time_does_not_fill_the_log(lab):
    rng, text = random.Random(12), "tcp port 443 " * 70
    with good_agent(lab) as collector:
        begin = time.monotonic()
        got = talk(lab, guest_messages(rng)[0] + b"".join(
            ps.note(seq, text.encode()) for seq in range(1, 5001)) + ps.bye(5000))
        assert [k for k, _ in got if k != ps.ACK] == [ps.WELCOME, ps.BYE], got
        lines, took = collector.text().count(text), time.monotonic() - begin
        assert 1 <= lines <= 100 + took + 1, f"{lines} lines in {took} s"

        # Others are heard all the same, once the second is over in which all lines were used.
        def heard():
            talk(lab, guest_messages(rng)[0] + ps.note(1, b"and me") + ps.bye(1))
            return "and me" in collector.text()
        harness.wait_until("another one to be heard", heard)


def closes(s, seconds):
    """Does the collector hang up within that time?"""
    s.settimeout(seconds * harness.PATIENCE)
    try:
        answer(s)
    except TimeoutError:
        return False
    return True


def connections_that_say_nothing_are_ended(lab):
    rng = random.Random(3)
    hello = guest_messages(rng)[0]
    with good_agent(lab, count=36000):
        begin = time.monotonic()
        silent = [connect(lab) for _ in range(20)]
        half = [connect(lab) for _ in range(20)]
        for s in half:
            s.sendall(hello[:rng.randrange(1, len(hello))])
        assert all(closes(s, 15) for s in silent + half)
        took = time.monotonic() - begin
        assert 9 < took < 12 * harness.PATIENCE, f"{took} s"
        for s in silent + half:
            s.close()


def more_connections_than_places_are_turned_away(lab):
    """All of them from one address, which gets a part of the places before HELLO."""
    with good_agent(lab, count=12000) as collector:
        crowd = [connect(lab) for _ in range(4 * MAX_SESSIONS)]
        gone = sum(closes(s, 0.02) for s in crowd)
        assert gone >= 3 * MAX_SESSIONS, gone
        collector.wait_for("have not said HELLO")
        for s in crowd:
            s.close()
        # The places are free again.
        harness.wait_until("a stranger to be let in", lambda: ps.WELCOME in [
            k for k, _ in talk(lab, b"".join(guest_messages(random.Random(4))))])


def more_agents_than_sessions_are_told_to_come_back(lab):
    rng = random.Random(11)
    with good_agent(lab, count=12000):
        crowd = []
        for _ in range(MAX_SESSIONS - 1):
            crowd.append(connect(lab))
            crowd[-1].sendall(guest_messages(rng)[0])
            assert ps.parse(crowd[-1].recv(65536))[0][0] == ps.WELCOME
        said = refusal(talk(lab, guest_messages(rng)[0]))
        assert "maxSessions" in said, said
        for s in crowd:
            s.close()


class Flood:
    """Connections that begin a handshake and leave it at that, as many as there may be."""

    def __init__(self, lab, start, sources):
        self.lab, self.start, self.sources = lab, start, sources
        self.made = self.open_at_most = 0
        self.held = []

    def run(self, number):
        """So many, of which those stay that the collector does not close."""
        for n in range(number):
            s = harness.make_socket(self.lab.rx, socket.AF_INET, socket.SOCK_STREAM)
            s.bind((self.sources[n % len(self.sources)], 0))
            s.settimeout(5 * harness.PATIENCE)
            with contextlib.suppress(ConnectionError, TimeoutError):
                s.connect(("127.0.0.1", 8081))
                s.setblocking(False)
                s.send(self.start)
            self.held.append(s)
            self.made += 1
            if not self.made % 500:
                self.sweep()

    def sweep(self):
        """Let go of those that were closed; how many are left."""
        self.open_at_most = max(self.open_at_most, len(self.held))
        left = []
        for s in self.held:
            try:
                if s.recv(65536):
                    left.append(s)
                    continue
            except BlockingIOError:
                left.append(s)
                continue
            except OSError:
                pass
            s.close()
        self.held = left
        return len(left)

    def close(self):
        for s in self.held:
            s.close()


# A TLS record that announces 512 bytes of ClientHello, and its first ones.
HALF_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(20)


def half_open_handshakes(lab, sources, newcomer):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = STREAMS
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], number + 1000),
                                                max(before[1], number + 1000)))
    flood = Flood(lab, HALF_HELLO, sources)
    try:
        with good_agent(lab, count=9000, tls=None) as collector:
            quiet = processor(collector)
            begin = time.monotonic()
            flood.run(number)
            took = time.monotonic() - begin
            if newcomer:
                # They do not keep an agent out that comes from elsewhere.
                begin = time.monotonic()
                agent = lab.agent("ringSize: 1MB\n", name="agent-new", interfaces="[nothing]")
                agent.wait_for("connected to the collector", 15)
                print(f"# a new agent was let in after {time.monotonic() - begin:.1f} s")
                assert agent.stop() == 0
            # Some have not been accepted yet. A wait of 3 s: none is let go for being slow.
            harness.wait_until("those that are too many to be closed",
                               lambda: flood.sweep() <= 2 * MAX_SESSIONS, 3 / harness.PATIENCE)
            used = processor(collector) - quiet
            print(f"# {flood.made} handshakes begun in {took:.1f} s from {len(sources)} addresses, "
                  f"{len(flood.held)} are held open; the collector took {used:.2f} s of processor")
            assert used < (took + 5) * harness.PATIENCE
    finally:
        flood.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def half_open_handshakes_from_one_address_are_bounded(lab):
    half_open_handshakes(lab, ["127.0.0.66"], True)


def half_open_handshakes_from_many_addresses_are_bounded(lab):
    half_open_handshakes(lab, [f"127.1.{i}.{j}" for i in range(4) for j in range(1, 251)], False)


def bombs_one_after_another_cost_little(lab):
    """Each inflates to all that it may, 4 MiB of what is no packet, or wants to go beyond."""
    zeros = ps.gzipped(bytes(MAX_RAW), 9)
    beyond = ps.gzipped(bytes(4 * MAX_RAW), 9)
    rng = random.Random(9)
    with good_agent(lab, count=6000) as collector:
        quiet, begin = processor(collector), time.monotonic()
        for n in range(400):
            start = guest_messages(rng)[0]
            refusal(talk(lab, start + ps.data(1, b"", 5, 500, body=beyond if n % 2 else zeros,
                                              raw_len=MAX_RAW)))
        used = processor(collector) - quiet
        print(f"# 400 bombs in {time.monotonic() - begin:.1f} s, {used:.2f} s of processor")
        assert used < 8 * harness.PATIENCE


def a_million_tiny_messages_are_taken_and_answered(lab):
    """Of one packet each, PINGs, and messages of a type that may be skipped, in one session."""
    total = 100000 if GUEST else 1000000
    rng = random.Random(10)
    raw = ps.block(1, b"GUEST")
    payload = ps.data_head(1, 5) + ps.gzipped(raw)
    check = zlib.crc32(payload)
    others = ps.ping() + ps.message(99, b"x", flags=1) * 2
    acked, room, kinds = 0, threading.Semaphore(0), {}

    def read(s):
        nonlocal acked
        left = b""
        with contextlib.suppress(OSError):
            while data := s.recv(1 << 18):
                left += data
                at = 0
                for kind, body in ps.parse(left):
                    at += ps.HEADER + len(body)
                    kinds[kind] = kinds.get(kind, 0) + 1
                    if kind == ps.ACK:
                        acked = struct.unpack("<Q", ps.fields(body)[1])[0]
                        room.release()
                left = left[at:]
        room.release()

    with good_agent(lab, mib=96, count=15000) as collector, connect(lab) as s:
        quiet, begin, before = processor(collector), time.monotonic(), memory(collector)
        reader = threading.Thread(target=read, args=(s,), daemon=True)
        reader.start()
        s.sendall(ps.hello(rng.randbytes(16), interfaces=[ps.interface(1, b"guest0", ps.LINK_RAW)]))
        seq = 0
        while seq < total // 4:
            batch = []
            for _ in range(1000):
                seq += 1
                batch.append(ps.header(ps.DATA, len(payload), check, seq=seq, raw_len=len(raw)))
                batch.append(payload)
                batch.append(others)
            s.sendall(b"".join(batch))
            while seq - acked > 20000 and reader.is_alive():
                room.acquire()
        s.sendall(ps.bye(seq))
        s.shutdown(socket.SHUT_WR)
        reader.join(60 * harness.PATIENCE)
        used = processor(collector) - quiet
        print(f"# {total} messages in {time.monotonic() - begin:.1f} s, {used:.2f} s of processor; "
              f"{memory(collector) - before:.1f} MiB more than before; answers {kinds}")
        assert kinds.get(ps.BYE) == 1 and ps.ERROR not in kinds, kinds
        assert acked == seq
    guests = os.path.getsize(lab.path("dump.raw.pcap"))
    assert guests == 24 + (16 + 5) * seq, guests


def many_large_messages_that_never_end_take_bounded_memory(lab):
    """Every session fills the buffer that its header declares, but for a byte."""
    rng = random.Random(6)
    body = bytes(MAX_PAYLOAD - 1)
    sessions = MAX_SESSIONS - 4
    budget = 64
    with good_agent(lab, mib=64 + budget, count=9000, extra="memoryBudget: 128MB\n") as collector:
        crowd = []
        for _ in range(sessions):
            crowd.append(connect(lab))
            s = crowd[-1]
            s.sendall(guest_messages(rng)[0])
            # One after the other: an address does not get all places before HELLO.
            assert ps.parse(s.recv(65536))[0][0] == ps.WELCOME
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                s.sendall(ps.header(ps.DATA, MAX_PAYLOAD, 0, seq=1, raw_len=MAX_RAW) + body)
        collector.wait_for("large messages of all agents have more than 64 MiB already")
        refused = 0
        for s in crowd[budget // 4:]:
            s.shutdown(socket.SHUT_WR)
            refused += b"large messages" in answer(s)
        assert refused == sessions - budget // 4, refused
        for s in crowd:
            s.close()


# Collectors that are none.

def serve(lab, port, stream):
    """Answer every agent's HELLO on the port with the stream, and then read on."""
    listener = harness.make_socket(lab.rx, socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()

    def run():
        with contextlib.suppress(OSError):
            while True:
                with contextlib.suppress(ConnectionError), listener.accept()[0] as s:
                    s.recv(65536)
                    s.sendall(stream)
                    answer(s)
    threading.Thread(target=run, daemon=True).start()
    return listener


def an_agent_survives_a_collector_that_lies(lab):
    rng, welcome = random.Random(8), ps.welcome()
    cases = {
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n": "answer cannot be read",
        rng.randbytes(4000): "answer cannot be read",
        ps.header(ps.WELCOME, 0xffffffff, 0): "",
        ps.welcome(resume=99): "wants message 99",
        ps.welcome(heartbeat_ms=0): "",
        ps.welcome() + ps.ack(1 << 40): "acknowledged 1099511627776",
        # Not a lie, but no bound is safe from it.
        ps.welcome(credit=(1 << 64) - 1) + ps.ack(0, (1 << 64) - 1) + ps.error(5, b"enough"):
            "enough",
        ps.welcome() + ps.message(ps.DATA, b"x", seq=1, raw_len=1): "unexpected DATA",
        ps.welcome() + damage(rng, ps.ack(0), 3): "",
        ps.error(3, b"busy \x1b[31m", 0): "",
        ps.ack(0): "ACK instead of WELCOME",
        ps.welcome() + 5000 * ps.ping(): "asks more than it takes answers",
        ps.welcome() + ps.message(ps.BYE, b"\0"): "",
        welcome[:-1] + bytes([welcome[-1] ^ 1]): "is damaged",
    }
    agents = []
    for n, stream in enumerate(cases):
        serve(lab, 9000 + n, stream)
        agents.append(lab.agent("ringSize: 1MB\nshutdownTimeout: 300ms\n", tls=PLAIN,
                                port=9000 + n, name=f"agent-{n}"))
    assert lab.blast(50) == 50
    for agent, says in zip(agents, cases.values()):
        agent.wait_for("no connection to the collector.*" + says)
        assert "\x1b" not in agent.text()
    for agent in agents:
        agent.signal(harness.signal.SIGTERM)
    for agent in agents:
        assert agent.stop() == 0, agent.text()
        assert (agent.total("captured"), agent.total("committed")) == (50, 0)


if __name__ == "__main__":
    harness.main([
        a_stranger_that_keeps_to_the_rules_is_served,
        random_and_mutated_streams_are_survived,
        bombs_and_lengths_that_lie_are_refused,
        an_agent_that_talks_all_the_time_does_not_fill_the_log,
        connections_that_say_nothing_are_ended,
        more_connections_than_places_are_turned_away,
        more_agents_than_sessions_are_told_to_come_back,
        half_open_handshakes_from_one_address_are_bounded,
        half_open_handshakes_from_many_addresses_are_bounded,
        bombs_one_after_another_cost_little,
        a_million_tiny_messages_are_taken_and_answered,
        many_large_messages_that_never_end_take_bounded_memory,
        an_agent_survives_a_collector_that_lies])
