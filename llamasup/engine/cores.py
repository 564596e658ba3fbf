"""How children that compute on the CPU share its cores. Pure.

An engine has a thread for each core, and at every step of a token they wait for each other. They
spin while they wait. If two children compute at once, the threads that spin keep the cores from
those that are waited for: on two cores, two children wrote 0.4 tokens a second each. With threads
that sleep while they wait they wrote 42, and with a single thread each 7 to 25. So children that
may have company sleep, and the system shares the cores among those that compute at the moment.

The other ways were worse: a fixed share of the cores leaves the rest idle when one child computes
alone, and to restart the first child when a second one comes costs it its cache. A child that is
always alone spins, as engines do by themselves: on an idle machine that is faster.

OpenMP's runtime (of GNU or LLVM) is told so. An engine that was built without OpenMP does not hear
it: there `threads` has to be set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from llamasup.config.schema import Config, ModelSettings

_SLEEP: Final = {"OMP_WAIT_POLICY": "passive"}
_SPIN: Final[Mapping[str, str]] = {}


def sharing(config: Config, model: ModelSettings) -> Mapping[str, str]:
    """What an engine's environment says about the cores, unless the operator says something else.

    Who sets `threads` has shared out the cores by hand.
    """
    may_have_company = len(config.models) > 1 or bool(config.discover.folders)
    if model.threads == "auto" and may_have_company and config.pool.max_loaded_models != 1:
        return _SLEEP
    return _SPIN
