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

-- Delivery and findings.

-- The learnt schedule.

-- Where a batch stands in its provider's list, Unix seconds; NULL until the provider has shown it.
ALTER TABLE batches ADD COLUMN created_at INTEGER AS (
  CASE WHEN first_seen_at IS NOT NULL THEN batch ->> '$.created_at' END) VIRTUAL;
-- The schedule is read from this index alone.
DROP INDEX batches_due;
CREATE INDEX batches_due ON batches (next_poll_at, provider, created_at) WHERE next_poll_at IS NOT NULL;
