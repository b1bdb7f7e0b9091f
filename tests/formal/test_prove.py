"""`python -m tern_hw.prove`: what it prints and returns, and verdicts that are none."""

import dataclasses
import json

import pytest

from tern_hw.errors import TernError
from tern_hw.flows.smt import Method
from tern_hw.formal.harness import emitted_verilog
from tern_hw.formal.properties import properties
from tern_hw.prove import main

GATE = next(each for each in properties() if each.block == "packet gate")


def test_list_names_every_property(capsys):
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(properties())


def test_report_tells_how_each_was_decided(capsys):
    assert main(["--only", "packet*", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert (line["holds"], line["proof"], line["method"]) == (True, True, "proof: PDR")
    assert main(["--only", "packet*"]) == 0
    assert "holds" in capsys.readouterr().out


def test_given_verilog_is_looked_at_and_leaves_a_trace(capsys, tmp_path):
    text = emitted_verilog(GATE.build())
    path = tmp_path / "gate.v"
    path.write_text(text.replace("tlast != \\final", "tlast & \\final"))
    assert path.read_text() != text
    options = ["--only", "packet*", "--verilog", str(path), "--traces", str(tmp_path / "traces")]
    assert main(options) == 1
    assert "FAILS" in capsys.readouterr().out
    assert "$enddefinitions" in (tmp_path / "traces" / "packet_gate.vcd").read_text()


def test_an_induction_that_does_not_close_is_no_verdict():
    verdict, _ = dataclasses.replace(GATE, method=Method.INDUCTION, cycles=2).decide()
    assert verdict.holds is None
    assert verdict.trace == ""


def test_unknown_block_is_refused():
    with pytest.raises(TernError, match="--only must match a block, not 'nothing'"):
        main(["--only", "nothing"])
