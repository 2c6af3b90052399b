-- What the status asks for is found without reading every batch: downloads that failed, and batches with labels that cost
-- something.
CREATE INDEX batches_undownloaded ON batches (pk)
  WHERE download_error IS NOT NULL AND download_at IS NULL AND untracked_at IS NULL;
CREATE INDEX batches_labelled ON batches (over_at) WHERE cost IS NOT NULL AND labels <> '{}';
