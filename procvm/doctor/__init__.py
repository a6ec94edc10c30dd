"""Every way in which access can fail on this machine, or for one process.

Nothing is guessed: a verdict comes from a file that was read or a call that was made, which the
evidence names with its value. What can not be known is said to be not known. Calls are tried on
a child made for that; the process that is asked about is opened and read, and never stopped.
"""

from procvm.doctor.examination import examine
from procvm.doctor.finding import Finding, Verdict

__all__ = ["Finding", "Verdict", "examine"]
