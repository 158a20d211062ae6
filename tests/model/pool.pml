// SPDX-License-Identifier: MIT
// The worker pool's protocol (src/sched): publish, claim, steal, report, advance, park, wake, stop. README.md is its guide.
//
// Chosen by -D: N workers; S0 to S6, the stages of all regions in a row (n >= 2: a stage of n grains; 1: a stage of one tile, run
// by the advancer alone; 0: the end of a region); REGIONS; TWO_GROUPS, PARK, LONG_STAGES, NO_DESTROY, WEAK_MEMORY;
// one BREAK_* at most. Each step is one access to shared memory; what else stands in its d_step or atomic is bookkeeping.

// ---- groups of workers that share a last-level cache -------------------------------------------------------------------------
#ifdef TWO_GROUPS // the second has the last worker
#define GROUPS 2
#define GROUP_OF(w) ((w) / (N - 1))
#define GROUP_SHARE(group, grains) ((group) == 0 -> FIRST(N - 1, grains) : SHARE(N - 1, grains))
#define BUSY_GROUPS(grains) ((GROUP_SHARE(0, grains) > 0) + (GROUP_SHARE(1, grains) > 0))
#else
#define GROUPS 1
#define GROUP_OF(w) 0
#define GROUP_SHARE(group, grains) (grains)
#endif

// ---- what the caller asks for ------------------------------------------------------------------------------------------------
#ifndef S5
#define S5 0
#endif
#ifndef S6
#define S6 0
#endif
#define PLAN(i) ((i) == 0 -> S0 : ((i) == 1 -> S1 : ((i) == 2 -> S2 : ((i) == 3 -> S3 : ((i) == 4 -> S4 : ((i) == 5 -> S5 : S6))))))

// ---- epochs: MODULO stands for 2^32, REFRESH_EVERY for 2^30 ------------------------------------------------------------------
#define MODULO 8
#define REFRESH_EVERY (MODULO / 4)
#ifndef EPOCH_START
#define EPOCH_START 5
#endif
#define NEXT(e) (((e) + 1) & (MODULO - 1))
#define OLDER(a, b) ((((a) - (b)) & (MODULO / 2)) != 0) // (int32_t)(a - b) < 0

// ---- shares: src/sched/share.h, equal weights ----------------------------------------------------------------------------
#ifdef FAST_LAST // the last is so much faster that those between it and the caller get nothing of a few grains
#define FIRST(w, grains) ((w) == 0 -> 0 : ((w) == N -> (grains) : 1))
#else
#define FIRST(w, grains) (((grains) * (w) + N - 1) / N)
#endif
#define SHARE(w, grains) (FIRST((w) + 1, grains) - FIRST(w, grains))
#define ALL_OF(grains) ((1 << (grains)) - 1)

// ---- shared memory -----------------------------------------------------------------------------------------------------------
byte open_epoch[GROUPS] = EPOCH_START; // `open` of each group: epoch, grains and STOP are one word
byte open_grains[GROUPS];
bit open_stop[GROUPS];
byte range_epoch[N] = EPOCH_START; // `range` of each worker: epoch, lo, hi are one word
byte range_lo[N], range_hi[N];
byte finished[GROUPS];
byte groups_done;
byte fields[GROUPS] = EPOCH_START; // of each group: fn, arg, n_tiles, grain: the epoch of the stage they describe
byte epoch = EPOCH_START;  // the advancer's alone, like next_stage
byte next_stage;
#ifdef PARK
bit parked[N];
short sleepers;
bit asleep[N]; // the kernel's: blocked in FUTEX_WAIT
#ifndef SPURIOUS
#define SPURIOUS 0
#endif
byte spurious; // waits that a signal has ended
#endif
byte ended; // threads that have returned: what join waits for

// ---- ghosts: what really happens ---------------------------------------------------------------------------------------------
byte true_epoch = EPOCH_START; // of the open stage
bit stage_open;
byte stage_grains;
byte ran, returned; // grains of the stage: the set of those started, the number of those returned
byte advancers;
byte regions_ended;
byte regions_returned;
bit caller_done;
#ifdef LONG_STAGES // a tile returns only when every owner of a share has seen its stage: so each must be woken
#define HAS(w, grains) (((w) < N && SHARE(w, grains) > 0) << (w))
#define OWNERS(grains) (HAS(0, grains) | HAS(1, grains) | HAS(2, grains) | HAS(3, grains))
byte seen; // workers that have seen the open stage
#endif

// The properties. hidden: not part of the state.
hidden byte tile_runs_once = true;
hidden byte claim_holds_its_stage_open = true;
hidden byte fields_are_those_of_the_claimed_stage = true;
hidden byte stage_waits_for_all_tiles_before_it = true;
hidden byte writes_of_a_stage_reach_the_next = true;
hidden byte one_advancer = true;
hidden byte region_returns_when_all_is_done = true;
hidden byte last_report_makes_an_advancer = true;
hidden byte work_never_waits_for_a_sleeper = true;
hidden byte parked_caller_is_woken = true;
hidden byte sleeping_owner_is_woken = true;
hidden byte destroy_ends_every_worker = true;
hidden byte idle_workers_sleep = true;
hidden byte sleepers_are_counted = true;
#define CLAIM(property, condition) property = (condition); assert(property)

// ---- weak memory: stores that wait in a worker's store buffer ----------------------------------------------------------------
// A plain or relaxed store becomes visible at some later time, in any order; a release store after all stores before it; a
// seq_cst store before anything else that this worker does; a read-modify-write at once, after what it must follow.
#ifdef WEAK_MEMORY
byte late_writes[N]; // of tiles: 0 none; 1 of the open stage; 2 of an earlier one
bit late_fields, late_finished, late_open;     // only one advancer has any
byte late_fields_value, late_open_epoch, late_open_grains, late_open_stop;
bit late_parked[N];

#ifdef BREAK_RELAXED_FIELDS
#define FIELDS_RELEASED true
#else
#define FIELDS_RELEASED !late_fields
#endif
#ifdef BREAK_RELAXED_RESET
#define RESET_RELEASED true
#else
#define RESET_RELEASED !late_finished
#endif

active proctype memory() {
    byte w;
end:
    do
    :: atomic { late_fields -> fields[0] = late_fields_value; late_fields = 0; late_fields_value = 0 }
    :: atomic { late_finished -> finished[0] = 0; late_finished = 0 }
    :: atomic { late_open && FIELDS_RELEASED && RESET_RELEASED ->
           open_epoch[0] = late_open_epoch; open_grains[0] = late_open_grains; open_stop[0] = late_open_stop;
           late_open = 0; late_open_epoch = 0; late_open_grains = 0; late_open_stop = 0 }
    :: atomic { late_writes[0] > 0 -> late_writes[0] = 0 }
    :: atomic { late_writes[1] > 0 -> late_writes[1] = 0 }
#if N > 2
    :: atomic { late_writes[2] > 0 -> late_writes[2] = 0 }
#endif
#ifdef PARK
    :: atomic { late_parked[0] -> parked[0] = 1; late_parked[0] = 0 }
    :: atomic { late_parked[1] -> parked[1] = 1; late_parked[1] = 0 }
#if N > 2
    :: atomic { late_parked[2] -> parked[2] = 1; late_parked[2] = 0 }
#endif
#endif
    od
}
#endif

#ifdef WEAK_MEMORY
#define RELEASE (late_writes[me] == 0) // a release store comes after all of this worker's stores before it
#define VISIBLE(w) (late_writes[w] < 2 || (w) == me)
#if N == 2
#define ALL_VISIBLE (VISIBLE(0) && VISIBLE(1))
#else
#define ALL_VISIBLE (VISIBLE(0) && VISIBLE(1) && VISIBLE(2))
#endif
#endif

// ---- park and wake: src/sched/wait.c -----------------------------------------------------------------------------------------
#define MY_OPEN_CHANGED (open_epoch[GROUP_OF(me)] != e || open_stop[GROUP_OF(me)])

#ifdef PARK
// A look, the exchange, the count, FUTEX_WAKE.
inline wake_one(whom) {
    if
    :: parked[whom] ->
        if
        :: atomic { parked[whom] -> parked[whom] = 0 };
#ifndef BREAK_WAKER_FORGETS_COUNT
            sleepers--;
#endif
            asleep[whom] = 0
        :: else
        fi
    :: else
    fi
}

// The publisher wakes the root of the tree, the caller. Every worker that sees a new stage wakes its children; for a child that
// sleeps and owns no share it looks at that child's children. A worker that is awake sees to its own.
inline wake_root() {
    if
    :: me != 0 && sleepers > 0 -> wake_one(0)
    :: else
    fi
}

inline wake_children() {
    child = 2 * me + 1;
    do
    :: child < N && child <= 2 * me + 2 && sleepers > 0 ->
        if
        :: parked[child] ->
            if
            :: SHARE(child, g) > 0 -> wake_one(child)
#if N > 3 && !defined(BREAK_TREE_CUT)
            :: SHARE(child, g) == 0 && child == 1 -> wake_one(3)
#endif
            :: else
            fi
        :: else
        fi;
        child++
    :: else -> break
    od;
    child = 0
}

inline park() {
#ifndef BREAK_FLAG_BEFORE_COUNT
    sleepers++;
#endif
#ifdef WEAK_MEMORY
    late_parked[me] = 1;
#ifndef BREAK_RELAXED_PARK
    !late_parked[me]; // seq_cst
#endif
#else
    parked[me] = 1;
#endif
#ifdef BREAK_FLAG_BEFORE_COUNT
    sleepers++;
#endif
    if
#ifndef BREAK_NO_RECHECK
    :: MY_OPEN_CHANGED ->
#ifdef WEAK_MEMORY
        !late_parked[me];
#endif
        if
        :: atomic { parked[me] -> parked[me] = 0 };
            sleepers--
        :: else
        fi
    :: else ->
#else
    :: true ->
#endif
#ifdef WEAK_MEMORY
        !late_parked[me]; // a system call orders everything
#endif
        do
        :: atomic { parked[me] -> asleep[me] = 1 }; // FUTEX_WAIT: the kernel compares and sleeps in one step
        end_asleep: // the watchdog says whether this may be the end
            if
            :: !asleep[me]
            :: atomic { spurious < SPURIOUS -> spurious++; asleep[me] = 0 } // a signal
            fi
        :: else -> break
        od
    fi
}
#endif

// Bounded polling: it either sees the change in time, or has seen none and parks.
inline wait() {
#ifdef WEAK_MEMORY
    !late_open; // a worker sees its own stores
#endif
#ifdef BREAK_RELAXED_LOAD
    early_fields = fields[GROUP_OF(me)];
#endif
    do
    :: d_step {
            MY_OPEN_CHANGED ->
            e = open_epoch[GROUP_OF(me)];
            g = open_grains[GROUP_OF(me)];
            stop = open_stop[GROUP_OF(me)];
#ifdef LONG_STAGES
            if
            :: stage_open && e == true_epoch -> seen = seen | (1 << me)
            :: else
            fi
#endif
        }
        break
#if defined(PARK) && !defined(BREAK_SPIN_FOREVER)
    :: else -> park()
#endif
    od
}

// ---- a tile: two steps, so that it can be caught running -------------------------------------------------------------------
#define STAGE_HELD (stage_open && true_epoch == e)
#ifdef BREAK_RELAXED_LOAD // nothing keeps the reads of the fields after the load of open
#define FIELDS early_fields
#else
#define FIELDS fields[GROUP_OF(me)]
#endif

inline run_tile() {
    d_step {
        CLAIM(tile_runs_once, (ran & (1 << tile)) == 0);
        CLAIM(claim_holds_its_stage_open, STAGE_HELD);
        CLAIM(fields_are_those_of_the_claimed_stage, FIELDS == e);
#ifdef WEAK_MEMORY
        CLAIM(writes_of_a_stage_reach_the_next, ALL_VISIBLE);
#endif
        ran = ran | (1 << tile)
    }
#ifdef LONG_STAGES
    (seen & OWNERS(g)) == OWNERS(g);
#endif
    d_step {
        CLAIM(claim_holds_its_stage_open, STAGE_HELD);
#ifdef WEAK_MEMORY
        if
        :: late_writes[me] == 0 -> late_writes[me] = 1
        :: else
        fi;
#endif
        returned++;
        tile = 0
    }
}

// ---- claim, steal, report: src/sched/region.c --------------------------------------------------------------------------------
#ifdef BREAK_NO_TAG
#define UNTOUCHED false
#define CLAIMABLE (lo < hi)
#define SAME_WORD (range_lo[victim] == lo && range_hi[victim] == hi)
#else
#define UNTOUCHED (word != e && !OLDER(e, word) && SHARE(victim, g) > 0)
#define CLAIMABLE (word == e && lo < hi)
#define SAME_WORD (range_epoch[victim] == word && range_lo[victim] == lo && range_hi[victim] == hi)
#endif
#ifdef BREAK_CLAIM_NOT_ATOMIC
#undef SAME_WORD
#define SAME_WORD (range_epoch[victim] == word)
#endif
#ifdef BREAK_NO_SECOND_LOOK
#define STILL_BELIEVED true
#else
#define STILL_BELIEVED (open_epoch[GROUP_OF(me)] == e)
#endif

// Claims and runs grains of one worker's share until none is left there. done: how many.
inline take_from_victim() {
    do
    :: d_step { word = range_epoch[victim]; lo = range_lo[victim]; hi = range_hi[victim] }
        if
        :: CLAIMABLE
        :: UNTOUCHED ->
            if
            :: STILL_BELIEVED
            :: else -> break // a stall of half the wrap: the word is not older, it is newer
            fi
        :: else -> break
        fi;
        atomic {
            claimed = SAME_WORD;
            if
            :: claimed ->
                if
                :: UNTOUCHED -> lo = 0; hi = SHARE(victim, g)
                :: else
                fi;
                if
                :: victim == me -> tile = FIRST(victim, g) + lo; lo++
                :: else -> hi--; tile = FIRST(victim, g) + hi
                fi;
                range_epoch[victim] = e; range_lo[victim] = lo; range_hi[victim] = hi
            :: else
            fi;
            word = 0; lo = 0; hi = 0
        }
        if
        :: claimed ->
            claimed = false;
            done++;
#ifdef BREAK_REPORT_FIRST
            report();
#endif
            run_tile()
        :: else
        fi
    od;
    word = 0; lo = 0; hi = 0
}

// advancing: true if this was the last report of the stage.
inline report() {
#if defined(WEAK_MEMORY) && !defined(BREAK_RELAXED_REPORT)
    RELEASE;
#endif
    d_step {
        finished[GROUP_OF(victim)] = finished[GROUP_OF(victim)] + done;
#ifdef BREAK_REPORT_NOT_ATOMIC
        done = 0
    }
    d_step {
#endif
        last = finished[GROUP_OF(victim)] == GROUP_SHARE(GROUP_OF(victim), g);
        done = 0
    }
#if GROUPS > 1
    if
#ifdef BREAK_EVERY_GROUP_ADVANCES
    :: last
#else
    :: last -> d_step { groups_done++; last = groups_done == BUSY_GROUPS(g) }
#endif
    :: else
    fi;
#endif
    if
    :: d_step { last -> CLAIM(one_advancer, STAGE_HELD && advancers == 0); advancing = true; last = false }
    :: else
    fi
}

inline take_tiles() {
    victim = me;
    do
    :: take_from_victim();
#ifndef BREAK_REPORT_FIRST
        if
        :: done > 0 -> report()
        :: else
        fi;
#endif
        done = 0;
        tried = tried | (1 << victim);
        if
        :: advancing -> break
        :: else
        fi;
#ifdef NO_STEALING
        break
#else
        if // the fullest first: any order
        :: !(tried & 1) -> victim = 0
        :: !(tried & 2) -> victim = 1
#if N > 2
        :: !(tried & 4) -> victim = 2
#endif
#if N > 3
        :: !(tried & 8) -> victim = 3
#endif
        :: else -> break
        fi
#endif
    od;
    tried = 0; victim = 0
}

#if defined(BREAK_GROUP_BACKWARDS)
#define STILL_OPEN(new_epoch, new_stop) true
#define COPY_IS_OLD(new_epoch) true
#elif defined(BREAK_GROUP_FORWARD_ONLY) // what is older is asked of the epochs, which a stall of half the wrap turns round
#define STILL_OPEN(new_epoch, new_stop) OLDER(open_epoch[1], new_epoch)
#define COPY_IS_OLD(new_epoch) (open_epoch[1] == word)
#else
#define STILL_OPEN(new_epoch, new_stop) (open_epoch[0] == (new_epoch) && open_stop[0] == (new_stop))
#define COPY_IS_OLD(new_epoch) (open_epoch[1] == word)
#endif

// ---- the advancer ------------------------------------------------------------------------------------------------------------
// Nobody can claim now: the ranges that were never touched for long are moved up, before they can look newer.
inline refresh_ranges() {
#ifndef BREAK_NO_REFRESH
    if
    :: epoch % REFRESH_EVERY == 0 ->
        do
        :: k < N -> d_step { range_epoch[k] = epoch; range_lo[k] = 0; range_hi[k] = 0; k++ }
        :: else -> break
        od
    :: else
    fi;
#endif
    k = 0
}

// One word per group; the first one opens the stage. The others change only while it still is the open one: a publisher that
// comes late must leave alone what a later one stored.
inline store_open(new_epoch, new_grains, new_stop) {
#ifdef WEAK_MEMORY
    RELEASE;
    d_step { late_open = 1; late_open_epoch = new_epoch; late_open_grains = new_grains; late_open_stop = new_stop }
#ifndef BREAK_RELAXED_OPEN
    !late_open; // seq_cst: visible before the look for sleepers
#endif
#else
    d_step { open_epoch[0] = new_epoch; open_grains[0] = new_grains; open_stop[0] = new_stop };
#if GROUPS > 1
    word = open_epoch[1];
    do
    :: STILL_OPEN(new_epoch, new_stop) ->
        if
        :: atomic { COPY_IS_OLD(new_epoch) -> open_epoch[1] = new_epoch; open_grains[1] = new_grains; open_stop[1] = new_stop };
            break
        :: else -> word = open_epoch[1]
        fi
    :: else -> break
    od;
    word = 0
#endif
#endif
}

// A stage of one tile.
inline run_alone() {
    d_step {
        CLAIM(one_advancer, advancers == 1);
        CLAIM(stage_waits_for_all_tiles_before_it, !stage_open);
#ifdef WEAK_MEMORY
        CLAIM(writes_of_a_stage_reach_the_next, ALL_VISIBLE);
        late_writes[me] = 2;
#endif
        next_stage++
    }
}

inline reset_finished() {
    groups_done = 0;
    for (k : 0 .. GROUPS - 1) { finished[k] = 0 }
    k = 0
}

inline reset_words() {
    for (k : 0 .. N - 1) { range_epoch[k] = publish_epoch; range_lo[k] = 0; range_hi[k] = SHARE(k, publish_grains) }
    k = 0
}

// The caller of this is alone in the region: every tile so far has returned, none is published.
inline advance() {
    d_step {
        CLAIM(one_advancer, advancers == 0);
        CLAIM(stage_waits_for_all_tiles_before_it, returned == stage_grains);
        advancers++;
        stage_open = 0
    }
    do
    :: PLAN(next_stage) == 1 -> run_alone()
    :: else -> break
    od;
    refresh_ranges();
    d_step {
        publish_epoch = NEXT(epoch);
        publish_grains = PLAN(next_stage);
        epoch = publish_epoch;
        next_stage++;
        advancing = false
    }
    if
    :: publish_grains > 0 ->
#ifdef WEAK_MEMORY
        !late_fields && !late_finished;
        d_step { late_fields = 1; late_fields_value = publish_epoch }
        late_finished = 1;
#else
        do
        :: k < GROUPS -> fields[k] = publish_epoch; k++
        :: else -> k = 0; break
        od;
#ifndef BREAK_LATE_RESET
        atomic { reset_finished() }
#endif
#endif
#ifdef BREAK_NO_TAG
        d_step { reset_words() }
#endif
    :: else
    fi;
    atomic { // from here on the stage may run, and end, at any moment
        CLAIM(one_advancer, advancers == 1);
        advancers--;
        true_epoch = publish_epoch;
        stage_open = publish_grains > 0;
        stage_grains = publish_grains;
        returned = 0;
        ran = (stage_open -> 0 : ran);
#ifdef WEAK_MEMORY
        for (k : 0 .. N - 1) { late_writes[k] = (late_writes[k] > 0 -> 2 : 0) }
        k = 0;
#endif
#ifdef LONG_STAGES
        seen = 0;
#endif
        regions_ended = regions_ended + (publish_grains == 0)
    }
    store_open(publish_epoch, publish_grains, 0);
#ifdef BREAK_LATE_RESET
    if
    :: publish_grains > 0 -> d_step { reset_finished() }
    :: else
    fi;
#endif
#ifdef PARK
    if
    :: publish_grains > 0 -> wake_root()
    :: else ->
#ifndef BREAK_FORGET_CALLER
        if
        :: me != 0 -> wake_one(0)
        :: else
        fi
#endif
    fi;
#endif
    publish_epoch = 0; publish_grains = 0
}

// ---- the threads -------------------------------------------------------------------------------------------------------------
inline destroy() {
    epoch = NEXT(epoch);
    store_open(epoch, 0, 1);
#if defined(PARK) && !defined(BREAK_STOP_WAKES_NOBODY)
    victim = 1;
    do
    :: victim < N -> wake_one(victim); victim++
    :: else -> victim = 0; break
    od;
#endif
    ended == N - 1
}

// Worker 0 is the caller.
#ifdef BREAK_CALLER_LEAVES // when all tiles have started
#define LEAVES (me == 0 && stage_open && ran == ALL_OF(stage_grains))
#else
#define LEAVES false
#endif
#define REGION_OVER (g == 0 || LEAVES)
proctype worker(byte me) {
    byte e = EPOCH_START, g;    // the belief: the last value of `open` that this worker has read
    bool stop, advancing = (me == 0);
    byte word, lo, hi, victim, tried, done, tile, k, child, publish_epoch, publish_grains;
    bool claimed, last;
#ifdef BREAK_RELAXED_LOAD
    byte early_fields;
#endif
    do
    :: advancing -> advance()
    :: else ->
        wait();
        if
        :: stop -> break
        :: !stop && g > 0 && !LEAVES ->
#ifdef PARK
            wake_children();
#endif
            take_tiles()
        :: d_step {
                !stop && me == 0 && REGION_OVER ->
                regions_returned++;
                CLAIM(region_returns_when_all_is_done,
                      !stage_open && regions_ended == regions_returned && PLAN(next_stage - 1) == 0);
#ifdef WEAK_MEMORY
                CLAIM(writes_of_a_stage_reach_the_next, ALL_VISIBLE);
#endif
                advancing = regions_returned < REGIONS
            }
            if
            :: !advancing -> break
            :: else
            fi
        :: else // the end of a region
        fi
    od;
    if
    :: me == 0 ->
#ifndef NO_DESTROY
        destroy();
#endif
        caller_done = 1
    :: else -> ended++
    fi
}

init {
    atomic {
        run worker(0);
        run worker(1);
#if N > 2
        run worker(2);
#endif
#if N > 3
        run worker(3);
#endif
    }
}

// ---- when nothing can move any more: how did it end? -------------------------------------------------------------------------
#ifdef PARK
#if N == 2
#define FLAGS (parked[0] + parked[1])
#define SLEEPING (asleep[1])
#elif N == 3
#define FLAGS (parked[0] + parked[1] + parked[2])
#define SLEEPING (asleep[1] && asleep[2])
#else
#define FLAGS (parked[0] + parked[1] + parked[2] + parked[3])
#define SLEEPING (asleep[1] && asleep[2] && asleep[3])
#endif
#endif

#ifndef LIVENESS
active proctype watchdog() {
end:
    timeout ->
    d_step {
#ifdef LONG_STAGES
        CLAIM(sleeping_owner_is_woken, !stage_open || (seen & OWNERS(stage_grains)) == OWNERS(stage_grains));
#endif
        CLAIM(work_never_waits_for_a_sleeper, !stage_open || ran == ALL_OF(stage_grains));
        CLAIM(last_report_makes_an_advancer, !stage_open);
        CLAIM(parked_caller_is_woken, regions_returned == REGIONS);
#ifdef NO_DESTROY
#ifdef PARK
        CLAIM(idle_workers_sleep, SLEEPING);
#endif
#else
        CLAIM(destroy_ends_every_worker, ended == N - 1 && caller_done);
#endif
#ifdef PARK
        CLAIM(sleepers_are_counted, sleepers == FLAGS);
#endif
    }
}
#else
ltl every_region_ends { <> caller_done }
#endif
