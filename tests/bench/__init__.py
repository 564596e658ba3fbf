"""What it costs to stand in between: llamasup measured beside nginx and beside nothing.

Run `python -m tests.bench` from the repository's root; README.md says what the figures mean.

    upstream.py   the canned engine: a llama-server that only recites bytes, never the bottleneck
    clients.py    the load: what each client process does
    proxies.py    the ways to the engine (direct, nginx, llamasup), started and stopped
    meters.py     what a process costs: CPU, memory, wakeups
    placing.py    which CPU they run on while latency is measured
    measures.py   the measurements, one function each
    cold.py       the cold start, beside the same engine started by hand
    swap.py       one model for another, beside the same done by hand
    decisions.py  the time of the pool's decisions, in this very process
    reading.py    the time that reading headers, logs and folders takes, likewise
    report.py     figures, targets, the table and the JSON
    __main__.py   the command line
"""
