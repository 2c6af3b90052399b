-- What batches cost.

-- What an ended batch cost, with the prices that it was reckoned by; NULL: not known.
ALTER TABLE batches ADD COLUMN cost TEXT CHECK (cost IS NULL OR json_valid(cost));
-- The tokens of its results by model, once they have been read.
ALTER TABLE batches ADD COLUMN spent TEXT CHECK (spent IS NULL OR json_valid(spent));
-- Ended batches with tokens and without a cost: for them a price may still come.
CREATE INDEX batches_unpriced ON batches (pk) WHERE cost IS NULL AND batch ->> '$.usage' IS NOT NULL
  AND status IN ('completed', 'failed', 'expired', 'cancelled');

-- What was spent, in US dollars as exact decimal numbers. It outlives the batches.
CREATE TABLE spending (
  month    TEXT NOT NULL,                                       -- of the batch's end, in UTC: 2026-11
  provider TEXT NOT NULL,
  model    TEXT NOT NULL,
  amount   TEXT NOT NULL,
  PRIMARY KEY (month, provider, model)
) STRICT, WITHOUT ROWID;
-- What of it is each batch's, so that none is counted twice. `about` is a hash of the batch's key.
CREATE TABLE counted (
  about  INTEGER PRIMARY KEY,
  cost   TEXT NOT NULL CHECK (json_valid(cost))
) STRICT;
