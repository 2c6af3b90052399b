-- Until when a provider wants to be left alone: so it is after a restart.
ALTER TABLE providers ADD COLUMN held_until INTEGER;
