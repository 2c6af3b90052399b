-- Schema 2.

-- Submitting, results and discovery.

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
