#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A short form of `make chaos`: see chaos.py. PS_SEED repeats a run."""
import os
import random

import chaos
import harness

SEED = int(os.environ.get("PS_SEED", random.randrange(1 << 32)))
RATE = 21000


def chaos_loses_and_repeats_nothing(lab):
    chaos.campaign(lab, 24, SEED, RATE, longest=2.5, pause=0.9)


def chaos_with_small_spools_loses_what_it_counts(lab):
    count = chaos.campaign(lab, 8, SEED, RATE, none_lost=False, longest=3, pause=0.6,
                           **chaos.SMALL)
    print(f"# {count.all_missing} packets are lost, and counted")


if __name__ == "__main__":
    harness.main([chaos_loses_and_repeats_nothing, chaos_with_small_spools_loses_what_it_counts],
                 any_kernel=True)
