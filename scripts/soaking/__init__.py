"""The long races and storms that show what a hold promises; `scripts/soak` runs them.

A storm loads the machine, so its stops may take longer than the two seconds of the default.
"""

import procvm

procvm.Tracee.default_timeout = max(procvm.Tracee.default_timeout or 0.0, 60.0)
