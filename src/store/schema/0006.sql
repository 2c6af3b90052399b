-- Submissions that wait for a provider's quota, and batches that repeat requests of others.

-- How it came from a submission: the id by which it was known while it waited, the batch that it repeats, how its input
-- was read.
ALTER TABLE batches ADD COLUMN lineage TEXT CHECK (lineage IS NULL OR json_valid(lineage));
ALTER TABLE batches ADD COLUMN submission TEXT AS (lineage ->> '$.submission') VIRTUAL;
ALTER TABLE batches ADD COLUMN resubmits TEXT AS (lineage ->> '$.resubmits') VIRTUAL;
CREATE INDEX batches_submission ON batches (submission) WHERE submission IS NOT NULL;
CREATE INDEX batches_resubmits ON batches (resubmits, provider) WHERE resubmits IS NOT NULL;
-- The ids of the batches that repeat requests of this one, the oldest first.
ALTER TABLE batches ADD COLUMN resubmitted_by TEXT CHECK (resubmitted_by IS NULL OR json_valid(resubmitted_by));
-- What a submission that is no batch yet waits for.
ALTER TABLE batches ADD COLUMN waiting_for TEXT CHECK (waiting_for IS NULL OR json_valid(waiting_for));

ALTER TABLE submissions ADD COLUMN lineage TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(lineage));

-- The submissions that wait, in the order of their arrival.
CREATE TABLE queue (
  pk         INTEGER PRIMARY KEY AUTOINCREMENT,
  submission TEXT NOT NULL UNIQUE,
  provider   TEXT NOT NULL,
  model      TEXT NOT NULL,                                     -- '' where there is none, or several
  request    TEXT NOT NULL CHECK (json_valid(request))          -- what is to be submitted, beside the file
) STRICT;
