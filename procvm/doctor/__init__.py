"""Checks every way in which access can fail, on this machine or for one process.

Each verdict comes from a file or a system call, which the evidence names with its value. If a check
has no answer, its evidence says "not known". Calls are tried on a child; the process in question
is opened and read, but never stopped.
"""

from procvm.doctor.examination import examine
from procvm.doctor.finding import Finding, Verdict
from procvm.doctor.verdict import verdict_on

__all__ = ["Finding", "Verdict", "examine", "verdict_on"]
