-- Schema 1. All times are Unix milliseconds; 1 is true. See `docs/delivery.md#outbox` for the outbox.

-- Which run of the daemon last opened this file: it tells a restored copy from the file that the log belongs to.
CREATE TABLE identity (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  run TEXT NOT NULL
) STRICT;
INSERT INTO identity (one, run) VALUES (1, '');

CREATE TABLE batches (
  pk                INTEGER PRIMARY KEY AUTOINCREMENT,
  provider          TEXT NOT NULL,
  id                TEXT NOT NULL,
  kind              TEXT NOT NULL,
  status            TEXT NOT NULL CHECK (status IN (
    'validating', 'in_progress', 'finalizing', 'completed', 'failed', 'expired', 'cancelling', 'cancelled')),
  batch             TEXT NOT NULL CHECK (json_valid(batch)),    -- in the shape of `docs/contract.md#the-batch-shape`
  provider_status   TEXT,
  name              TEXT,
  labels            TEXT NOT NULL CHECK (json_valid(labels)),
  owner             TEXT,
  notify            TEXT NOT NULL CHECK (json_valid(notify)),
  origin            TEXT NOT NULL CHECK (origin IN ('hand', 'baseline', 'found')),
  console_url       TEXT,
  tracked_at        INTEGER NOT NULL,
  untracked_at      INTEGER,
  first_seen_at     INTEGER,
  status_since      INTEGER NOT NULL,
  progress_at       INTEGER,
  last_polled_at    INTEGER,
  next_poll_at      INTEGER,                                    -- never set while untracked
  last_error        TEXT,
  failures          INTEGER NOT NULL,
  missing_since     INTEGER,
  missing_count     INTEGER NOT NULL,
  lost_since        INTEGER,
  stalled_since     INTEGER,
  deadline          INTEGER,
  eta               INTEGER,
  results_expire_at INTEGER,
  held_since        INTEGER,
  settled           INTEGER NOT NULL CHECK (settled IN (0, 1)),
  warned            TEXT NOT NULL CHECK (json_valid(warned)),
  active            INTEGER AS (
    untracked_at IS NULL AND status NOT IN ('completed', 'failed', 'expired', 'cancelled')) VIRTUAL,
  -- Since when nobody needs it any more: what retention counts from.
  over_at           INTEGER AS (CASE
    WHEN untracked_at IS NOT NULL THEN untracked_at
    WHEN status IN ('completed', 'failed', 'expired', 'cancelled') THEN status_since
    ELSE lost_since END) VIRTUAL,
  UNIQUE (id, provider)                                         -- in this order it serves a bare id too
) STRICT;
CREATE INDEX batches_status ON batches (provider, status);
CREATE INDEX batches_active ON batches (active) WHERE active = 1;
CREATE INDEX batches_due ON batches (next_poll_at, provider) WHERE next_poll_at IS NOT NULL;
CREATE INDEX batches_over ON batches (over_at) WHERE over_at IS NOT NULL;

CREATE TABLE transitions (
  pk              INTEGER PRIMARY KEY,
  batch           INTEGER NOT NULL REFERENCES batches (pk) ON DELETE CASCADE,
  from_status     TEXT,
  to_status       TEXT NOT NULL,
  provider_status TEXT,
  occurred_at     INTEGER,
  observed_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX transitions_batch ON transitions (batch);

-- The log: append-only; a number is never used twice.
CREATE TABLE events (
  sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
  id          TEXT NOT NULL UNIQUE,
  type        TEXT NOT NULL,
  batch       INTEGER REFERENCES batches (pk) ON DELETE CASCADE,
  provider    TEXT,
  batch_id    TEXT,
  recorded_at INTEGER NOT NULL,
  body        TEXT NOT NULL CHECK (json_valid(body))            -- frozen: signed and sent byte for byte
) STRICT;
CREATE INDEX events_batch ON events (batch) WHERE batch IS NOT NULL;
CREATE INDEX events_apart ON events (recorded_at) WHERE batch IS NULL;

-- The ids of all events about batches that were ever recorded. They outlive the events, so that nothing is told
-- twice. `about` is a hash of the batch's key.
CREATE TABLE fences (
  about INTEGER NOT NULL,
  id    TEXT NOT NULL,
  PRIMARY KEY (about, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE deliveries (
  pk          INTEGER PRIMARY KEY AUTOINCREMENT,
  sequence    INTEGER NOT NULL REFERENCES events (sequence) ON DELETE CASCADE,
  webhook     TEXT NOT NULL,
  state       TEXT NOT NULL CHECK (state IN ('pending', 'inflight', 'delivered', 'dead', 'held')),
  attempts    INTEGER NOT NULL DEFAULT 0,                       -- all of them
  counted     INTEGER NOT NULL DEFAULT 0,                       -- those that used up a try
  crashes     INTEGER NOT NULL DEFAULT 0,                       -- processes in a row that died in an attempt
  plain       INTEGER NOT NULL DEFAULT 0 CHECK (plain IN (0, 1)),
  due_at      INTEGER NOT NULL,
  wait        INTEGER NOT NULL DEFAULT 0,                       -- milliseconds, the wait that led to due_at
  trigger     TEXT NOT NULL DEFAULT 'schedule' CHECK (trigger IN ('schedule', 'manual', 'startup')),
  last_error  TEXT,
  recorded_at INTEGER NOT NULL,
  UNIQUE (sequence, webhook)
) STRICT;
CREATE INDEX deliveries_due ON deliveries (webhook, due_at) WHERE state = 'pending';
CREATE INDEX deliveries_state ON deliveries (state) WHERE state <> 'delivered';

CREATE TABLE attempts (
  pk          INTEGER PRIMARY KEY AUTOINCREMENT,
  delivery    INTEGER NOT NULL REFERENCES deliveries (pk) ON DELETE CASCADE,
  number      INTEGER NOT NULL,
  started_at  INTEGER NOT NULL,
  finished_at INTEGER,
  trigger     TEXT NOT NULL CHECK (trigger IN ('schedule', 'manual', 'startup')),
  outcome     TEXT,                                             -- NULL: under way
  http_status INTEGER,
  error       TEXT,
  excerpt     TEXT,
  UNIQUE (delivery, number)
) STRICT;
CREATE INDEX attempts_open ON attempts (delivery) WHERE outcome IS NULL;

CREATE TABLE webhooks (
  name            TEXT PRIMARY KEY,
  configured      INTEGER NOT NULL DEFAULT 1 CHECK (configured IN (0, 1)),
  disabled        TEXT,                                         -- why it is switched off
  by_hand         INTEGER NOT NULL DEFAULT 0 CHECK (by_hand IN (0, 1)),
  failures        INTEGER NOT NULL DEFAULT 0,
  failing_since   INTEGER,
  paused_until    INTEGER,
  last_success_at INTEGER,
  fingerprint     TEXT
) STRICT;

CREATE TABLE providers (
  name            TEXT PRIMARY KEY,
  refused_since   INTEGER,
  silent_since    INTEGER,
  silence_told    INTEGER NOT NULL CHECK (silence_told IN (0, 1)),
  last_error      TEXT,
  last_success_at INTEGER
) STRICT;

CREATE TABLE jobs (
  name        TEXT PRIMARY KEY,
  started_at  INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  error       TEXT
) STRICT;
