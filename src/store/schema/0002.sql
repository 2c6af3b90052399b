-- Schema 2.

-- Submitting, results and discovery.

-- Which batch a file belongs to.
ALTER TABLE batches ADD COLUMN output_file TEXT AS (batch ->> '$.output_file_id') VIRTUAL;
ALTER TABLE batches ADD COLUMN error_file TEXT AS (batch ->> '$.error_file_id') VIRTUAL;
CREATE INDEX batches_output_file ON batches (output_file) WHERE output_file IS NOT NULL;
CREATE INDEX batches_error_file ON batches (error_file) WHERE error_file IS NOT NULL;

-- Delivery and findings.

-- The learnt schedule.
