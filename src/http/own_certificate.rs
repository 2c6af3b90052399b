//! Trust in certificates that the configuration names: as authorities, and as a server's own, which is what a self-signed
//! one is (`docs/delivery.md#transport`).

use crate::sync::lock;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::client::Resumption;
use rustls::client::WantsClientCert;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// What a client needs that trusts the platform's authorities.
///
/// Clients that are built at about the same time share what is known of these, which is a tenth of a MiB; later ones read
/// them anew.
///
/// # Errors
///
/// The platform has none.
pub(super) fn platform_config() -> Result<ClientConfig, Error> {
    static SHARED: Mutex<Option<(Instant, Weak<Verifier>)>> = Mutex::new(None);
    let mut shared = lock(&SHARED);
    let known =
        shared.as_ref().filter(|(read, _)| read.elapsed() < FRESH).and_then(|(_, known)| known.upgrade());
    let verifier = if let Some(known) = known {
        known
    } else {
        let read = Arc::new(Verifier::new(provider())?);
        *shared = Some((Instant::now(), Arc::downgrade(&read)));
        read
    };
    Ok(speaking(verified_by(verifier)?.with_no_client_auth()))
}

/// For as long the platform's authorities are taken for those that were read.
const FRESH: Duration = Duration::from_secs(10);

/// With what a client of one destination needs besides.
fn speaking(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // It has one host, or a few.
    config.resumption = Resumption::in_memory_sessions(32);
    config
}

/// What a client needs that trusts these certificates, in PEM, besides the platform's authorities.
pub(super) fn client_config(pem: &[Vec<u8>]) -> Result<ClientConfig, Error> {
    Ok(speaking(verified_by(verifier(pem, Others::Platform)?)?.with_no_client_auth()))
}

/// Whom else to trust beside the certificates that the configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// The platform's authorities.
    Platform,
    Nobody,
}

/// Who judges servers by these certificates, in PEM, as authorities and as servers' own.
pub fn verifier(pem: &[Vec<u8>], others: Others) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let own: Vec<CertificateDer<'static>> = pem
        .iter()
        .flat_map(|pem| CertificateDer::pem_slice_iter(pem))
        .collect::<Result<_, _>>()
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let authorities: Arc<dyn ServerCertVerifier> = match others {
        Others::Platform => Arc::new(Verifier::new_with_extra_roots(own.clone(), provider())?),
        Others::Nobody => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(own.iter().cloned());
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
            verifier.map_err(|error| Error::General(error.to_string()))?
        }
    };
    Ok(Arc::new(OwnCertificates { own, authorities }))
}

/// The beginning of a client whose servers `verifier` judges.
pub fn verified_by(verifier: Arc<dyn ServerCertVerifier>) -> Result<Builder, Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

pub type Builder = rustls::ConfigBuilder<ClientConfig, WantsClientCert>;

/// The cryptography that all of batchd's TLS is made of.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Takes a certificate that is one of its own by its name and time alone: nobody else vouches for it. Authorities judge
/// every other.
#[derive(Debug)]
struct OwnCertificates {
    own: Vec<CertificateDer<'static>>,
    authorities: Arc<dyn ServerCertVerifier>,
}

impl ServerCertVerifier for OwnCertificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.own.iter().any(|own| own == end_entity) {
            return self.authorities.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        }
        let invalid = |error| Err(Error::InvalidCertificate(error));
        let Some((begin, end)) = validity(end_entity) else { return invalid(CertificateError::BadEncoding) };
        let instant =
            |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(seconds.max(0).unsigned_abs()));
        if now < instant(begin) {
            return invalid(CertificateError::NotValidYetContext { time: now, not_before: instant(begin) });
        }
        if now > instant(end) {
            return invalid(CertificateError::ExpiredContext { time: now, not_after: instant(end) });
        }
        // As others do it, the name comes last: where any name will do, all else has been judged.
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// From when and until when a certificate is valid, in Unix seconds.
fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    // Version (which the first one lacks), serial number, algorithm, issuer; then the validity.
    let before = if fields.first() == Some(&0xa0) { 4 } else { 3 };
    for _ in 0..before {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields)?;
    let (begin_form, begin, rest) = element(validity)?;
    let (end_form, end, _) = element(rest)?;
    Some((time(begin_form, begin)?, time(end_form, end)?))
}

/// The first element of some DER: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length & 0x80 != 0 {
        let digits = length & 0x7f;
        if digits > size_of::<u32>() {
            return None;
        }
        let (number, behind) = rest.split_at_checked(digits)?;
        length = number.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(length)?;
    Some((*tag, content, behind))
}

/// `YYMMDDhhmmssZ` (of 1950 to 2049), or the same with four digits of the year, in Unix seconds.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        0x17 if text < "50" => format!("20{text}"),
        0x17 => format!("19{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let at = DateTime::strptime("%Y%m%d%H%M%S", text).ok()?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_validity_of_a_certificate_is_read() {
        for (begin, end) in [(2024, 2026), (1975, 2049), (2000, 2050), (2051, 4096)] {
            let mut wanted = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            (wanted.not_before, wanted.not_after) =
                (rcgen::date_time_ymd(begin, 2, 3), rcgen::date_time_ymd(end, 4, 5));
            let certificate = wanted.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            let expected = (wanted.not_before.unix_timestamp(), wanted.not_after.unix_timestamp());
            assert_eq!(validity(certificate.der()), Some(expected), "{begin} to {end}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_certificate_is_reading_it_ends(bytes: Vec<u8>, cut in 0_usize..600) {
            let _ = validity(&bytes);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
            let der = certificate.der();
            let _ = validity(&der[..cut.min(der.len())]);
        }
    }
}
