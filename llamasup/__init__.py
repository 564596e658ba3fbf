"""llamasup: one process that owns every llama-server child and answers for them on one port.

This page is the architecture: the words, the rooms, who owns whom, the way of a request, and the
decisions with their reasons.

Words
-----
model     a name that clients ask for
engine    the llama-server program: found on PATH, or embedded (from PyPI)
library   which models there are: those of the configuration, and those in its folders
roster    the same as the pool knows them, looked up in the library when it matters
rung      one way to launch a model (context, KV type, GPU layers)
ladder    a model's rungs, best first
child     one running llama-server, one incarnation
keeper    owns one model's children over time
load      down the ladder to a child that is ready, and what became of it
position  where a keeper stands on its model's ladder
pool      decides who gets which child; `async with pool.lease(model, work) as lease`
gate      where the requests for one model wait; its usher has a child loaded meanwhile
residency who has a place in memory, and who goes for whom
lease     one request's permission to use one child; a glance is one that wakes nobody
place     what one child may hold of the memory, or where a client is (`callers.place`)
need      what a model takes on a rung, and who says so
plan      what a keeper must know of its model
suspect   a request that was in flight at a death; its trial is to be tried again alone (`dock`)
relay     carries one request and its answer
dialect   how one API speaks: its paths, its streams, its errors (`apis`)
front     the public side
control   the operator's side: health, model list, what fits, status

Rooms
-----
Foundations first; each imports only from those before it (`tests/test_house.py` checks that):

    errors      every error that a client or an operator can meet
    states      the states of children and keepers, and what may follow what
    shortages   what a system may run short of, and as many descriptors as may be had
    apis/       how each API speaks, one file a dialect: paths, streams, errors, where numbers stand
    logs        the one way to stderr, which holds nobody up; foreign words as plain text
    tending     tasks that fall: alone, or to begin again
    files       regular files, opened without waiting
    threads     worker threads: what may block, so that the loop waits for no disk
    ownership   whose a file or folder is, and so whether it is to be believed
    processes/  start, hear, signal and end a process; programs that are asked something; the run
                folder, and the marks in it that survive a kill -9
    config/     llamasup.toml, environment and flags become a `Config`; the one in effect
    access/     who may come: web pages, and whoever has the operator's key
    http/       HTTP/1.1 as it is spoken here: heads, bodies, connections, listeners; no models
    models/     what GGUF files hold, which models folders hold, their names; the demo model
    memory/     the ladder; what a rung needs, by the formula; what memory there is
    learned     what survives llamasup itself: the rungs that held, and what models took on them
    engine/     where the engine is, how it is called, what its words mean
    children/   child, watchdog; keeper, its loads, its way down the ladder, its history and when it
                may restart; slots, suspects, what models need
    pool/       who may be resident, who waits, leases; the roster of the models there are now;
                what fits
    front/      what happens to a request: server, conversation, routes, callers, keepalive, relay,
                rendering
    control/    an ASGI app on Hypercorn, behind the front
    systemd, pid1   duties towards a service manager, and as a container's first process
    terminal    whether the one that we were started from is closed
    stop        how llamasup stops, within a time that is known
    running     how a new configuration takes effect
    reload      follows the configuration's file while llamasup runs
    serve       opens everything in order, and closes it in order
    cli/        one file a command

Decisions are pure (`PURE` in `tests/test_house.py`): log lines, failures, command lines, framing,
heads, routes, admission and the ladder import no trio, read no clock and open no file. They say
what to do; the async rooms do it, and stay thin. What may hang has one border each (`BORDERS`
there): threads, processes, names of hosts.

Who owns whom
-------------
    serve
    ├─ signals, and the end of the drain * · as process 1, the reaper of orphans (again)
    ├─ children's nursery (outer: outlives the front)
    │   ├─ control: Hypercorn on a private Unix socket (again)
    │   ├─ the residency's clock: turns that end, models that idle (again)
    │   ├─ one look at the engine, and those into the library · the notifier of systemd (again)
    │   ├─ the watch over the run folder (again)
    │   ├─ the clocks of trials (`pool.dock`), while a suspect waits or is tried
    │   ├─ usher, one task per model that somebody waits for, until its child goes
    │   └─ keeper, one task per resident model; and one more for each that is preloaded or seen off
    │       └─ incarnation nursery: the process · a pump for each output · the count of kills ·
    │          the wait for readiness, then the watchdog (again) · the retirement
    └─ front nursery (inner: drained first)
        ├─ the follower of the configuration, until llamasup is told to stop (again)
        ├─ the lookout for clients that leave (again) · the end of those that idle (again) ·
        │  the keepalive of those that wait (again) · the listeners (again)
        ├─ who tells clients that the drain is over
        └─ a conversation, one task per connection

A task that falls (`tending`) falls alone: its client or its model is told, and can ask again. Who
is needed by all begins again, ever more seldom. Only where the signals are heard (*) a fall ends
llamasup, for nobody could stop it any more; and what fell with a child ends that child.

No task has an owner that is not named here. A client that leaves cancels its conversation; that
closes the child's socket, and that is the cancellation: nothing else has to be told.

The way of a request
--------------------
1. `front.server` accepts; `front.conversation` reads the request under limits of time and size,
   and refuses the pages of strangers (`access.pages`).
2. `front.routes` names its goal: a model, control, or an error. The body's bytes are not touched.
   `pool.roster` knows which model a name means, and looks for it where nobody does.
3. `pool.lease`: who has to wait does so at the model's gate, whose usher asks the keeper to be
   ready, which loads the model if need be. If every slot is taken the request waits here, too,
   never inside llama-server. Meanwhile `front.keepalive` may send comments to a client that asked
   for a stream (`server.keepalive_after`).
4. `front.relay` connects to the child, sends, and reads the head of the reply; a bad answer is
   read whole, a stream up to its first word (`front.stream_events`); what only passes the time till
   then reaches the client. If the child dies before that word, or says that memory ran out, the
   request is sent again to the next incarnation (`recovery.max_replays` times).
5. From then on the content goes from socket to socket as it comes, in chunks of ours or as it was
   framed, so that an end is known to be an end. A stream that is cut ends with an error event in
   the form of its API, and properly; any other answer ends with a broken connection. So does what
   a drain does not wait for; who has seen nothing by then gets a 503.

Control is one more upstream of the same relay: one port, one code path.

The way of a model into memory
------------------------------
A keeper asks the residency how much room there is, and its position chooses the rung: none above
what ran out of memory, and if the context is "auto", the best one whose need fits into what is free
less `pool.memory_reserve`; a context that the operator wrote is passed over only if it cannot fit
at all. `children.needs` says what a rung needs: in the engine's words (`children.dry_run` starts
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

A request answers for itself (`children.suspects`): what was in flight at a death, or left
unanswered shortly before, is tried again alone, and refused for a while if that ends the next
child; such deaths are not the model's, nor do they use up the replays of other requests.

The way of a new configuration
------------------------------
`reload.Follower` loads it again when its file says something else (by content, and when that has
settled) and at a SIGHUP; `POST /config` hands one in. `running.Running` does first what can fail,
at last the listening on new addresses; then everything takes effect at once, or nothing did. What
is only read has no copy to be renewed: every room reads it from `config.in_effect` when it matters.
What has to act (listeners, keepalive, the residency's clock, the roster) is told there, in order. A
child whose launch has changed (`Plan.launches_like`) is retired without a limit of time, and what
its model suffered is forgotten; so is a child whose model is gone. All others notice nothing. From
HTTP, nothing can be changed that decides over programs, files or keys (`control.posted`).

Where to begin
--------------
a key         `config.schema`, `config.checks`, `llamasup.toml`; if it is acted on, `running`
a route       its dialect in `apis`, or `front.routes` for control; and the README's table
a word of an engine's    `engine.loglines`, `failures` or `error_messages`, and a log in
              `tests/engine/logs`
a reason to load or to go    `pool.admission`, and `tests/pool/test_simulation.py`
tests         lie as the rooms do; beside them `end_to_end` (real engines), `chaos` and `fuzz` (long
              forms by `python -m`), `bench`, `devices` and `containers` (where there are any),
              `fakes` (an engine that does what it is told) and `harness`

Principles
----------
What use finds wrong is nearly always a second cause that meets a first, where one of these broke:

1. Words of clients decide nothing. What an engine logs or answers about a request is data.
2. A request answers for itself: deaths are laid to who was in flight.
3. What a client can make grow has a bound in bytes, time and CPU, alone and together with others;
   at the bound the greediest goes first. No request holds the loop for more than 5 ms.
4. Beliefs heal: what was learned or measured ages, and is overruled by the engine's word and by
   the room there is.
5. First the idle go, then the context.
6. The engine's devices are the devices.
7. The loop waits for nobody: no disk, no pipe, no driver, no log.
8. A task that falls, falls alone. The second signal wins, whatever hangs.
9. Nobody reaches more than they must: pages, other users, engines, keys.

Decisions, and why: requests
----------------------------
- **An own front, with Hypercorn behind it.** Hypercorn's trio worker ends its `serve` when one
  connection's reader raises, cannot time out a stalled client, loses disconnects, and costs four
  to ten times more per token. So it never faces the network, and never carries tokens.
- **h11 reads heads, `framing` measures bodies.** h11 reads chunk sizes leniently (extensions), and
  that is where two servers come to disagree about where a request ends. What most clients send
  needs no h11 (`http.request_heads`): two expressions accept it, and nothing else, in a sixth of
  the time.
- **A head that two could read differently is read by nobody** (`http.heads`), a client's or an
  engine's: 400 the one way, 502 the other.
- **A large body is looked through as it comes,** in small steps, for its model and whether it
  streams: no decoder can stop half-way. A small one is decoded, but nothing becomes an object.
- **Nobody may hold more of the memory for bodies than is left for others** (`front.shares`): so
  there is always some for one more. Large ones lie in nameless files, for a queue of them would
  push models out of memory, and a replay needs them whole.
- **A page of strangers is refused before anything is done.** A browser sends what it likes and only
  hides the answer; so `Origin` decides, and for operators' pages `Host`, for whoever owns a name
  may let it point here.
- **Turns are taken by address, then by key.** Keys that nobody knows can be invented; addresses
  cost something. Urgency is a client's own word, so it gets every other turn at most. A full queue
  or a full house lets newcomers in: the last of the longest line goes, or who rests longest.
- **Never more requests than slots,** and few questions beside them. llama-server's queue has no
  fairness and no eye for clients that leave.
- **Who only looks wakes nobody.** Scrapers poll; they would load, evict and keep awake whatever
  they look at.
- **One connection per request to a child.** Kept-alive ones pin llama-server's worker threads, a
  stream closes its connection anyway, and closing is how a request is cancelled.
- **One lookout for all clients that leave** (`http.disconnects`), not a watcher for each: 12 µs
  cheaper for every request, and a connection is one task. Who ends its own side counts as gone: the
  kernel tells the difference only when something is sent.
- **One look at all who are idle** now and then (`front.server`), not a deadline for each wait.
- **One keepalive for all who wait,** not a task for each, which would have to be cancelled when
  the wait is over, perhaps in the middle of a comment. It sends what the kernel takes at once.
- **Until its first word an answer can be had from another engine.** llama-server sends a stream's
  head before it reads the prompt, and pings while it does; an OOM of the prefill comes as the first
  event. So comfort is passed on, what opens an answer is kept, and only a word binds. To go on
  after it would need the engine to continue its own words, which not every API and model can.
- **Held back: a part of an event,** up to 64 KiB, for an error event can only follow a whole one.
  llama-server writes each event as one chunk, so nothing waits.
- **The replay is the trial.** One death is no proof against a request, for a `kill -9` looks the
  same. So a suspect is tried alone; others wait 10 s at most, then have their turn. Doubt convicts
  late and shortly: only a death alone is sure, and the first sentence is a minute. An answer clears
  a client, for behind a proxy one client is many.
- **All that is received comes into one buffer,** and is copied. Reads with buffers of their own,
  cut down to the little that came, left the heap in shreds: a megabyte more every five minutes. For
  the same reason, worker threads get no heaps of their own (`cli.serve`).

Decisions, and why: children
----------------------------
- **Unix sockets to the children** in a private folder: no port to collide or to scan. TCP on
  loopback where the engine knows no Unix sockets, or by `engine.port_range_start`.
- **A load belongs to its keeper,** not to the request that caused it: impatient clients that try
  again would otherwise never see a model that loads slowly.
- **Readiness is heard, not polled:** a log line is the hint, one `/health` the proof; engines with
  unknown words are found out by looking, ever more seldom. A load may take as long as it likes,
  but not be silent for longer than `engine.load_timeout`. Hints count while a child starts, in the
  manner in which its engine writes: later ones tell nothing new, and may be a client's.
- **To compute is to live.** In a batch llama-server has no tokens and answers nobody. A spin is
  ended after 12 times `stall_timeout`: at the defaults 36 min, a batch of 2,048 tokens at one a
  second.
- **A stop is TERM, the end of stdin, then KILL to the process group,** with both outputs read to
  their end meanwhile, for a child that cannot write its last words does not end.
  A llama-server in child mode does not end by TERM alone.
- **No PR_SET_PDEATHSIG:** trio forks in a worker thread that ends when it is idle, and the signal
  is bound to that thread. A child that a kill -9 leaves behind ends with its stdin, while it loads
  by a signal of that pipe (`processes.lifeline`), or is swept by the next start
  (`processes.orphans`).
- **Circumstances are noted when a load begins,** not when it failed: a file may be whole by then.
- **The run folder is looked at once a second,** and made anew: systems remove it at a logout.
- **Engines inherit what engines know,** and no keys: neither of our environment, nor of clients.
- **Words explain the death of a working child only if it aborts,** and then the last ones: clients
  write lines, clocks and levels into the log, but not after the engine's own last words.

Decisions, and why: memory
--------------------------
- **Only a whole message of the engine's can say that memory ran out,** from its beginning to its
  end, as backends are known to say it: any part may be quoted from a request, by which anybody
  could push a model down its ladder, and a list of what quotes is never whole.
- **The kernel's kills are believed for seconds, and from our own cgroup.** Whom it killed is told
  only to root; a count since a child's start blamed last week's browser on today's SIGKILL.
- **Only what ran out of memory is learned,** and only as a ceiling. What was passed over for want
  of room says nothing about next time, and a time renewed with each load never ends.
- **For a load that ran out, the idle go: each once, one at first, then twice as many.** What is
  lacking nobody knows, each try may take minutes, and who comes back must not keep a model from
  stepping down.
- **Room that appears wakes only what failed while others held memory,** and only room that a ready
  child leaves: two that do not fit would else wake each other for ever.
- **Of several that have to go, those that would only wait for another one's answer stay open.** Who
  ended last of those shut together stays shut: else they might never be idle at once.
- **A need on several GPUs is one of all of them together,** spread when it gets its place, as the
  engine spreads. A spread of the moment would refuse what an idle model's going makes room for.
- **Vendors' tools only refine.** They number and name otherwise than the engine, and know no Vulkan
  and no RPC; they say cheaper how much is free, of what is without doubt the same card. Memory
  that GPUs share with the host is counted once, and an RPC server belongs to one model at a time:
  it leaves everybody else hanging.
- **A model larger than memory is the operator's wish** (`overcommit`), not a rule: nobody who takes
  too large a file by mistake wants a machine that reads its disk all day.

Decisions, and why: the world
-----------------------------
- **Nobody waits for the log.** A thread of its own writes from a ring of bounded size. When that is
  full the newest lines are dropped and counted where they are missing: how trouble began says more.
  A record is one line of plain text, for names, targets and engines' words are foreign.
- **Worker threads are always left behind.** One that hangs on a disk cannot be had back. So each
  kind of work has its own few (`threads.Lane`), each place is waited for once until it answers, and
  meanwhile what was known counts. Only regular files are opened: to open a FIFO takes for ever.
- **A shortage is no verdict** (`shortages`). Who cannot be started or asked for want of
  descriptors, processes, threads or ports is neither unusable nor dead, and nothing is given up for
  it. One descriptor is kept back, so that who comes when there is none left is told so.
- **Who begins again does so without end,** ever more seldom: a clock that was given up would never
  unload anybody again.
- **The last word is the kernel's:** from the first signal on an alarm runs, which needs no thread
  and no turn of the loop. A SIGHUP without its terminal is a stop, unless we were started by nohup.
- **What others could have written is not believed** (`ownership`): a llamasup.toml that we come
  upon names programs, and marks in a run folder name processes to end.
- **Learned rungs and footprints are the only state on disk,** under digests, for arguments hold
  secrets. What lives is marked in the run folder, which a reboot empties with the processes.
- **Folders are looked through when it matters, not watched:** before a listing, before a name is
  refused, when a model's file is missing; once a second at most. 2,000 files take about 0.1 s, and
  llamasup sleeps while nobody asks.
- **A key joins the configuration with the capability that reads it.** No key is without effect, and
  none waits for a restart but `[folders]`.
"""

__version__ = "0.1.0"
