-- Schema 3.

-- SQLite before 3.45 says of `json_valid(NULL)` that it is false, and would refuse such a row, so that neither its
-- integrity check nor a dump of the file passed there. The rule is put right in the schema itself: a table of this width
-- with all that refers to it is not rebuilt for a word.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, 'CHECK (json_valid(results))', 'CHECK (results IS NULL OR json_valid(results))')
  WHERE type = 'table' AND name = 'batches';
PRAGMA writable_schema = RESET;

-- How many commits there have been: a state that has fewer than the lock file remembers lacks some.
ALTER TABLE identity ADD COLUMN commits INTEGER NOT NULL DEFAULT 0;

-- How much time has passed, whatever the clock showed: what the age of things is reckoned by.
CREATE TABLE retention (
  one       INTEGER PRIMARY KEY CHECK (one = 1),
  reckoning TEXT NOT NULL CHECK (json_valid(reckoning))
) STRICT;

-- Deliveries that were given up and that nobody has been told of yet (`webhook.delivery_dead`).
ALTER TABLE deliveries ADD COLUMN untold INTEGER NOT NULL DEFAULT 0 CHECK (untold IN (0, 1));
CREATE INDEX deliveries_untold ON deliveries (webhook) WHERE untold = 1;
-- Of which deaths of deliveries others were told: when those of the episode began, and when they were told last.
ALTER TABLE webhooks ADD COLUMN deaths_since INTEGER;
ALTER TABLE webhooks ADD COLUMN deaths_told_at INTEGER;

-- Until when a provider wants to be left alone: so it is after a restart.
ALTER TABLE providers ADD COLUMN held_until INTEGER;
