"""llamasup: one process that owns every llama-server child and answers for them on one port.

This page is the architecture: the words, the rooms and their files, which task belongs to which,
the way of a request, and the decisions with their reasons.

Words
-----
model     a name that clients ask for
engine    the llama-server program: found on PATH, or embedded (from PyPI)
rung      one way to launch a model (context, KV type, GPU layers)
ladder    a model's rungs, the best one first
child     one running llama-server, from its start to its end
keeper    owns the children of one model, one after the other
load      goes down the ladder until a child is ready, and remains until that child is gone
position  where a keeper stands on its model's ladder
plan      all that a keeper must know of its model
need      how much memory a model takes on a rung, and which source says so
residency decides which models are in memory, and which one goes for another
place     what one child may hold of the memory
gate      where the requests for one model wait; its usher has a child loaded meanwhile
lease     one request's permission to use one child; a glance is a lease that loads nothing
library   the models there are: those of the configuration, and those in its folders
roster    the same models as the pool knows them
upstream  what can answer a request: a leased child, or control
exchange  one request and its answer
relay     carries a request to an upstream, and the answer back
dialect   how one API speaks: its paths, streams and errors
front     the public side; control: the operator's side (health, models, what fits, status)
suspect   a request that was in flight when a child died; it is tried again alone
event     something that happened, as a typed value; the journal hands it to all listeners

Rooms
-----
Foundations first. Each room imports only from those above it (`tests/test_house.py` checks that).
A file's first lines say what it is for; these are the ones to know:

    errors      every error that a client or an operator can meet
    states      the states of children and keepers, and the moves that are legal
    shortages   what a system can run short of (descriptors, threads, ...)
    events      what happened: every event, and the journal
    apis/       one file a dialect (`openai_chat`, `anthropic_messages`, `llama_cpp`, ...)
    logs        the way to stderr, which never holds up a task; text or JSON
    narrator    the log lines of events
    tending     tasks that fall: alone, or to begin again
    files, threads, ownership   files that are opened without waiting; worker threads for all that
                may block; which files can be trusted because others cannot write them
    processes/  `process` starts, hears, signals and ends one; `asking` programs that answer;
                `run_folder` with a mark of each child, `orphans` that a `kill -9` left
    config/     `schema` has every key; `layers` and `load` make a `Config`; `in_effect` holds it
    access/     `keys` of operators, `pages` of web browsers: who may ask for what
    http/       HTTP/1.1: `request_heads`, `reply_heads`, `framing` of bodies, `connection`,
                `disconnects`, `listeners`, `wire`; it knows no model
    upstream    what the relay knows of a child or of control
    models/     `gguf` and its `headers`; `scan` finds files and `discover` makes models of them;
                `names` that clients use, `library`, `demo`
    memory/     `ladder`, `estimate` (needs by formula), `readings` of tools and files (pure),
                `machine` and `gauge` (which ask them), `room`
    learned     what outlives llamasup on disk: rungs that held, and footprints
    engine/     `locate` and `known` (which program), `argv`; its words: `loglines`, `failures`,
                `error_messages`, `devices`, `breakdown`; `embedded`
    children/   `child`, `watchdog`; `keeper`, `load`, `position`, `descent` (out of memory),
                `history` and `restarts` (when to start again), `suspects` and `inquest` (which
                request ended it), `needs`, `dry_run`, `launcher`
    pool/       `admission` (pure) decides who is in memory, `residency` carries it out; `gate` and
                `queue` (who waits), `pool` (leases), `dock` (trials of suspects), `fits`, `roster`,
                `opening` (puts it together)
    front/      `server` accepts; `conversation` reads; `exchange` has the steps of a request;
                `routes`, `callers` (client and priority), `bodies`, `guests` (which connection goes
                when there are too many), `keepalive`, `relay`, `rendering`, `answer`
    control/    `app`, on Hypercorn (`server`), behind the front
    systemd, pid1, terminal   duties towards a service manager, in a container, on a terminal
    stop        how llamasup stops, in bounded time
    running     how a new configuration takes effect; reload follows its file
    serve       opens everything in order, and closes it in order
    cli/        one file a command

Decisions are pure (`PURE` in `tests/test_house.py`): they import no trio, read no clock, open no
file, and say what to do. The async rooms do it, and stay thin. What may hang has one border each
(`BORDERS` there): threads, processes, names of hosts.

Which task belongs to which
---------------------------
    serve
    ├─ signals, and the end of the drain * · as process 1, the reaper of orphans (again)
    ├─ children's nursery (outer: outlives the front)
    │   ├─ control: Hypercorn on a private Unix socket (again)
    │   ├─ the residency's clock: turns that end, models that idle (again)
    │   ├─ one look at the engine, and those into the library · the notifier of systemd (again)
    │   ├─ the watch over the run folder (again)
    │   ├─ the clocks of trials (`pool.dock`), while a suspect waits or is tried
    │   ├─ usher, one task per model that requests wait for, until its child goes
    │   └─ keeper, one task per resident model; and one more for each that is preloaded or seen off
    │       └─ the child's nursery: the process · a pump for each output · the count of kills ·
    │          the wait for readiness, then the watchdog (again) · the retirement
    └─ front nursery (inner: drained first)
        ├─ the follower of the configuration, until llamasup is told to stop (again)
        ├─ the lookout for clients that leave (again) · the end of those that idle (again) ·
        │  the keepalive of those that wait (again) · the listeners (again)
        ├─ the task that tells clients that the drain is over
        └─ a conversation, one task per connection

A task that falls (`tending`) falls alone: its client or its model gets an error, and can ask again.
A task that all need begins again (again), at growing intervals. Only where signals are heard (*)
does a fall end llamasup: nothing could stop it any more. What falls with a child ends that child.

A client that leaves cancels its conversation; that closes the child's socket, and llama-server
takes that as a cancellation. Nothing else has to be told.

The way of a request
--------------------
1. `front.server` accepts; `front.conversation` reads the request under limits of time and size.
   From then on it is an `exchange`. Requests from the web pages of strangers are refused
   (`access.pages`).
2. `front.routes` names its goal: a model, control, or an error. `pool.roster` knows which model a
   name means, and looks into the folders again if none does.
3. `pool.lease`: the request waits at the model's gate until a child is ready and has a free slot.
   The gate's usher asks the keeper to have one loaded. Requests never wait inside llama-server.
   Meanwhile `front.keepalive` may send comments to a client that asked for a stream.
4. `front.relay` connects to the child, sends, and reads the head of the reply; a bad answer is
   read whole, a stream up to its first word (`front.stream_events`). Events that only pass the time
   reach the client. If the child dies before that word, or says that memory ran out, the request is
   sent again to the next child (`recovery.max_replays` times).
5. From then on the content goes from socket to socket as it comes, in chunks of ours or as it was
   framed, so that the client recognises a cut answer. A stream that is cut ends with an error event
   of its API, and properly; any other answer ends with a broken connection. The same happens to
   answers that a drain does not wait for; clients that have seen nothing by then get a 503.

Each step is told to the journal. Control is one more upstream of the same relay.

The way of a model into memory
------------------------------
A keeper asks the residency how much room there is, and its position chooses the rung. No rung is
chosen above one that ran out of memory. If the context is "auto", it is the best rung whose need
fits into what is free less `pool.memory_reserve`; a context that the operator wrote is passed over
only if it cannot fit at all. `children.needs` says what a rung needs. Where it can make a
difference the engine says so itself (`children.dry_run` starts it, and ends it before it loads
anything), otherwise `memory.estimate` does, from the file's header. What was measured of children
that worked refines this, within bounds and for a week, but never refuses a model
(`memory.measured`).

Then the keeper asks for a place. `pool.admission` decides about all who wait for one, and again
after every change: which model loads, which idle ones go for it, which busy ones admit no more
requests because their turn is over, which claim is refused. A place is free again when the memory
really is. Requests wait at their model's gate for the load as for a slot: by priority, and in turns
between clients.

The way of an OOM
-----------------
`engine.failures` finds the cause in the log, the exit status, the reply, or the kernel's counter of
kills. First idle models go, each once, and the same rung is tried again; then the keeper takes the
next rung (`children.descent`). While a model loads, that happens at once. In a reply or a stream
only a whole message that is known counts (`engine.error_messages`): anything else may quote a
client. Then the child is retired: it admits no more requests, those on it may finish
(`recovery.retirement`), and its successor starts on the next rung. Many requests that meet the same
OOM are one step.

Once an OOM is proven (`Cause.proven`: by the kernel, by a load, by an abort, or by a second
request), the rung that held is remembered in `learned`, and the next load begins there. A higher
rung is tried when more memory is free than was then and `ladder.climb_interval` has passed, or
after a week. A model that ran out while others held memory is tried again as soon as they are gone.
If the last rung fails, the client gets a 503 that lists what was tried; the next attempt is made
after a minute, or when the missing room appears.

The way of a death
------------------
`children.restarts` decides when a successor may start: at once, then after 1, 2, 4 … 60 s, until
ten healthy minutes have passed. What cannot succeed (wrong flags, a broken file, five failed
starts) is given up until the model's file, its configuration or the engine changes, or until a
`POST /api/restart?model=…`. A request waits for a start within `recovery.patience`, or gets a 503
with `Retry-After`. Only preloaded models are started again unasked.

`children.watchdog` accepts progress as a sign of life: tokens, the steps of a prefill, the slots'
counters; and within a batch, which shows none of these, that the process computes. `/health` stays
green while slots are wedged, so it counts only for an idle child.

A request answers for itself (`children.suspects`): requests that were in flight at a death, or were
abandoned shortly before, are tried again alone, and refused for a while if that ends the next
child. Such deaths do not count against the model, nor against the replays of other requests.

The way of a new configuration
------------------------------
`reload.Follower` loads the file again when its content has changed and settled, and at a SIGHUP;
`POST /config` hands one in. `running` does first what can fail, and listens on new addresses last;
then everything takes effect at once. If anything fails, nothing has changed. A child whose launch
has changed (`Plan.launches_like`) is retired without a limit of time, and its model's history is
forgotten; so is a child whose model is gone. Other models notice nothing. Over HTTP, keys that
decide about programs, files or keys cannot be changed (`control.posted`).

Where to begin
--------------
a key         `config.schema`, `config.checks`, `llamasup.toml`; what acts on a change: `running`
a route       its dialect in `apis`, and the README's table
a word of the engine's    `engine.loglines`, `failures`, `devices` or `error_messages`, and a log in
              `tests/engine/logs`
an event      `events`, and its line in `narrator`
a reason to load or to unload    `pool.admission`, and `tests/pool/test_simulation.py`
tests         lie as the rooms do; beside them `end_to_end` (real engines), `chaos` and `fuzz` (long
              forms by `python -m`), `bench`, `devices` and `containers` (where there are any),
              `fakes` (an engine that does what it is told) and `harness`

Principles
----------
What use finds wrong is nearly always a second cause that meets a first, where one of these broke:

1. Words of clients decide nothing. What an engine logs or answers about a request is data.
2. A request answers for itself: deaths are laid to the requests that were in flight.
3. What a client can make grow has a bound in bytes, time and CPU, alone and together with others;
   at the bound the greediest goes first. No request holds the loop for more than 5 ms.
4. Beliefs heal: what was learned or measured ages, and is overruled by the engine's word and by
   the room there is.
5. First the idle go, then the context.
6. The engine's devices are the devices.
7. The loop waits for nothing outside: no disk, no pipe, no driver, no log.
8. A task that falls, falls alone. The second signal wins, whatever hangs.
9. Every page, user, engine and key reaches no more than it must.

Decisions, and why: requests
----------------------------
- **An own front, with Hypercorn behind it.** Hypercorn's trio worker ends its `serve` when one
  connection's reader raises, cannot time out a stalled client, loses disconnects, and costs four to
  ten times more per token. So it never faces the network, and never carries tokens.
- **h11 reads heads, `framing` measures bodies.** h11 reads chunk sizes leniently (extensions), and
  that is where two servers come to disagree about where a request ends. The heads of ordinary
  clients need no h11: two expressions accept them, and little else, in a sixth of the time
  (`http.request_heads`).
- **A head that two servers could read differently is refused** (`http.heads`): a client's with a
  400, an engine's with a 502.
- **A large body is read for its model as it comes,** in small steps: no decoder can stop half-way.
  A small one is decoded at once, but only the members that matter become objects.
- **No client may hold more of the memory for bodies than is left for others** (`front.shares`): so
  there is always some for one more. Large bodies lie in nameless files: a queue of them would push
  models out of memory, and a replay needs them whole.
- **A web page of strangers is refused before anything is done.** A browser sends a page's request
  and only hides the answer; so `Origin` decides. For operators' pages `Host` decides, too: the
  owner of a name can let it point here.
- **Clients take turns by address, then by key.** Keys that nobody checks can be invented; addresses
  cost something. Urgency is a client's own word, so urgent requests get every other turn at most.
  When a queue or the server is full, newcomers are let in: the last of the longest line goes, or
  the connection that has rested longest.
- **Never more requests than slots,** and few questions beside them. llama-server's own queue is not
  fair, and does not notice clients that leave.
- **Looking loads nothing.** Scrapers poll; they would load, evict and keep awake whatever they look
  at.
- **One connection per request to a child.** Kept-alive ones pin llama-server's worker threads, a
  stream closes its connection anyway, and closing is how a request is cancelled.
- **One task notices all clients that leave** (`http.disconnects`), not a watcher for each: it saves
  12 µs per request. A client that ends its own side counts as gone: the kernel tells the difference
  only when something is sent.
- **One task ends all connections that idle** (`front.server`), instead of a deadline for each wait:
  10 µs. **One task sends all keepalive comments,** so none is cancelled half-way.
- **An answer can come from another engine until its first word.** llama-server sends a stream's
  head before it reads the prompt, and pings meanwhile; an OOM of the prefill comes as the first
  event. So pings are passed on, the events that only open an answer are held back, and the first
  word binds. To go on after it, the engine would have to continue its own words, which not every
  API and model can.
- **A part of an event is held back,** up to 64 KiB: an error event can only follow a whole event.
  llama-server writes each event as one chunk, so normally nothing waits.
- **The replay is the trial.** One death is no proof against a request: a `kill -9` looks the same.
  So a suspect is tried alone; others wait 10 s at most, then have their turn. Doubtful cases
  convict late and for a short time: only a death alone is certain, and the first sentence is a
  minute. One answer clears a client: behind a proxy, one client is many.
- **All reads share one buffer,** and what came is copied. Buffers of their own, cut down to the
  little that came, fragmented the heap: a megabyte more every five minutes. For the same reason,
  worker threads get no heaps of their own (`cli.serve`).

Decisions, and why: children
----------------------------
- **Unix sockets to the children** in a private folder: no port to collide or to scan. TCP on
  loopback where the engine knows no Unix sockets, or by `engine.port_range_start`.
- **A load belongs to its keeper,** not to the request that caused it: otherwise impatient clients
  that try again would never see a model that loads slowly.
- **Readiness is heard, not polled:** a log line is the hint, one `/health` the proof. Engines whose
  words are unknown are polled, at growing intervals. A load may take as long as it likes, but must
  not be silent for longer than `engine.load_timeout`. Hints count only while a child starts, and
  only in the form in which its engine writes: later ones may be a client's words.
- **A child that computes is alive.** In a batch llama-server produces no tokens and answers
  nothing. A child that only spins is ended after 12 times `stall_timeout`: at the defaults 36 min,
  which is a batch of 2,048 tokens at one a second.
- **A stop is TERM, the end of stdin, then KILL to the process group.** Both outputs are read to
  their end meanwhile: a child that cannot write its last words does not end. A llama-server in
  child mode does not end by TERM alone.
- **No PR_SET_PDEATHSIG:** trio forks in a worker thread that ends when it is idle, and the signal
  is bound to that thread. A child that a `kill -9` leaves behind ends with its stdin; while it
  loads, by a signal of that pipe (`processes.lifeline`); and the next start ends what is left
  (`processes.orphans`).
- **Circumstances are noted when a load begins,** not when it failed: a file may be whole by then.
- **The run folder is checked once a second,** and made again if it is gone: systems remove it at a
  logout.
- **Engines inherit only variables that engines know,** and no keys: neither ours nor clients'.
- **The log explains the death of a working child only if the child aborts,** and then only its last
  words: clients can write lines, clocks and levels into the log, but not after those.

Decisions, and why: memory
--------------------------
- **Only a whole message of the engine's can say that memory ran out,** from beginning to end, in
  the words that backends are known to use. Any part may be quoted from a request, and could push a
  model down its ladder.
- **The kernel's kills count for some seconds, and only in our own cgroup.** Which process it
  killed, it tells only to root; a count since a child's start blamed last week's browser for
  today's SIGKILL.
- **Only what ran out of memory is learned,** and only as a ceiling. A rung that was passed over for
  want of room says nothing about next time.
- **For a load that ran out, idle models go: each once, one at first, then twice as many.** How much
  is missing is unknown, each try may take minutes, and models that come back must not keep this one
  from stepping down.
- **New room wakes only models that failed while others held memory,** and only room that a ready
  child leaves: otherwise two models that do not fit would wake each other for ever.
- **Of several models that have to go, those that would only wait for the answers of another stay
  open.** The one that was idle last stays shut: otherwise they might never be idle at once.
- **A need on several GPUs is a need of all of them together,** and is spread when the model gets
  its place, as the engine spreads it. A spread made earlier would refuse a model although an idle
  one could make room.
- **Vendors' tools only refine.** They number and name GPUs otherwise than the engine, and know no
  Vulkan and no RPC; but they say cheaply how much is free, of a GPU that is certainly the same.
  Memory that GPUs share with the host counts once. An RPC server belongs to one model at a time: it
  keeps all others waiting.
- **A model larger than memory is allowed only where the operator says so** (`overcommit`): a
  machine that reads its disk all day is not what people want who took too large a file by mistake.

Decisions, and why: the world
-----------------------------
- **The log holds up no task.** A thread of its own writes from a ring of bounded size. When that is
  full the newest lines are dropped, and counted where they are missing: how trouble began says
  more. A record is one line of plain text: names, targets and engines' words are foreign.
- **Worker threads can always be left behind.** A thread that hangs on a disk never comes back. So
  each kind of work has a few of its own (`threads.Lane`), each place is waited for once until it
  answers, and meanwhile what was known before counts. Only regular files are opened: opening a FIFO
  may take for ever.
- **A shortage is no verdict** (`shortages`). An engine that cannot be started or asked for want of
  descriptors, processes, threads or ports is neither unusable nor dead, and nothing is given up for
  it. One descriptor is kept in reserve, so that a client that comes when there is none left can be
  told.
- **Tasks that begin again do so without end,** at growing intervals: a clock that was given up
  would never unload a model again.
- **The last word is the kernel's:** from the first signal on an alarm runs, which needs no thread
  and no turn of the loop. A SIGHUP without its terminal is a stop, unless nohup started us.
- **Files that others could have written are not trusted** (`ownership`): a llamasup.toml found by
  chance names programs, and marks in a run folder name processes to end.
- **Learned rungs and footprints are the only state on disk,** under digests, for arguments hold
  secrets. What lives is marked in the run folder, which a reboot empties with the processes.
- **Folders are read when it matters, not watched:** before a listing, before a name is refused,
  when a model's file is missing; once a second at most. 2,000 files take about 0.1 s, and llamasup
  sleeps while nothing is asked.
- **The configuration in effect has one holder** (`config.in_effect`), which the rooms read when it
  matters. What has to act on a change (listeners, keepalive, clocks, children) is told in one
  place, in order (`running`).
- **Things that happen are told once, to the journal** (`events`). The log is its first listener.
  The course of a request is told only where something listens to it: it would cost 6 µs.
- **Errors of engines are read in all dialects, ours are written in one.** Which form an engine uses
  at a path has changed from version to version (`engine.error_messages`).
- **A key joins the configuration with the capability that reads it.** No key is without effect, and
  none waits for a restart but `[folders]`.
"""

__version__ = "0.1.0"
