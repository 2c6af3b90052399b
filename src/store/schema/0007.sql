-- When each watched batch was and will be checked, apart from the batch: a check that shows nothing new writes
-- here alone.
CREATE TABLE checks (
  batch          INTEGER PRIMARY KEY REFERENCES batches (pk) ON DELETE CASCADE,
  provider       TEXT NOT NULL,
  created_at     INTEGER,                                       -- Unix seconds; NULL until the provider has shown it
  last_polled_at INTEGER,
  next_poll_at   INTEGER NOT NULL,                              -- what is not to be checked has no row
  eta            INTEGER,
  eta_earliest   INTEGER,                                       -- one of ten ends before
  eta_latest     INTEGER                                        -- one of ten ends after
) STRICT;
INSERT INTO checks (batch, provider, created_at, last_polled_at, next_poll_at, eta, eta_earliest, eta_latest)
  SELECT pk, provider, created_at, last_polled_at, next_poll_at, eta, eta_earliest, eta_latest
  FROM batches WHERE next_poll_at IS NOT NULL AND untracked_at IS NULL;

DROP INDEX batches_due;
ALTER TABLE batches DROP COLUMN created_at;
ALTER TABLE batches DROP COLUMN next_poll_at;
ALTER TABLE batches DROP COLUMN eta;
ALTER TABLE batches DROP COLUMN eta_earliest;
ALTER TABLE batches DROP COLUMN eta_latest;
-- What is left of it, `batches.last_polled_at`, is when a batch was checked that is not watched any more.
