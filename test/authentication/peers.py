# SPDX-License-Identifier: Apache-2.0
"""What pyspf, dkimpy and authheaders find out about mails. Reads a case a line as JSON and prints a line for each.

A case has the records of its DNS by name and type, and a mail with its envelope. DMARC is evaluated twice, with the public
suffix list (RFC 7489) and by tree walk (its successor).
"""

import base64
import functools
import json
import sys

import authheaders
import dkim
import spf
from authheaders import dmarc_lookup
from authres import DKIMAuthenticationResult, SPFAuthenticationResult


# It reads the list each time.
get_org_domain = functools.cache(dmarc_lookup.get_org_domain)


def records(zone: dict, name: str, kind: str) -> list:
    return zone.get(name.rstrip(".").lower(), {}).get(kind, [])


def spf_result(case: dict) -> str:
    def lookup(name, kind, *_, **__):
        found = records(case["zone"], str(name), kind)
        if kind == "TXT":
            return [((name, kind), (text.encode(),)) for text in found]
        return [((name, kind), (tuple(one) if kind == "MX" else one)) for one in found]

    spf.DNSLookup = lookup
    return spf.check2(i=case["ip"], s=case["mail_from"], h=case["helo"], querytime=0)[0]


def dkim_results(case: dict, mail: bytes) -> list:
    def txt(name, timeout=5):
        found = records(case["zone"], name.decode() if isinstance(name, bytes) else name, "TXT")
        return found[0].encode() if found else None

    results = []
    try:
        message = dkim.DKIM(mail)
        count = sum(name.lower() == b"dkim-signature" for name, _ in message.headers)
    except dkim.DKIMException:
        return []
    for place in range(count):
        message = dkim.DKIM(mail)
        try:
            passes = message.verify(place, dnsfunc=txt)
        except (dkim.DKIMException, ValueError, TypeError, KeyError, AttributeError, IndexError):
            passes = False
        results.append((bool(passes), (message.domain or b"").decode(errors="replace")))
    return results


def dmarc_result(case: dict, mail: bytes, spf_found: str, dkim_found: list, walks: bool) -> str:
    def txt(name, kind="TXT"):
        found = [text for text in records(case["zone"], str(name), "TXT") if text.lower().startswith("v=dmarc1")]
        return [[text.encode()] for text in found]

    def record(host, dnsfunc=None):
        answers = txt(f"_dmarc.{host}")
        return dmarc_lookup.answer_to_dict(answers[0][0].decode()) if answers else {}

    dmarc_lookup.lookup_receiver_record = record
    authheaders.check_psddmarc_list = lambda *_, **__: False
    dmarc_lookup.get_org_domain = authheaders.get_org_domain = get_org_domain
    domain = case["mail_from"].rpartition("@")[2] or case["helo"]
    spf_found = SPFAuthenticationResult(result=spf_found, smtp_mailfrom=f"x@{domain}")
    passing = [domain for passes, domain in dkim_found if passes] or [""]
    results = []
    for signer in passing:
        of_dkim = DKIMAuthenticationResult(result="pass" if signer else "fail", header_d=signer)
        try:
            results.append(authheaders.check_dmarc(mail, spf_found, of_dkim, dnsfunc=txt, dmarcbis=walks).result)
        except Exception as error:  # It raises for many kinds of malformed From.
            results.append(f"error: {type(error).__name__}")
    return "pass" if "pass" in results else results[0]


def main() -> None:
    for line in sys.stdin:
        case = json.loads(line)
        mail = base64.b64decode(case["mail"])
        spf_found, dkim_found = spf_result(case), dkim_results(case, mail)
        dmarc = [dmarc_result(case, mail, spf_found, dkim_found, walks) for walks in (False, True)]
        print(json.dumps({"spf": spf_found, "dkim": any(passes for passes, _ in dkim_found), "dmarc": dmarc}), flush=True)


if __name__ == "__main__":
    main()
