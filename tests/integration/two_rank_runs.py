"""Runs that two processes make one after another; started by torchrun from test_training_distributed.

Each argument is a JSON list of those of `training.train`.
"""

from __future__ import annotations

import json
import sys
from unittest.mock import patch

from training.distributed import Ranks
from training.train import main

if __name__ == "__main__":
    ranks = Ranks.from_environment()
    # torch hangs when it is to join a second time
    with patch.object(Ranks, "from_environment", lambda: ranks), patch.object(ranks, "leave"):
        codes = [main(json.loads(arguments)) for arguments in sys.argv[1:]]
    ranks.leave()
    sys.exit(max(codes))
