-- Schema 4. Files that clients upload, and what keeps a creation from being done twice.

-- What was uploaded to `/v1/files`. The content lies in the directory `files`, named by id.
CREATE TABLE files (
  pk         INTEGER PRIMARY KEY AUTOINCREMENT,                 -- in the order in which they came
  id         TEXT NOT NULL UNIQUE,
  name       TEXT NOT NULL,
  bytes      INTEGER NOT NULL,
  sha256     TEXT NOT NULL,                                     -- hexadecimal digits
  created_at INTEGER NOT NULL,
  expires_at INTEGER,                                           -- as its client wanted
  used_at    INTEGER NOT NULL,                                  -- when it was last read
  owner      TEXT
) STRICT;
CREATE INDEX files_used ON files (used_at);
CREATE INDEX files_expiring ON files (expires_at) WHERE expires_at IS NOT NULL;

-- The uploaded file that a batch was created from.
ALTER TABLE batches ADD COLUMN uploaded_file TEXT;
CREATE INDEX batches_uploaded_file ON batches (uploaded_file) WHERE uploaded_file IS NOT NULL;
-- The same of a batch that is being created; or the provider's own file, if the creation was passed on as it came.
ALTER TABLE submissions ADD COLUMN uploaded_file TEXT;
ALTER TABLE submissions ADD COLUMN input_file TEXT;

-- Creations that were asked for over the API: whoever asks for the same again gets the same batch. Written with the
-- submission, and gone with it if that created nothing.
CREATE TABLE creations (
  pk         INTEGER PRIMARY KEY AUTOINCREMENT,
  marker     TEXT NOT NULL UNIQUE,                              -- the submission's
  key        TEXT,                                              -- the client's `Idempotency-Key`
  request    TEXT NOT NULL,                                     -- a hash of all that was asked for
  provider   TEXT,                                              -- of the batch, once it exists
  batch_id   TEXT,
  created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX creations_key ON creations (key) WHERE key IS NOT NULL;
CREATE INDEX creations_request ON creations (request);
CREATE INDEX creations_age ON creations (created_at);
