"""Faults on purpose, on real engines: is every request answered right or told clearly why not?

Run `python -m tests.chaos` from the repository's root; README.md says what the figures mean.

    subject.py    the llamasup that suffers: a real process, its log and its children
    load.py       clients that check every byte, and judge what they got
    faults.py     the catalogue of faults: a signal, and the moment at which it strikes
    campaign.py   many faults, in many lives of llamasup, with clients at work
    scenarios.py  what a signal cannot do: memory, disks, descriptors, files, llamasup's own death
    memory.py     engines that run out of memory, in a scenario's own order
    mixed.py      one long life under mixed load: do memory, descriptors and tasks stay flat?
    inside.py     llamasup's own program, which tells how many tasks it has
    report.py     the figures, the verdict, and how to repeat the run
    __main__.py   the command line
"""
