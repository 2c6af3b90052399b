//! Numbered migrations, each in its own transaction.
