//! The batches that a file of requests has to be split into, as the limits of a service want it.

use super::submit::Intake;

/// Requests that stand one after the other in a file and fit into one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first of its lines, from 1.
    pub first: u64,
    /// The last of its lines.
    pub last: u64,
    pub requests: u64,
    /// How long its input is, in bytes, as sent.
    pub bytes: u64,
}

/// The pieces of a file, as far as it has been read: each takes in as much as it may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces(Vec<Piece>);

impl Pieces {
    /// Takes in the request of the line `line`, which is `bytes` long as sent.
    pub fn add(&mut self, line: u64, bytes: u64, limits: Limits) {
        let Limits { requests: most, bytes: longest } = limits;
        match self.0.last_mut() {
            Some(piece) if piece.requests < most && piece.bytes.saturating_add(bytes) <= longest => {
                piece.last = line;
                piece.requests += 1;
                piece.bytes += bytes;
            }
            _ => self.0.push(Piece { first: line, last: line, requests: 1, bytes }),
        }
    }

    /// Whether there is more than one.
    pub fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    pub fn into_list(self) -> Vec<Piece> {
        self.0
    }
}

/// How much one batch may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub requests: u64,
    pub bytes: u64,
}

impl Limits {
    pub fn of(intake: &Intake) -> Self {
        Self {
            requests: intake.max_requests.unwrap_or(MOST_REQUESTS).min(MOST_REQUESTS),
            bytes: intake.max_bytes.unwrap_or(u64::MAX),
        }
    }

    /// What is wrong with a file of these pieces, and what splitting makes of it.
    pub fn tell(self, pieces: &[Piece]) -> String {
        let requests: u64 = pieces.iter().map(|piece| piece.requests).sum();
        let bytes: u64 = pieces.iter().map(|piece| piece.bytes).sum();
        let (most, count) = (grouped(self.requests), pieces.len());
        let most = match self.bytes {
            u64::MAX => format!("{most} requests"),
            longest => format!("{most} requests and {} MB", megabytes_of(longest)),
        };
        let mut each: Vec<String> = pieces
            .iter()
            .take(TOLD_PIECES)
            .map(|piece| {
                let word = if piece.requests == 1 { "request" } else { "requests" };
                format!("{} {word} ({})", grouped(piece.requests), megabytes(piece.bytes))
            })
            .collect();
        if count > TOLD_PIECES {
            each.push(format!("{} more", count - TOLD_PIECES));
        }
        format!(
            "has {} requests ({}), and one batch may have {most} here; --split makes {count} batches of it: {}",
            grouped(requests),
            megabytes(bytes),
            each.join(", ")
        )
    }
}

/// How many megabytes the service says: bounds here are of the larger megabyte, or of a little more.
pub(super) const fn megabytes_of(bytes: u64) -> u64 {
    if bytes.is_multiple_of(1 << 20) { bytes >> 20 } else { bytes / 1_050_000 }
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_add(99_999) / 100_000;
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{} MB", grouped(whole)),
        (whole, tenth) => format!("{}.{tenth} MB", grouped(whole)),
    }
}

/// `number` with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Where a provider names no limit: more than any that does allows.
const MOST_REQUESTS: u64 = 1_000_000;
/// So many are told one by one.
const TOLD_PIECES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_request_is_in_one_piece_and_no_piece_is_too_large(
            lengths in prop::collection::vec(1_u64..50, 0..200),
            most in 1_u64..20,
            longest in 50_u64..300,
        ) {
            let limits = Limits { requests: most, bytes: longest };
            let mut pieces = Pieces::default();
            for (line, length) in (1..).zip(&lengths) {
                pieces.add(line, *length, limits);
            }
            let pieces = pieces.into_list();
            let mut next = 1;
            for piece in &pieces {
                prop_assert_eq!(piece.first, next);
                next = piece.last + 1;
                prop_assert_eq!(piece.requests, next - piece.first);
                let of_it = &lengths[usize::try_from(piece.first - 1).unwrap()..usize::try_from(piece.last).unwrap()];
                prop_assert_eq!(piece.bytes, of_it.iter().sum::<u64>());
                prop_assert!(piece.requests <= most && piece.bytes <= longest);
            }
            prop_assert_eq!(next, lengths.len() as u64 + 1);
            // None could have taken in the first request of the next.
            for pair in pieces.windows(2) {
                let following = lengths[usize::try_from(pair[1].first - 1).unwrap()];
                prop_assert!(pair[0].requests == most || pair[0].bytes + following > longest);
            }
        }
    }

    #[test]
    fn the_pieces_are_named() {
        let piece = |requests, bytes| Piece { first: 1, last: 1, requests, bytes };
        let limits = Limits { requests: 50_000, bytes: 209_715_200 };
        assert_eq!(
            limits.tell(&[piece(50_000, 1_000_000), piece(1, 20)]),
            "has 50,001 requests (1.1 MB), and one batch may have 50,000 requests and 200 MB here; --split makes 2 \
             batches of it: 50,000 requests (1 MB), 1 request (0.1 MB)"
        );
    }
}
