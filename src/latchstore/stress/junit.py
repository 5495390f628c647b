"""Writes the verdicts of a run as JUnit XML, for build servers."""

from __future__ import annotations

import os
from xml.etree import ElementTree

from latchstore.stress.escaping import visible
from latchstore.stress.result import Result


def write_junit(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a test case for each checker of each workload, and one for all other problems."""
    suite = ElementTree.Element("testsuite", name="latchstore stress", time=f"{result.seconds:.3f}")
    for workload, checks in result.verdicts.items():
        for check, verdict in checks.items():
            case = ElementTree.SubElement(suite, "testcase", classname=visible(workload), name=check)
            if verdict.answer != "valid":
                kind = "failure" if verdict.answer == "invalid" else "error"
                _add(case, kind, verdict.answer, f"{verdict.reason}\nagain: {result.command}")
    case = ElementTree.SubElement(suite, "testcase", classname="run", name="no deadlock, no crash")
    for problem in result.problems:
        kind = "failure" if result.answer == "invalid" else "error"
        _add(case, kind, problem.kind, f"{problem.text}\nagain: {result.command}")
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("errors", str(sum(case.find("error") is not None for case in cases)))
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _add(case: ElementTree.Element, kind: str, message: str, text: str) -> None:
    # The library escapes markup only, but parsers reject some other characters.
    ElementTree.SubElement(case, kind, message=message).text = visible(text)
