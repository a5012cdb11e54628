"""Ask the assistant, print what was decided and by which rule, and keep the proof of the decision."""

from __future__ import annotations

import sys
from pathlib import Path

from genba_gateway.client import Client, Refused


def main(question: str, document: str = "") -> int:
    """Exit code 0 only for ALLOW. A document, if one is given, is what the answer may rest on."""
    with Client(timeout_s=120) as genba:
        if document:
            file = Path(document)
            try:
                genba.upload("/v1/llm/documents", file, content_type="text/plain", params={"title": file.stem})
            except Refused as refused:
                if refused.status != 409:  # it is there already
                    raise
        said = genba.request("POST", "/v1/llm/think", json={"text": question})
        decision = said["decision"]
        print(f"{decision['decision']} by {decision['policy_ref']}")
        print(said.get("answer") or "no answer")
        genba.download(f"/v1/llm/proof/{decision['id']}", Path("decision.proof"))
    return 0 if decision["decision"] == "ALLOW" else 1


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Refused as refused:
        sys.exit(str(refused))
