-- Schema 2.

-- Submitting, results and discovery.

-- Delivery and findings.

-- Since when the trouble lasts that was told of (`webhook.failing`); NULL: nothing was told, or its end was too.
ALTER TABLE webhooks ADD COLUMN told_since INTEGER;
-- Deliveries that were under way when three processes in a row died.
CREATE INDEX deliveries_suspect ON deliveries (webhook, due_at) WHERE state = 'pending' AND crashes >= 3;

-- The learnt schedule.
