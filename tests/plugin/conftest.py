"""What the tests of the plugin need around them."""

from __future__ import annotations

from procvm._base.optional import numpy_or_none

# pytester puts sys.modules back as it was: numpy, loaded within one of its runs, would be
# forgotten and loaded a second time by a later test, which it does not survive whole.
numpy_or_none()
