//! Numbers and sizes as people read them: `3,000`, `86 KiB`.

/// A number with its thousands apart: `3,000`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 batch`, `3,000 batches`
pub fn of(number: u64, one: &str, several: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { several })
}

/// A size in the largest unit of which there is at least one: `412 bytes`, `86 KiB`, `1.4 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return of(bytes, "byte", "bytes");
    }
    let mut unit = 0;
    // In tenths, so that no floating point is needed.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    let (whole, tenth) = (u64::try_from(tenths / 10).unwrap_or(u64::MAX), tenths % 10);
    if whole >= 10 || tenth == 0 {
        format!("{} {}", count(whole), UNITS[unit])
    } else {
        format!("{whole}.{tenth} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 12, 999, 3_000, 1_234_567].map(count), ["0", "12", "999", "3,000", "1,234,567"]);
        assert_eq!(
            (of(1, "batch", "batches"), of(3000, "batch", "batches")),
            ("1 batch".into(), "3,000 batches".into())
        );
    }

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(
            [1, 412, 88_412, 1024, 1536].map(size),
            ["1 byte", "412 bytes", "86 KiB", "1 KiB", "1.5 KiB"]
        );
        assert_eq!([1 << 20, 1_500_000_000, u64::MAX].map(size), ["1 MiB", "1.3 GiB", "16,777,215 TiB"]);
    }
}
