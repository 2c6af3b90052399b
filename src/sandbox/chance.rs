//! Everything that looks random in the sandbox: drawn from its seed, so that the same seed gives the same service.

use fastrand::Rng;

/// A source that depends on nothing but `seed` and `number`.
pub fn draw(seed: u64, number: u64) -> Rng {
    Rng::with_seed(mix(seed ^ mix(number)))
}

/// Spreads the bits of `value` (the finaliser of splitmix64).
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number that depends on `text` alone.
pub fn of_text(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| mix(hash ^ u64::from(byte)))
}

/// `length` characters of `alphabet`, which is ASCII.
pub fn word(chance: &mut Rng, alphabet: &[u8], length: usize) -> String {
    (0..length).map(|_| char::from(alphabet[chance.usize(..alphabet.len())])).collect()
}

/// `length` lower-case hexadecimal digits.
pub fn hex(chance: &mut Rng, length: usize) -> String {
    word(chance, b"0123456789abcdef", length)
}

/// `length` letters and digits.
pub fn alphanumeric(chance: &mut Rng, length: usize) -> String {
    word(chance, b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789", length)
}

/// `length` lower-case letters and digits.
pub fn lowercase(chance: &mut Rng, length: usize) -> String {
    word(chance, b"abcdefghijklmnopqrstuvwxyz0123456789", length)
}

/// A UUID of version 4.
pub fn uuid(chance: &mut Rng) -> String {
    let variant = word(chance, b"89ab", 1);
    let parts = [8, 4, 3, 3, 12].map(|length| hex(chance, length));
    format!("{}-{}-4{}-{variant}{}-{}", parts[0], parts[1], parts[2], parts[3], parts[4])
}

/// An order in which `requests` requests are processed that is not the order of the input.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    requests: u64,
    stride: u64,
    offset: u64,
}

impl Order {
    /// The order that `chance` gives.
    pub fn new(requests: u32, chance: &mut Rng) -> Self {
        let requests = u64::from(requests);
        let mut stride = requests * 618 / 1000 + 1;
        while gcd(stride, requests) > 1 {
            stride += 1;
        }
        Self { requests, stride, offset: chance.u64(..requests.max(1)) }
    }

    /// Which request, from 0 in input order, is the one at `place`.
    pub fn request(self, place: u32) -> usize {
        let index = (u64::from(place) * self.stride + self.offset) % self.requests.max(1);
        usize::try_from(index).unwrap_or_default()
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_seed_repeats_itself() {
        assert_eq!(hex(&mut draw(7, 1), 32), hex(&mut draw(7, 1), 32));
        assert_ne!(hex(&mut draw(7, 1), 32), hex(&mut draw(7, 2), 32));
        assert_ne!(hex(&mut draw(7, 1), 32), hex(&mut draw(8, 1), 32));
        let id = uuid(&mut draw(1, 1));
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
    }

    proptest! {
        #[test]
        fn an_order_names_every_request_once(requests in 1_u32..3000, seed: u64) {
            let order = Order::new(requests, &mut draw(seed, 0));
            let mut seen: Vec<usize> = (0..requests).map(|place| order.request(place)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..requests as usize).collect::<Vec<_>>());
        }
    }
}
