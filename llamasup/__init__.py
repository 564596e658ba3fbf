"""llamasup: one process that owns every llama-server child and answers for them on one port.

This page is the architecture: the words, the rooms and their files, which task belongs to which,
the way of a request, and the decisions with their reasons.

Words
-----
The pictures are three: a house (rooms, a gate), a ladder, and a court (suspects, trials).

model     a name that clients ask for
variant   a model's second name: the same engine, but other params
params    the members of a request's JSON, such as max_tokens
engine    the llama-server program: found on PATH, or embedded (from PyPI)
slot      one of the requests that a llama-server works on at the same time
rung      one way to launch a model (context, KV type, GPU layers)
ladder    a model's rungs, the best one first
child     one running llama-server, or another server, from its start to its end
keeper    owns the children of one model, one after the other
load      an object: one way down the ladder to a child that is ready, kept until that child is gone
position  the rung where a keeper stands
plan      all that a keeper must know of its model, which has a file or a server's command line
manners   how one kind of child is asked whether it is well, and what its words mean
need      how much memory a model takes on a rung, and which source says so
residency decides which models are in memory, and which one is unloaded to make room
claim     a model that requests wait for, and that is not in memory
place     the memory that is reserved for one child
turn      the time for which a busy model keeps its place although another one is claimed
retired   of a child: it gets no more requests, finishes those that it has, and ends
drain     the same for llamasup as a whole, when it is told to stop
gate      where the requests for one model wait; the gate's usher asks the keeper for a child
lease     one request's permission to use one upstream
library   the models there are: those of the configuration, and those in its folders
roster    the same models, with a keeper for each
variant   another name of a model, with other params; both are answered by the same child
filter    the operator's rules about the params of a model's requests
key       what a client shows to be let in; the configuration keeps its hash, and what it may do
upstream  what can answer a request: a leased child, an instance elsewhere, or control
endpoint  an entry of `[[endpoints]]`: servers elsewhere that have models, too
instance  one server at one address; an endpoint may have several
offer     what an instance says of a model that it has: where it is there, and its free slots
fleet     all instances elsewhere, and the models that they have
exchange  one request and its answer
errand    a request on its way to an instance elsewhere; its trail notes which were tried
replay    a request that is sent again, because its child died before the answer had begun
relay     carries a request to an upstream, and the answer back
dialect   how one API speaks: its paths, streams and errors
front     the public side
control   the operator's side (health, models, what fits, status); it is reached through the front
suspect   a request that was in flight when a child died; its trial is one more attempt, alone
event     something that happened, as a typed value; the journal hands it to all listeners

Rooms
-----
Foundations first. Each room (a folder or a file) imports only from those above it
(`tests/test_house.py` checks that). Every file says in its first lines what it is for; not all are
listed here.

    errors      every error that a client or an operator can meet, with its status and code
    states      the states of children and keepers, and the moves that are legal
    shortages   what a system can run short of (descriptors, threads, ...)
    events      the typed events, and the journal
    apis/       one file a dialect (`openai_chat`, `anthropic_messages`, `llama_cpp`, ...);
                `usage` reads what an answer took. No engine speaks `ollama_*`: a `translation` puts
                a request into an engine's words, and tells what was `said`
    logs        writes the log to stderr, as text or JSON, and never makes a task wait
    narrator    turns events into lines of the log
    tending     what follows when a task raises: it ends alone, or it begins again
    files, threads, ownership
                opening files without waiting; worker threads for all that may block; and which
                files are trusted, because other users cannot write them
    processes/  `process` starts, reads, signals and ends one; `asking` runs programs that answer;
                `run_folder` holds a mark of each child, by which `orphans` finds the children that
                a `kill -9` left; `lifeline` is a child's stdin
    config/     `schema` has every key, `checks` what a type cannot tell; `layers` and `load` make
                a `Config`, in which `secrets` leaves only hashes of clients' keys; `in_effect`
                holds the one that counts
    access/     `keyring` of clients (who is it), `rights` (what a path needs), `limits` (how much
                is left), `consumption` (who used least lately), `admin_key` of operators,
                `pages` of web browsers
    http/       HTTP/1.1, without models: `request_heads`, `reply_heads` and `heads` (what both
                refuse), `framing` of bodies, `connection`, `disconnects`, `listeners`, `wire` (a
                connection to an upstream); `tls` (sessions without sockets), `tls_connection` of a
                client, `certificate` (which is followed)
    upstream    what the relay knows of a child or of control, and how their answers are signed
    models/     `gguf`, `headers` of files, `profile` and `facts` (what is kept of them), `discover`
                folders, `names` that clients may use, `params` (what becomes of those in requests),
                `purpose`, `library`, `demo` (the model of a first run)
    memory/     `ladder`; `estimate` (needs by formula); `readings` (what tools and files say, as
                devices; pure), `machine` (runs the tools), `gauge` (when to ask); `room`
    endpoints/  `names` become addresses; `probe` asks each `instance` how it is, `health` (pure)
                says what that means, `balance` (pure) which one answers; `prefix` (by which later
                turns of a conversation find the same one), `forwarding` (how it gets a request);
                `endpoint`, `fleet`
    learned     what outlives llamasup on disk: rungs on which children got ready, and footprints
    engine/     `locate` and `known` (which program), `argv` (its command line), `cores` (how they
                are shared), `embedded`; what it prints and answers: `loglines`, `failures`,
                `error_messages`, `devices`, `breakdown`
    children/   `child`, `watchdog`; `keeper`, `load`, `position`; `descent` (out of memory);
                `restarts` (pure: when to start again) and `history` (which remembers it);
                `inquest` (which requests were there at a death) and `suspects` (pure: what follows
                for them); `needs`, `dry_run` (asks the engine for them); `model_plan` and
                `launcher` for llama-servers, `server_plan` and `server_launcher` for all others,
                `manners` of both; `ports` and `listening` (whose they are), `remotes` (which RPC
                servers answer)
    pool/       `admission` (pure) decides which models are in memory, `residency` carries it out;
                `gate` and `queue` (waiting requests), `pool` and `child_lease`, `dock` (trials),
                `fits` (what `/modelFits` says), `roster`, `opening` (puts the pool together);
                `outside` and `remote_lease` for instances elsewhere, `either_lease` for models that
                are here and there; `offers` (what a llamasup in front is told) and `forecasts`
    front/      connections: `server` accepts, `guests` says which one is closed when there are too
                many, `conversation` reads requests; `bodies`, `rooms` and `shares` (what they hold
                in memory), `wishes` (what a body asks for);
                one request: `exchange` has its steps, and `reporter` tells the journal of them;
                `table` (of all routes) and `routes`; `doorkeeper` (lets it in, by its key);
                `callers` (client and priority); `purposes` and `filters` (what a model may be
                asked, and with which params); `keepalive`; `relay` and `asking_control`; `losses`
                (how often it is sent again);
                its answer: `rendering` (the bytes for the client), `answer` (what the client has
                seen of it), `way` (what its head says), `margins` (what it took), `stream_events`;
                `interpreter` and `translated_answer` (for an API that no engine speaks)
    control/    `app` has an answer for each page, on Hypercorn (`server`, `asgi`); `operators` (who
                may act as one); `catalogue` collects what `listing` tells of models, `changes`
                follows them; `health`, `status`, `surveys` (what fits), `openapi`; `posted` is the
                configuration over HTTP; `ollama` has what its clients ask about models
    systemd, pid1, terminal
                duties towards systemd, as a container's first process, and when a terminal closes
    stop        how llamasup stops, in bounded time
    running     how a new configuration takes effect
    reload      follows the configuration's file
    serve       opens everything in order, and closes it in order
    cli/        one file a command

Decisions are pure (`PURE` in `tests/test_house.py`): they import no trio, read no clock, open no
file, and say what to do. The async rooms do it, and stay thin. What may hang is called in one place
each (`BORDERS` there): threads, processes, the resolution of names.

Where to look
-------------
a status or the words of an error    `errors`; its form `apis`; who raised it says the log
a request that is refused unread     `http.request_heads`, `http.heads`, `front.conversation`
whether to try again, and when       `errors`, `http.retrying`
a request that waits or is refused   `pool.gate`, `pool.queue`; a suspect: `children.suspects`
an answer that is cut or misshapen   `front.relay`, `front.rendering`, `apis`
a model that is not loaded, or is unloaded    `pool.admission`; what it needs: `children.needs`
a rung that surprises                `children.position`, `memory.ladder`, `learned`
memory that is not there             `memory.readings`, `engine.devices`, `memory.gauge`
a child that died, and when the next one starts    `engine.failures`, `children.restarts`
a child that hangs                   `children.watchdog`, `children.signs`
a llama-server that stays            `processes.orphans`, `processes.process`
a configuration without effect       `reload`, `running`
a line of the log                    `narrator`; its form `logs`
a client that is not let in          `front.doorkeeper`, `access`
a key, to be added                   `config.schema`, `config.checks`, `llamasup.toml`, `running`
a route, to be added                 its dialect in `apis`, or `front.table`; and the README's table
a word of the engine's, to be known  `engine.loglines`, `failures` or `error_messages`, and a log in
                                     `tests/engine/logs`
tests          in the folders of their rooms; beside them `end_to_end` (real engines), `conformance`
               (what engines answer directly and through llamasup), `bench`, `chaos` and `fuzz`
               (`python -m tests.chaos --help`), `clients` (real ones, by the programs of
               `examples/clients`), `devices`, `containers`, `fakes` (an engine that does what it is
               told) and `harness`

Which task belongs to which
---------------------------
    serve
    ├─ signals, and the end of the drain * · as process 1, the reaper of orphans (again)
    ├─ children's nursery (outer: outlives the front)
    │   ├─ control: Hypercorn on a private Unix socket (again)
    │   ├─ the residency's clock: turns that end, models that idle (again)
    │   ├─ a look at the engine · looks into model folders · the notifier of systemd (again)
    │   ├─ the watch over the run folder (again)
    │   ├─ the clocks of trials (`pool.dock`), while a suspect waits or is tried
    │   ├─ usher, one task per model that requests wait for, until its child goes
    │   ├─ endpoint, one task for each, which looks its name up (again); within it, for each
    │   │  instance, a task that asks how it is (again)
    │   └─ keeper, one task per model in memory; one more for a preload, or a model's withdrawal
    │       └─ the child's nursery: the process · a reader of each output · the kernel's count of
    │          kills · the wait for readiness, then the watchdog (again) · the retirement
    └─ front nursery (inner: drained first)
        ├─ the followers of the configuration and of the certificate, until llamasup is told to
        │  stop (again)
        ├─ the lookout for clients that leave (again) · the end of idle connections (again) ·
        │  the keepalive of waiting clients (again) · the listeners (again)
        ├─ the task that tells clients that the drain is over
        └─ a conversation, one task per connection

A task that raises by mistake (`tending`) ends alone: its client, or all that wait for its model,
get an error and can ask again. Tasks marked (again) begin again, at growing intervals: all need
them. Only the one marked * ends llamasup, because nothing could stop it any more. A task in a
child's nursery ends that child.

A client that leaves cancels its conversation; that closes the child's socket, and llama-server
takes that as a cancellation. Nothing else has to be told.

The way of a request
--------------------
1. `front.server` accepts; `front.conversation` reads the request under limits of time and size.
   From then on it is an `exchange`. Requests from the web pages of strangers are refused
   (`access.pages`).
2. `front.routes` finds its goal: a model, an engine's own pages, control, or an error. Where there
   are keys, `front.doorkeeper` finds whose request it is, what that key may do, and what is left to
   it. Without a valid key nothing is loaded or shown. The key itself goes no further.
3. If it is for a model: Ollama's requests go on in an engine's words (`front.interpreter`).
   `pool.roster` knows which model a name means, and looks into the folders again if none does. What
   the model is not made for is refused (`front.purposes`), and the operator's rules are applied to
   the params (`front.filters`).
4. `pool.lease`: the request waits at the model's gate until a child is ready and has a free slot.
   The gate's usher asks the keeper to have one loaded. Requests never wait inside llama-server.
   Meanwhile `front.keepalive` may send comments to a client that asked for a stream.
5. `front.relay` connects to the child, sends, and reads the head of the reply. An error is read
   whole, a stream up to the first token of its answer (`front.stream_events`); pings before that
   are passed on to the client. If the child dies before that token, or says that memory ran out,
   the request is sent again to the next child (`recovery.max_replays` times).
6. From then on the content goes from socket to socket as it comes. It keeps its length or gets
   chunks of ours, so that the client recognises a cut answer. A stream that is cut ends with an
   error event of its API and the last chunk; any other answer ends with a broken connection. The
   same happens to answers that are not done when a drain's time is over; clients that have seen
   nothing by then get a 503.

Each step is told to the journal. Control is one more upstream of the same relay.

The way of a model into memory
------------------------------
A keeper asks the residency how much room there is, and `children.position` chooses the rung. No
rung is chosen above one that ran out of memory. If the context is "auto", the best rung is chosen
whose need fits into the free memory, less `pool.memory_reserve`. A context that the operator wrote
is passed over only if it cannot fit even into an empty machine.

`children.needs` says what a rung needs. If the answer could change the choice, the engine is asked
itself (`children.dry_run` starts it, and ends it before it loads anything); otherwise
`memory.estimate` reckons from the file's header. What was measured of children that worked refines
this, within bounds and for a week, but never refuses a model (`memory.measured`).

Then the keeper asks for a place. `pool.admission` decides about all claims, and again after every
change: which model loads, which idle ones are unloaded for it, which busy ones get no more requests
because their turn is over, which claim is refused. A place is free again when the memory really is
free. Requests wait at their model's gate, by priority and in turns between clients, until there is
a child with a free slot.

The way of an OOM
-----------------
`engine.failures` finds the cause in the log, the exit status, the reply, or the kernel's counter of
kills. First other models that idle are unloaded, each once in a load, and the same rung is tried
again; then the keeper takes the next rung (`children.descent`). While a model loads, that happens
at once. In a reply or a stream only a whole message that backends are known to write counts
(`engine.error_messages`): anything else may quote a client. The child is retired then
(`recovery.retirement` bounds that), and its successor starts on the next rung. Several requests
that meet the same OOM cause one step down.

An OOM is proven (`Cause.proven`) if the kernel tells of it, if it happened while loading, if the
child aborted for it, or if a second request met it. Then the rung on which the next child gets
ready is remembered in `learned`, and later loads begin there. A higher rung is tried after a week,
or when `ladder.climb_interval` has passed and more memory is free than there was then. A model that
ran out while others held memory is tried again as soon as they are gone. If the last rung fails,
the client gets a 503 that lists what was tried; the next attempt is made after a minute, or when
more memory becomes free.

The way of a death
------------------
`children.restarts` decides when a successor may start: the first at once, then after 1, 2, 4 … 60
s; ten healthy minutes begin that anew. What cannot succeed (wrong flags, a broken file, five failed
starts) is given up until the model's file, its configuration or the engine changes, or until a
`POST /api/restart?model=…`. A request waits if the start is due within `recovery.patience`, else it
gets a 503 with `Retry-After`. Only preloaded models are started again without a request.

`children.watchdog` accepts progress as a sign of life: tokens, the steps of a prefill, the slots'
counters; and within a batch, which shows none of these, that the process computes. `/health` stays
green while slots hang, so it counts only for an idle child.

Each request is responsible for what it does (`children.suspects`). The inquest notes the requests
that were in flight at a death, or whose clients had left shortly before. Each of these suspects is
sent once more, alone on the next child, while others wait for some seconds (`pool.dock`). If that
child dies, too, the request is refused for a minute, and longer each time; if it answers, it is
cleared. Deaths that are explained so do not count against the model, nor against the replays of
other requests.

The way of a new configuration
------------------------------
`reload.Follower` reads the file every two seconds, and loads it when its content is another one and
the same for two looks; at a SIGHUP it loads it in any case. `POST /config` brings a configuration
over HTTP. `running` does first what can fail, and listens on new addresses last; then everything
takes effect at once. If anything fails, nothing has changed. A child whose launch has changed
(`Plan.launches_like`) is retired, and may take as long for its answers as it likes; its model's
history is forgotten. So is a child whose model is gone. Other models notice nothing. What decides
about programs, files or operators' keys cannot be changed over HTTP (`control.posted`).

The way to an instance elsewhere
--------------------------------
Requests for models of `[[endpoints]]` wait in `pool.outside`, in a fair line for each model, until
an instance has room: never more requests go to it than it has slots. A `RemoteLease` holds a place
and a connection. An instance that does not accept is left for the next one at once, and is asked
again within a second; one that says that it loads, or has no room, sends the request back into the
line. One that took a request and gave no answer rests, and is tried with one request then; a
request that met three of these is refused, as it may be what ends them. A model that is here and
elsewhere waits in both lines (`pool.either_lease`).

An instance that is a llamasup tells more (`pool.offers`): where each model is, its free slots, and
what would go for it. The one in front keeps a question open, which is answered as soon as there is
news, and chooses (`endpoints.balance`): where the model is loaded and has a free slot; else where
it fits; else where the least must go, but not while there is a copy anywhere. The request says what
is expected (`X-Llamasup-Expects`). It comes back if that has changed: also while it waits, when
others have their turn first. It is taken back if it waits for a load when a copy gets free
elsewhere; a load that has no place yet is given up then. `Via` names each llamasup on
the way: a request that goes in a circle is refused.

Principles
----------
Nearly every fault that was found in use had two causes at the same time, and broke one of these:

1. Words of clients decide nothing. What an engine logs or answers about a request is data.
2. Each request is responsible for what it does: deaths count against the requests in flight.
3. What a client can make grow has a bound in bytes, time and CPU, alone and together with others;
   at the bound the greediest client loses first. No request holds the loop for more than 5 ms.
4. Beliefs heal: what was learned or measured ages, and is overruled by the engine's word and by the
   room there is.
5. For memory, idle models are unloaded first; only then a model's context becomes smaller.
6. The devices that count are those that the engine lists.
7. The loop waits for nothing outside: no disk, no pipe, no driver, no log.
8. A task that raises by mistake ends alone. A second signal to stop is obeyed, whatever hangs.
9. Every page, user, engine and key reaches no more than it must.

Decisions, and why: requests
----------------------------
- **A front of our own, with Hypercorn behind it.** Hypercorn's trio worker ends its `serve` when
  one connection's reader raises, cannot time out a stalled client, loses disconnects, and costs
  four to ten times more per token. So it never faces the network, and never carries tokens.
- **h11 reads heads, `framing` measures bodies.** h11 reads chunk sizes leniently (extensions), and
  that is where two servers come to disagree about where a request ends. Two regular expressions
  read the heads that most clients send, in a sixth of the time, and leave all others to h11
  (`http.request_heads`).
- **Params are edited in the text of a body** (`models.params`), so that what no rule names stays as
  it was written, such as 1e400; that takes 5 µs. Of a large body the reader that looks for the
  model notes where each member lies: only those that rules name are read, and what is sent is the
  old body with other parts in it. A body that no rule can be applied to is refused if a rule
  overrules clients, because a form would evade it.
- **A head that two servers could read differently is refused** (`http.heads`): a client's with a
  400, an engine's with a 502.
- **The model's name is looked for in a large body while it arrives,** in small steps: decoding it
  at once would hold the loop. A small body is decoded at once, but only the members that matter
  become objects.
- **No client may hold more of the memory for requests than others leave** (`front.shares`), so some
  is always left for another client. What answers hold never waits for it (`front.rooms`): the child
  would wait, too. Rather, less of a stream is held back. Large bodies lie in nameless files: a
  queue of them would push models out of memory, and a replay needs them whole.
- **A web page of strangers is refused before anything is done.** A browser sends a page's request
  and only hides the answer; so `Origin` decides. For operators' pages `Host` decides, too, because
  of DNS rebinding.
- **Keys are looked up by their SHA-256,** and only that is kept. The time this takes says nothing
  about a key, and it takes a microsecond; a slow hash would cost each request milliseconds, and is
  meant for words that people choose. So keys have 16 characters or more.
- **What was used lately may decide who goes first** (`pool.fair = "tokens"`), and is forgotten by
  halves, so that nobody waits long for what he did. Requests in flight count as average ones: else
  a newcomer would get all slots before his first answer is over.
- **Tokens are counted after the answer,** because nobody knows them before, and no answer is cut:
  a key waits until its debt has flowed back.
- **Clients take turns by valid key, or else by address, then by key.** Keys that nobody checks can
  be invented; addresses cost something. Urgency is a client's own word, so urgent requests get
  every other turn at most. When a queue or the server is full, newcomers are let in: the client
  with the longest queue loses its last request, or the connection that has been idle longest is
  closed.
- **A child never has more requests than slots,** and few small ones beside them, such as counting
  tokens. llama-server's own queue is not fair, and does not notice clients that leave.
- **Looking loads nothing.** Scrapers poll; they would load, evict and keep awake whatever they look
  at. Listings are made from files' headers.
- **The routes are one table,** with all that is said of them: the front, control, who may come in
  and `/openapi.json` cannot disagree, and what is published is fuzzed.
- **Below `/upstream/` are engines of ours, and no instances elsewhere:** such an instance may be a
  whole server, with other models and operators' pages, and it lets us in with our own key.
- **What a name means is taken widely for a request, and strictly for an operator:** clients add
  tags, prefixes and names that nobody can change; but a restart by a wrong name must not hit the
  default model.
- **One connection per request to a child.** Kept-alive ones pin llama-server's worker threads, a
  stream closes its connection anyway, and closing is how a request is cancelled.
- **TLS only changes bytes** (`http.tls_connection`): sessions have no sockets of their own. So a
  client over TLS is noticed, waited for and held back as any other is, and plain ones pay nothing.
  Which addresses speak TLS says each address itself (`https://:8443`): a certificate that is shown
  nowhere is a mistake that nobody would notice.
- **One task notices all clients that leave** (`http.disconnects`), not a watcher for each: that
  saves 12 µs per request. A client that shuts down only its sending side counts as gone: the kernel
  tells the two apart only when something is sent.
- **One task closes all connections that idle** (`front.server`), instead of a deadline for each
  wait: that saves 10 µs per request. **One task sends all keepalive comments,** so none is
  cancelled half-way.
- **A replay is possible until the first token of an answer.** llama-server sends a stream's head
  before it reads the prompt, and pings meanwhile; an OOM of the prefill comes as the first event.
  So pings are passed on, and events that only open an answer are held back. After the first token,
  another engine would have to continue a begun answer, which not every API and model can.
- **A part of an event is held back,** up to 64 KiB: an error event can only follow a whole event.
  llama-server writes each event as one chunk, so normally nothing waits.
- **A suspect's replay is its trial.** One death is no proof against a request: a `kill -9` looks
  the same. Only the death of a child that had no other request is certain; other deaths must be
  three before they count. The first sentence is a minute. A client whose different requests ended
  children is suspected as a whole, until one of its requests is answered: behind a proxy, one
  client is many.
- **All reads share one buffer,** and what came is copied. A buffer for each read, cut down to the
  little that came, fragmented the heap: a megabyte more every five minutes. For the same reason,
  worker threads get no heaps of their own (`cli.serve`).

Decisions, and why: children
----------------------------
- **Unix sockets to the children** in a private folder: no port to collide or to scan. TCP on
  loopback where the engine knows no Unix sockets, or by `engine.port_range_start`.
- **Of other servers only HTTP and the exit status are understood.** Their log lines may be clients'
  words, or only the echo of our questions, so while they start they have to compute, not to talk.
  They have no rungs: if memory runs out, idle models go; then only their `memory` can be corrected.
- **A port proves nothing by answering:** another program may have taken it just before the child
  did. The kernel says who listens there: another user's program ends the start, and one that is no
  relative of the child's counts only when the child has lived on beside it (it may publish the port
  of a container).
- **A load belongs to its keeper,** not to the request that caused it: otherwise impatient clients
  that try again would never see a model that loads slowly.
- **Readiness is heard, not polled:** a log line is the hint, one `/health` the proof. Engines whose
  words are unknown are polled, at growing intervals. A load may take as long as it likes, but must
  not be silent for longer than `engine.load_timeout`. Hints count only while a child starts, and
  only in its engine's form of a log line: later ones may be a client's words.
- **A child that computes is alive.** In a batch llama-server produces no tokens and answers
  nothing. A child that computes without any other sign is ended after 12 times `stall_timeout`. At
  the defaults that is 36 min, enough for a batch of 2,048 tokens at one a second.
- **A stop is TERM, the end of stdin, then KILL to the process group.** Both outputs are read to
  their end meanwhile: a child that cannot write its last words does not end. llama-server's own
  child mode (for its router), which we use for its messages, does not end by TERM alone.
- **No PR_SET_PDEATHSIG:** trio forks in a worker thread that ends when it is idle, and the signal
  is bound to that thread. A child that a `kill -9` leaves behind ends when its stdin ends; while it
  loads, by the SIGIO of that pipe (`processes.lifeline`); and the next start of llamasup ends what
  is left (`processes.orphans`).
- **Circumstances are noted when a load begins,** not when it failed: a file may be whole by then.
- **The run folder is checked once a second,** and made again if it is gone: systems remove it at a
  logout.
- **Children that may have company sleep while their threads wait** (`engine.cores`), and the system
  shares the cores: two that spin on two cores write 0.4 tokens a second each, instead of 42.
- **Engines inherit only variables that engines know,** and no keys: neither ours nor clients'.
- **The log explains the death of a working child only if the child aborts,** and then only its last
  words: clients can write lines, clocks and levels into the log, but not after those.

Decisions, and why: memory
--------------------------
- **Only a whole message of the engine's can say that memory ran out,** from beginning to end, in
  the words that backends are known to use. Any part may be quoted from a request, and could push a
  model down its ladder.
- **The kernel's kills for memory count for some seconds, and only in our own cgroup.** Only root
  learns which process was killed; with a count since the child's start, an earlier kill of a
  browser would explain today's SIGKILL.
- **Only rungs that ran out of memory are learned,** as the limit above which no load begins. A rung
  that was passed over because room was short says nothing about the next time.
- **For a load that ran out, idle models are unloaded: first one, then as many as have gone
  before.** How much is missing is unknown, and each try may take minutes. Each model goes once, so
  that models that come back cannot keep this one from stepping down.
- **A model that failed while others held memory is tried again when a child goes that had been
  ready,** not when a load fails: otherwise two models that do not fit would wake each other for
  ever.
- **Where several busy models have to make room, they get no more requests; one that is idle while
  another still answers is opened again,** for it would only wait. The one that became idle last
  stays closed, so that each round leaves one less: else they might never be idle at the same time.
- **A need on several GPUs is a need of all of them together,** and is divided among them only when
  the model gets its place, as the engine divides it. Divided earlier, it would refuse a model
  although an idle one could make room.
- **A model's own engine has the budgets of the common one.** Its CUDA0 may be another card's name
  there, because its environment hides the first one, or its build has another backend.
- **Vendors' tools only refine.** They number and name GPUs otherwise than the engine, and know no
  Vulkan and no RPC; but they say cheaply how much is free. Their word counts for a GPU that is
  certainly one of the engine's (by PCI id or UUID). Memory that GPUs share with the host counts
  once. An RPC server belongs to one model at a time: it keeps all others waiting.
- **An RPC server that does not answer is done without, if the model fits.** Otherwise its model
  waits until it answers, however long. A connection that is accepted is the sign. One that serves a
  child of ours is not called: its queue of callers holds only one or two.
- **A model larger than memory is allowed only where the operator says so** (`overcommit`). Who took
  too large a file by mistake would get a machine that reads its disk all day.

Decisions, and why: the world
-----------------------------
- **A line for each model, not for each instance:** an instance that falls would take its line with
  it, and one that gets free would have to take from others' lines.
- **Names are looked up again after 30 s at most,** and when an instance cannot be reached:
  container networks give addresses that come and go a lifetime of a day.
- **An instance that is away is asked every half second,** without longer and longer pauses: that
  costs 0.2 ms, and a restart is over as soon as it is over. Pauses grow for those that refuse us,
  or that gave no answer to requests.
- **The log holds up no task.** A thread of its own writes from a ring of bounded size. When that is
  full the newest lines are dropped and counted: the lines about how trouble began are worth more. A
  record is one line, and escaped: names, targets and engines' words come from others.
- **Worker threads can always be left behind.** A thread that hangs on a disk never comes back. So
  each kind of work has a few of its own (`threads.Lane`). A folder or disk that hangs has one
  thread waiting for it, and until it answers what was known before is used. Only regular files are
  opened: opening a FIFO may take for ever.
- **A shortage is no verdict** (`shortages`). An engine that cannot be started or asked because
  descriptors, processes, threads or ports are lacking is neither unusable nor dead, and is not
  given up. One descriptor is kept in reserve, so that a client that comes when there is none left
  can be told.
- **Tasks that begin again do so without end,** at growing intervals: a clock that was given up
  would never unload a model again.
- **The last word is the kernel's:** from the first signal to stop, an alarm runs that ends the
  process whatever hangs. A SIGHUP is a stop, too, if the terminal was closed that llamasup was
  started from (without nohup).
- **Files that others could have written are not trusted** (`ownership`): a llamasup.toml found by
  chance names programs, and marks in a run folder name processes to end.
- **Learned rungs and footprints are the only state on disk,** under digests, because arguments hold
  secrets. Running children are marked in the run folder, which a reboot empties.
- **Folders are read when it matters, not watched:** before a listing, before an unknown model's
  name is refused, when a model's file is missing; once a second at most. 2,000 files take about 0.1
  s, and llamasup sleeps while nothing is asked.
- **The configuration in effect has one holder** (`config.in_effect`), which the rooms read when it
  matters. What has to act on a change (listeners, keepalive, clocks, children) is told in one
  place, in order (`running`).
- **Things that happen are told once, to the journal** (`events`). The log is its first listener.
  The course of a request is told only where something listens to it: it would cost 6 µs.
- **Errors of engines are read in all dialects, ours are written in one.** Which form an engine uses
  at a path has changed from version to version (`engine.error_messages`).
- **A translated stream is held back, replayed and cut like any other:** only what is passed on at
  last is told in the client's API (`front.translated_answer`), always in whole lines. While it
  waits, its client gets blanks: JSON allows them before a value, but no comments.
- **A client's `keep_alive: 0` unloads only what nobody else uses.** Many clients say it with every
  request; other times are not obeyed, because the memory belongs to all.
- **A key joins the configuration with the capability that reads it.** No key is without effect, and
  only `[folders]` needs a restart.
"""

__version__ = "0.1.0"
