# SPDX-License-Identifier: Apache-2.0
"""The peer of `make bench-path`: the same service as a plain Python pipeline.

SMTP in by aiosmtpd, DKIM by dkimpy with the DNS answered from a zone file by a function, registered senders and the
latest vehicle states in dicts, SMTP out by aiosmtplib over connections that stay open. One process, one asyncio loop.
No journal, no fsync, no SPF, no DMARC, no ledger, no ROS: the 250 promises nothing that survives the process.

Usage: peer.py ZONE_FILE SINK_PORT SENDER...
"""

import asyncio
import email
import email.policy
import email.utils
import re
import shlex
import signal
import sys
from email.message import EmailMessage

import aiosmtplib
import dkim
from aiosmtpd.smtp import SMTP

POSTHORN = "posthorn@fleet.example"
# Answers under way at once, each over its own connection.
WORKERS = 4
# The same three vehicles as posthorn's fleet_simulator.
VEHICLES = {
    f"truck_{n}": {"latitude": 53.5 + n / 1000, "longitude": 9.9 + n / 1000, "speed": 1.5 * n} for n in (1, 2, 3)
}


def read_zone(path):
    """TXT records of a zone file of $ORIGIN and `name TXT "…" "…"` lines, by full name."""
    records, origin = {}, b""
    with open(path, encoding="ascii") as lines:
        for line in lines:
            words = shlex.split(line)
            if words[:1] == ["$ORIGIN"]:
                origin = words[1].encode()
            elif words[1:2] == ["TXT"]:
                name = origin if words[0] == "@" else words[0].encode() + b"." + origin
                records[name] = "".join(words[2:]).encode()
    return records


class Pipeline:
    """Mails are queued at their 250, as posthorn judges them after its own; workers judge and answer them."""

    def __init__(self, records, senders):
        self.records, self.senders = records, set(senders)
        self.queue = asyncio.Queue()

    async def handle_DATA(self, _server, _session, envelope):
        self.queue.put_nowait(envelope.original_content)
        return "250 OK"

    def answer(self, data):
        """The answer to a mail that is signed by the domain of a registered sender, else None."""
        signature = dkim.DKIM(data)
        if not signature.verify(dnsfunc=lambda name, timeout=5: self.records.get(name)):
            return None
        mail = email.message_from_bytes(data, policy=email.policy.default)
        _, sender = email.utils.parseaddr(mail["From"])
        if sender not in self.senders or sender.rpartition("@")[2].encode() != signature.domain:
            return None
        asked = re.search(r"where is (\w+)", mail.get_content())
        state = VEHICLES.get(asked[1]) if asked else None
        if state is None:
            return None
        reply = EmailMessage()
        reply["From"], reply["To"], reply["Subject"] = POSTHORN, sender, f"Re: {mail['Subject']}"
        reply["In-Reply-To"] = reply["References"] = mail["Message-ID"]
        reply["Date"], reply["Message-ID"] = email.utils.localtime(), email.utils.make_msgid(domain="fleet.example")
        position = f"{state['latitude']:.5f}, {state['longitude']:.5f}"
        reply.set_content(f"{asked[1]}\n\nPosition: {position}\nSpeed: {state['speed']:.1f} m/s\n")
        return reply

    async def work(self, sink_port):
        sink = aiosmtplib.SMTP(hostname="127.0.0.1", port=sink_port, start_tls=False)
        await sink.connect()
        while True:
            reply = self.answer(await self.queue.get())
            if reply is not None:
                await sink.send_message(reply)


async def main():
    zone, sink_port, *senders = sys.argv[1:]
    pipeline = Pipeline(read_zone(zone), senders)
    workers = [asyncio.create_task(pipeline.work(int(sink_port))) for _ in range(WORKERS)]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(pipeline, loop=loop), "127.0.0.1", 0)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    host, port = server.sockets[0].getsockname()
    print(f"listening address={host}:{port}", file=sys.stderr, flush=True)
    stop = asyncio.create_task(ended.wait())
    done, _ = await asyncio.wait([stop, *workers], return_when=asyncio.FIRST_COMPLETED)
    for task in done - {stop}:
        task.result()
    for worker in workers:
        worker.cancel()
    server.close()


asyncio.run(main())
