"""A small DNS server: `python dns_server.py`, then `dig @127.0.0.1 -p 5300 www.example A`.

It needs dnslib: `pip install everserve[examples]`.
"""

from dnslib import AAAA, QTYPE, RCODE, RR, TXT, A, DNSError, DNSRecord  # type: ignore[import-untyped]

import everserve

ZONE = {
    "www.example.": {"A": A("192.0.2.1"), "AAAA": AAAA("2001:db8::1")},
    "about.example.": {"TXT": TXT("served by everserve")},
}


class Answer(everserve.DatagramRequestHandler):
    def handle(self) -> None:
        try:
            query = DNSRecord.parse(self.packet)
        except DNSError:
            return  # no question: no answer
        reply = query.reply()
        records = ZONE.get(str(query.q.qname).lower())
        if records is None:
            reply.header.rcode = RCODE.NXDOMAIN
        elif (kind := QTYPE[query.q.qtype]) in records:
            reply.add_answer(RR(query.q.qname, query.q.qtype, ttl=60, rdata=records[kind]))
        self.wfile.write(reply.pack())


if __name__ == "__main__":
    everserve.serve(Answer, "udp://127.0.0.1:5300", concurrency="serial")
