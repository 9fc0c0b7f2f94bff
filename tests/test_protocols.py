"""RESP2 and RESP3, with hiredis and without, asyncio and blocking: the same results."""

import subprocess
import sys
from pathlib import Path

PROBE = Path(__file__).with_name("protocol_probe.py")


def test_all_protocols_and_parsers_agree(server, key):
    """Every combination prints the same results and the same errors."""
    printed = {}
    for protocol in ("2", "3"):
        for hiredis in ("with", "without"):
            name = f"{key}:{protocol}:{hiredis}"
            ended = subprocess.run(
                [sys.executable, "-W", "error", PROBE, server.url, name, protocol, hiredis],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 0, ended.stderr
            for part in ended.stdout.split("--- ")[1:]:
                flavour, _, results = part.partition("\n")
                printed[protocol, hiredis, flavour] = results
    assert len(printed) == 8
    reference = printed["2", "with", "asyncio"]
    assert "'n': 1180591620717411303424" in reference
    assert "GroupNotFoundError" in reference
    assert {name: text for name, text in printed.items() if text != reference} == {}
