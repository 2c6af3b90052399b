//! Follows the daemon's event log live, through restarts of the daemon.

use crate::control::client::Client;
use crate::control::client_error::ClientError;
use crate::control::event_stream::RESET;
use crate::control::streams::EventStream;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::Value;
use std::time::Duration;

/// What comes while the log is followed.
#[derive(Debug)]
pub enum Followed {
    Event(Value),
    /// The daemon is away and is tried again until it is back. Reported once per absence.
    Away(ClientError),
    /// The stream was joined anew, and nothing of the log was missed. `announced`: after an [`Followed::Away`].
    Back {
        /// Whether its absence was reported.
        announced: bool,
    },
    /// The log ends with this number, before what was followed: a backup was restored. What is new is followed from there.
    Reset(i64),
    /// It refuses: nothing more comes.
    Refused(ClientError),
}

/// Every event behind number `after`, in order, each once, for as long as somebody asks.
///
/// The stream may be polled within `select!`: a connection under way is not begun anew.
pub fn follow(client: Client, after: i64) -> impl Stream<Item = Followed> {
    let start = Follow { client, after, stream: None, absences: 0, away: false, joined: false, over: false };
    unfold(start, async |mut follow| {
        let next = follow.next().await?;
        Some((next, follow))
    })
}

/// How long to wait before the next try, after so many that failed: quick at first, for a restart takes a second.
pub fn pause(failures: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(1 << failures.min(5)).min(Duration::from_secs(2))
}

struct Follow {
    client: Client,
    after: i64,
    stream: Option<EventStream>,
    /// Tries in a row that brought no event.
    absences: u32,
    away: bool,
    /// Whether there was a stream before.
    joined: bool,
    over: bool,
}

impl Follow {
    async fn next(&mut self) -> Option<Followed> {
        if self.over {
            return None;
        }
        loop {
            let Some(stream) = &mut self.stream else {
                match self.client.event_stream(self.after).await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        let announced = std::mem::take(&mut self.away);
                        if std::mem::replace(&mut self.joined, true) {
                            return Some(Followed::Back { announced });
                        }
                    }
                    Err(error) => {
                        if let Some(told) = self.failed(error).await {
                            return Some(told);
                        }
                    }
                }
                continue;
            };
            let Some(Ok(message)) = stream.next().await else {
                // A daemon that stops closes its streams; so does a proxy. It is tried again either way.
                self.stream = None;
                self.absences += 1;
                tokio::time::sleep(pause(self.absences)).await;
                continue;
            };
            if message.event.as_deref() == Some(RESET)
                && let Ok(last) = message.data.parse()
            {
                self.after = last;
                return Some(Followed::Reset(last));
            }
            if let Some(event) = self.event(&message.data) {
                return Some(Followed::Event(event));
            }
        }
    }

    /// The event in a message; `None` if it is none, or has been seen.
    fn event(&mut self, data: &str) -> Option<Value> {
        let event: Value = serde_json::from_str(data).ok()?;
        let sequence = event["sequence"].as_i64()?;
        if event["object"] != "event" || sequence <= self.after {
            return None;
        }
        self.after = sequence;
        self.absences = 0;
        Some(event)
    }

    async fn failed(&mut self, error: ClientError) -> Option<Followed> {
        if !error.is_outage() {
            self.over = true;
            return Some(Followed::Refused(error));
        }
        self.absences += 1;
        if !std::mem::replace(&mut self.away, true) {
            return Some(Followed::Away(error));
        }
        tokio::time::sleep(pause(self.absences)).await;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_two_seconds() {
        assert_eq!(pause(0), Duration::from_millis(100));
        assert_eq!(pause(1), Duration::from_millis(200));
        assert_eq!(pause(5), Duration::from_secs(2));
        assert_eq!(pause(u32::MAX), Duration::from_secs(2));
    }
}
