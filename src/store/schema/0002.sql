-- Schema 2.

-- Submitting, results and discovery.

-- Which batch a file belongs to.
ALTER TABLE batches ADD COLUMN output_file TEXT AS (batch ->> '$.output_file_id') VIRTUAL;
ALTER TABLE batches ADD COLUMN error_file TEXT AS (batch ->> '$.error_file_id') VIRTUAL;
CREATE INDEX batches_output_file ON batches (output_file) WHERE output_file IS NOT NULL;
CREATE INDEX batches_error_file ON batches (error_file) WHERE error_file IS NOT NULL;

-- Results to be downloaded: due since the end of the batch was told, whether or not anybody wants downloads yet.
ALTER TABLE batches ADD COLUMN download_at INTEGER;
ALTER TABLE batches ADD COLUMN download_tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN download_error TEXT;
ALTER TABLE batches ADD COLUMN results TEXT CHECK (json_valid(results));  -- the copy that is kept: path, sha256, bytes, lines
UPDATE batches SET download_at = (
  SELECT min(recorded_at) FROM events
  WHERE batch = batches.pk AND type IN ('batch.completed', 'batch.failed', 'batch.expired', 'batch.cancelled'));
CREATE INDEX batches_download ON batches (download_at) WHERE download_at IS NOT NULL;
CREATE INDEX batches_results ON batches (results ->> '$.path') WHERE results IS NOT NULL;
-- Batches that are being created: written before the provider is asked, gone once the batch is registered or known
-- not to exist. What is here after a crash may exist at the provider.
CREATE TABLE submissions (
  pk         INTEGER PRIMARY KEY AUTOINCREMENT,
  marker     TEXT NOT NULL UNIQUE,                              -- by which the batch is found again
  provider   TEXT NOT NULL,
  endpoint   TEXT NOT NULL,
  model      TEXT,
  requests   INTEGER NOT NULL,
  file_name  TEXT NOT NULL,
  metadata   TEXT NOT NULL CHECK (json_valid(metadata)),
  given      TEXT NOT NULL CHECK (json_valid(given)),           -- what `track` would take
  owner      TEXT,
  begun_at   INTEGER NOT NULL,
  lost_at    INTEGER,                                           -- since when nobody waits for the answer any more
  candidates TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(candidates)),  -- ids, if a person has to decide
  trouble    TEXT                                               -- what a person is told
) STRICT;

-- How far each provider's list has been searched for batches that nobody registered.
CREATE TABLE discovery (
  provider TEXT PRIMARY KEY,
  began_at INTEGER NOT NULL,                                    -- the first round of all
  round_at INTEGER                                              -- the last round that read all it had to
) STRICT;
-- What stands in those lists and is not to be tracked: it was over before the first round, or has been purged since.
CREATE TABLE passed_over (
  provider   TEXT NOT NULL,
  id         TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (provider, id)
) STRICT, WITHOUT ROWID;

-- Delivery and findings.

-- Since when the trouble lasts that was told of (`webhook.failing`); NULL: nothing was told, or its end was too.
ALTER TABLE webhooks ADD COLUMN told_since INTEGER;
-- Deliveries that were under way when three processes in a row died.
CREATE INDEX deliveries_suspect ON deliveries (webhook, due_at) WHERE state = 'pending' AND crashes >= 3;
-- When it is to be told that a provider will soon delete the results of an ended batch; NULL: not, or it has been.
ALTER TABLE batches ADD COLUMN results_warn_at INTEGER;
CREATE INDEX batches_expiring ON batches (results_warn_at) WHERE results_warn_at IS NOT NULL;
-- The last tenth of the time that they are kept, at most three days.
UPDATE batches SET results_warn_at = results_expire_at - min(259200000, max(0, results_expire_at - coalesce(
    1000 * coalesce(batch ->> '$.completed_at', batch ->> '$.expired_at', batch ->> '$.cancelled_at'),
    status_since)) / 10)
  WHERE results_expire_at IS NOT NULL AND untracked_at IS NULL
    AND status IN ('completed', 'failed', 'expired', 'cancelled');

-- The learnt schedule.

-- Where a batch stands in its provider's list, Unix seconds; NULL until the provider has shown it.
ALTER TABLE batches ADD COLUMN created_at INTEGER AS (
  CASE WHEN first_seen_at IS NOT NULL THEN batch ->> '$.created_at' END) VIRTUAL;
-- The schedule is read from this index alone.
DROP INDEX batches_due;
CREATE INDEX batches_due ON batches (next_poll_at, provider, created_at) WHERE next_poll_at IS NOT NULL;

ALTER TABLE batches ADD COLUMN eta_earliest INTEGER;            -- one of ten ends before
ALTER TABLE batches ADD COLUMN eta_latest INTEGER;              -- one of ten ends after
ALTER TABLE batches ADD COLUMN trail TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(trail));  -- how its counts moved

-- Who is alike.
CREATE TABLE classes (
  pk       INTEGER PRIMARY KEY,
  provider TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  model    TEXT NOT NULL,                                       -- '' where the provider does not tell
  size     INTEGER NOT NULL,                                    -- digits of the number of requests, 0 if not told
  UNIQUE (provider, endpoint, model, size)
) STRICT;

-- What ended batches took, the newest of each class. Apart from the batches, which are forgotten sooner.
CREATE TABLE durations (
  class    INTEGER NOT NULL REFERENCES classes (pk),
  stage    TEXT NOT NULL CHECK (stage IN ('work', 'finalizing', 'cancelling')),
  id       TEXT NOT NULL,                                       -- the batch's: none teaches twice
  ended_at INTEGER NOT NULL,                                    -- Unix seconds
  seconds  INTEGER NOT NULL,
  ended    INTEGER NOT NULL CHECK (ended IN (0, 1)),            -- 0: cut short, would have taken longer
  PRIMARY KEY (class, stage, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX durations_newest ON durations (class, stage, ended_at);

-- Whose past has been learnt from: a provider's list, and ('') the batches of the schema before.
CREATE TABLE learnt (
  provider TEXT PRIMARY KEY,
  at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
