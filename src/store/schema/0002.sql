-- Schema 2.

-- Submitting, results and discovery.

-- Delivery and findings.

-- The learnt schedule.
