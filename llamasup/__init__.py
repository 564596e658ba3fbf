"""llamasup: one process that owns every llama-server child and answers for them on one port.

This page is the architecture: the words, the rooms, who owns whom, the way of a request, and the
decisions with their reasons.

Words
-----
model     a name that clients ask for
engine    the llama-server program: found on PATH, or embedded (from PyPI)
shelf     which models there are: those of the configuration, and those in its folders
roster    the same as the pool knows them, looked up on the shelf when it matters
rung      one way to launch a model (context, KV type, GPU layers)
ladder    a model's rungs, best first
child     one running llama-server, one incarnation
keeper    owns one model's children over time
footing   where a keeper stands on its model's ladder
pool      decides who gets which child; `async with pool.lease(model, work) as lease`
gate      where the requests for one model wait; its usher has a child loaded meanwhile
residency who has a place in memory, and who goes for whom
lease     one request's permission to use one child
relay     carries one request and its answer
front     the public listener
control   the operator's side: health, model list, what fits, status

Rooms
-----
Foundations first; each imports only from those before it (`tests/test_house.py` checks that):

    errors      every error that a client or an operator can meet
    states      the states of children and keepers, and what may follow what
    shortages   what a system may run short of, and as many descriptors as may be had
    logs        the one way to stderr, which holds nobody up; foreign words as plain text
    tending     tasks that fall: alone, or to begin again
    files       regular files, opened without waiting
    threads     worker threads: what may block, so that the loop waits for no disk
    ownership   whose a file or folder is, and so whether it is to be believed
    config/     llamasup.toml, environment and flags become a `Config`
    access/     who may come: web pages, and whoever has the operator's key
    sockets     raw non-blocking sockets: dial, send, receive
    programs    programs that are asked something, and may hang in a driver for ever
    models/     what GGUF files hold, which models folders hold, their names; the demo model
    memory/     the ladder; what a rung needs, by the formula; what memory there is
    state       what survives llamasup itself: the rungs that held, and what models took on them
    engine/     where the engine is, how it is called, what its words mean
    children/   processes: child, watchdog, keeper, its footing on the ladder, restarts, slots,
                what models need, and the marks that survive a kill -9
    pool/       who may be resident, who waits, leases; the roster of the models there are now;
                what fits
    front/      connections, requests, bodies, routes, claims, comfort, relay, replies
    control/    an ASGI app on Hypercorn, behind the front
    systemd, pid1   duties towards a service manager, and as a container's first process
    terminal    whether the one that we were started from is closed
    reload      follows the configuration while llamasup runs
    serve       opens everything in order, and closes it in order
    cli/        one file a command

Decisions are pure: log lines, failures, command lines, framing, heads and routes import no trio,
read no clock and open no file. They say what to do; the async rooms do it, and stay thin.

Who owns whom
-------------
    serve
    ├─ signals *
    ├─ children's nursery (outer: outlives the front)
    │   ├─ control: Hypercorn on a private Unix socket (again)
    │   ├─ the residency's clock: turns that end, models that idle (again)
    │   ├─ looks at the engine and at the shelf; who tells systemd (again)
    │   ├─ who looks after the run folder (again)
    │   ├─ the clocks of trials (`pool.dock`), while a suspect waits or is tried
    │   ├─ usher, one task per model that somebody waits for, until its child goes
    │   └─ keeper, one task per resident model; and one more for each that is preloaded or seen off
    │       └─ incarnation nursery: the process · a pump for each output · the wait for
    │          readiness, then the watchdog (again) · the retirement
    └─ front nursery (inner: drained first)
        ├─ the follower of the configuration, until llamasup is told to stop (again)
        ├─ the lookout for clients that leave, the comforter of those that wait, the doors (again)
        ├─ who tells clients that the drain is over
        └─ a conversation, one task per connection

A task that falls (`tending`) falls alone: its client or its model is told, and can ask again. Who
is needed by all begins again, ever more seldom. Only where the signals are heard (*) a fall ends
llamasup, for nobody could stop it any more; and what fell with a child ends that child.

No task has an owner that is not named here. A client that leaves cancels its conversation; that
closes the child's socket, and that is the cancellation: nothing else has to be told.

The way of a request
--------------------
1. `front.listener` accepts; `front.conversation` reads the request under limits of time and size.
2. `front.routes` names its goal: a model, control, or an error. The body's bytes are not touched.
   `pool.roster` knows which model a name means, and looks for it where nobody does.
3. `pool.lease`: the keeper is asked to be ready, and loads the model if need be. If every slot is
   taken the request waits here, never inside llama-server. Meanwhile `front.comfort` may send
   comments to a client that asked for a stream (`server.keepalive_after`).
4. `front.relay` connects to the child, sends, and reads the head of the reply; a bad answer is
   read whole, a stream up to its first word (`front.events`); what only passes the time till then
   reaches the client. If the child dies before that word, or says that memory ran out, the request
   is sent again to the next incarnation (`recovery.max_replays` times).
5. From then on the content goes from socket to socket as it comes, in chunks of ours or as it was
   framed, so that an end is known to be an end. A stream that is cut ends with an error event in
   the form of its API, and properly; any other answer ends with a broken connection. So does what
   a drain does not wait for; who has seen nothing by then gets a 503.

Control is one more upstream of the same relay: one port, one code path.

The way of a model into memory
------------------------------
A keeper asks the residency how much room there is, and its footing chooses the rung: none above
what ran out of memory, and if the context is "auto", the best one whose need fits into what is free
less `pool.memory_reserve`; a context that the operator wrote is passed over only if it cannot fit
at all. `children.needs` says what a rung needs: in the engine's words (`children.rehearsal` starts
it and hears them before it loads anything), where they can make a difference; or by the formula of
`memory.estimate`, from the header of the model's file. What was measured when a child went that had
worked refines the word, within bounds and for a week, but refuses nobody (`memory.measured`).

Then the keeper asks for a place. `pool.admission` decides about all who wait for one, and again
after every change: who loads, which idle ones go for it, which busy ones admit nobody any more
since their turn is over, who is refused. A place is given back when the memory really is. Requests
wait at their model's gate, for the load as for a slot: by priority, and in turns between clients.

The way of an OOM
-----------------
`engine.failures` finds the cause in the log, the exit status, the reply, or the kernel's counter of
kills. First the idle go, each once, and the same rung is tried again; then the keeper takes the
next rung. While a model loads, that is at once. In a reply or a stream, where only a whole message
that is known counts (`engine.error_messages`: all else may be anybody's words), the child is
retired: it admits nobody, the others on it may finish (`recovery.retirement`), then its successor
starts so. Many requests that suffer it at once are one step. Once it is proven (`Cause.proven`), by
the kernel, a load, an abort of the device's or a second request, the rung that held is remembered
in `state`, and is where the next load begins at best; one higher is tried when more memory is free
than was then, and not before `ladder.climb_interval`, or after a week. What ran out while others
held memory is tried as soon as they are gone. If the last rung fails, the client gets a 503 that
lists what was tried, and the next attempt waits: for a minute, or until room appears that was
lacking.

The way of a death
------------------
`children.restarts` decides when a successor may start: at once, then after 1, 2, 4 … 60 s, until
ten healthy minutes have passed. What cannot succeed (wrong flags, a broken file, five failed
starts) is given up until the model's file, its configuration or the engine changes, or until a
`POST /api/restart?model=…`. A request waits for a start within `recovery.patience`, or gets a 503
with `Retry-After`. Only preloaded models come back unasked.

`children.watchdog` takes progress for life: tokens, the steps of a prefill, the slots' counters;
and in the middle of a batch, when none can be seen, that it computes. `/health` stays green while
slots are wedged, so it is believed only of an idle child.

A request answers for itself (`children.suspects`): what was in flight at a death is tried again
alone, and refused for a while if that ends the next child; such deaths are not the model's.

The way of a new configuration
------------------------------
`reload.Follower` loads it again when its file says something else (by content, and when that has
settled) and at a SIGHUP; `POST /config` hands one in. `reload.Running` does first what can fail,
at last the listening on new addresses; then everything takes effect at once, or nothing did. A
child whose launch has changed (`Plan.launches_like`) is retired without a limit of time, and what
its model suffered is forgotten; so is a child whose model is gone. All others notice nothing. From
HTTP, nothing can be changed that decides over programs, files or keys (`control.posted`).

Decisions, and why
------------------
- **An own front, with Hypercorn behind it.** Hypercorn's trio worker ends its `serve` when one
  connection's reader raises, cannot time out a stalled client, loses disconnects, and costs four
  to ten times more per token. So it never faces the network, and never carries tokens.
- **h11 reads heads, `framing` measures bodies,** both ways. h11 reads chunk sizes leniently
  (extensions), and that is where two servers come to disagree about where a request ends.
- **Unix sockets to the children** in a private folder: no port to collide or to scan. TCP on
  loopback where the engine knows no Unix sockets, or by `engine.port_range_start`.
- **One connection per request to a child.** Kept-alive ones pin llama-server's worker threads, a
  stream closes its connection anyway, and closing is how a request is cancelled.
- **Never more requests than slots.** llama-server's queue has no fairness and no eye for clients
  that leave.
- **One lookout for all clients that leave** (`front.departures`), not a watcher for each: 12 µs
  cheaper for every request, and a connection is one task.
- **One comforter for all who wait,** not a task for each, which would have to be cancelled when
  the wait is over, perhaps in the middle of a comment. It sends what the kernel takes at once.
- **A load belongs to its keeper,** not to the request that caused it: impatient clients that try
  again would otherwise never see a model that loads slowly.
- **Readiness is heard, not polled:** a log line is the hint, one `/health` the proof; engines with
  unknown words are found out by looking, ever more seldom. A load may take as long as it likes,
  but not be silent for longer than `engine.load_timeout`.
- **A stop is TERM, the end of stdin, then KILL to the process group,** with both outputs read to
  their end meanwhile, for a child that cannot write its last words does not end.
  A llama-server in child mode does not end by TERM alone.
- **No PR_SET_PDEATHSIG:** trio forks in a worker thread that ends when it is idle, and the signal
  is bound to that thread. A child that a kill -9 leaves behind ends with its stdin, or is swept by
  the next start (`children.orphans`).
- **Held back: a part of an event,** up to 64 KiB, for an error event can only follow a whole one.
  llama-server writes each event as one chunk, so nothing waits.
- **Replays are for requests of which the client has seen no word.** To go on in the middle of an
  answer would need the engine to continue its own words, which not every API and model can.
- **A shortage is no verdict** (`shortages`). Who cannot be started or asked for want of
  descriptors, processes or ports is neither unusable nor dead, and nothing is given up for it.
- **Only a whole message of the engine's can say that memory ran out,** from its beginning to its
  end, as backends are known to say it: any part may be quoted from a request, by which anybody
  could push a model down its ladder, and a list of what quotes is never whole.
- **Words explain the death of a working child only if it aborts,** and then the last ones: clients
  write lines, clocks and levels into the log, but not after the engine's own last words.
- **All that is received comes into one buffer,** and is copied. Reads with buffers of their own,
  cut down to the little that came, left the heap in shreds: a megabyte more every five minutes. For
  the same reason, worker threads get no heaps of their own (`cli.serve`).
- **Learned rungs and footprints are the only state on disk,** under digests, for arguments hold
  secrets. What lives is marked in the run folder, which a reboot empties with the processes.
- **Folders are looked through when it matters, not watched:** before a listing, before a name is
  refused, when a model's file is missing; once a second at most. 2,000 files take about 0.1 s, and
  llamasup sleeps while nobody asks.
- **A key joins the configuration with the capability that reads it.** No key is without effect.
"""

__version__ = "0.1.0"
