-- Schema 3.

-- Deliveries that were given up and that nobody has been told of yet (`webhook.delivery_dead`).
ALTER TABLE deliveries ADD COLUMN untold INTEGER NOT NULL DEFAULT 0 CHECK (untold IN (0, 1));
CREATE INDEX deliveries_untold ON deliveries (webhook) WHERE untold = 1;
-- Of which deaths of deliveries others were told: when those of the episode began, and when they were told last.
ALTER TABLE webhooks ADD COLUMN deaths_since INTEGER;
ALTER TABLE webhooks ADD COLUMN deaths_told_at INTEGER;
