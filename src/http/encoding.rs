//! Bodies that arrive compressed although nobody asked for it, as some gateways send them: gzip is unpacked within the
//! bounds of the body, any other coding is named.

use super::failure::Failure;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use std::io::Write as _;

/// How a body is packed, as its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
    /// Another, by its name if it is one that is in use.
    Other(&'static str),
}

impl Coding {
    pub fn of(headers: &HeaderMap) -> Self {
        let told = headers.get(CONTENT_ENCODING).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let told = told.map(|told| told.trim().to_ascii_lowercase()).unwrap_or_default();
        match told.as_str() {
            "" | "identity" => Self::Plain,
            "gzip" | "x-gzip" => Self::Gzip,
            other => {
                let known = ["br", "deflate", "zstd", "compress"].into_iter().find(|known| *known == other);
                Self::Other(known.unwrap_or("in a way that is not known"))
            }
        }
    }

    /// The failure that this coding is, if it cannot be unpacked.
    pub fn refusal(&self) -> Option<Failure> {
        match self {
            Self::Other(name) => Some(Failure::Malformed(format!(
                "it is compressed ({name}), which nobody asked for; switch that off in the server or gateway"
            ))),
            Self::Plain | Self::Gzip => None,
        }
    }
}

/// The headers of a body that was unpacked: they describe it as it is now.
pub(super) fn unpacked(headers: &mut HeaderMap) {
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
}

/// So many packed bytes are unpacked at once: they make a mebibyte at most.
pub(super) const PIECE: usize = 1024;

/// Unpacks a body piece by piece.
#[derive(Debug)]
pub(super) struct Unpacker(MultiGzDecoder<Vec<u8>>);

impl Default for Unpacker {
    fn default() -> Self {
        Self(MultiGzDecoder::new(Vec::new()))
    }
}

impl Unpacker {
    /// What the next bytes, at most [`PIECE`] of them, make.
    pub fn push(&mut self, packed: &[u8]) -> Result<Bytes, Failure> {
        self.0.write_all(packed).map_err(|_| no_gzip())?;
        self.0.flush().map_err(|_| no_gzip())?;
        Ok(std::mem::take(self.0.get_mut()).into())
    }

    /// The body has ended.
    pub fn finish(&mut self) -> Result<Bytes, Failure> {
        self.0.try_finish().map_err(|_| no_gzip())?;
        Ok(std::mem::take(self.0.get_mut()).into())
    }
}

fn no_gzip() -> Failure {
    Failure::Malformed("it is said to be compressed (gzip), and is not, or is cut off".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn packed(plain: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap().into()
    }

    fn unpack(packed: &Bytes) -> Result<Vec<u8>, Failure> {
        let mut unpacker = Unpacker::default();
        let mut whole = Vec::new();
        for piece in packed.chunks(PIECE) {
            let plain = unpacker.push(piece)?;
            assert!(plain.len() < 2 << 20, "{} bytes at once", plain.len());
            whole.extend_from_slice(&plain);
        }
        whole.extend_from_slice(&unpacker.finish()?);
        Ok(whole)
    }

    #[test]
    fn gzip_is_unpacked_piece_by_piece() {
        let plain = b"{\"id\":\"batch_1\"}".repeat(5000);
        assert_eq!(unpack(&packed(&plain)).unwrap(), plain);
        let bomb = packed(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(unpack(&bomb).unwrap().len(), 64 << 20);
        let two = [packed(b"a"), packed(b"b")].concat();
        assert_eq!(unpack(&two.into()).unwrap(), b"ab");
    }

    #[test]
    fn what_is_no_gzip_says_so() {
        let whole = packed(b"plain");
        for broken in [Bytes::from_static(b"{\"id\":1}"), whole.slice(..whole.len() - 9)] {
            assert!(matches!(unpack(&broken), Err(Failure::Malformed(_))), "{broken:?}");
        }
    }

    #[test]
    fn another_coding_is_named() {
        let of = |told: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static(told));
            Coding::of(&headers)
        };
        assert_eq!((of("identity"), of(" GZIP ")), (Coding::Plain, Coding::Gzip));
        assert!(of("br").refusal().unwrap().to_string().contains("(br)"));
        assert_eq!(Coding::of(&HeaderMap::new()), Coding::Plain);
    }
}
