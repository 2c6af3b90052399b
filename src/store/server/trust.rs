//! Which servers are believed to be who they say they are.

use super::refusal::Refusal;
use crate::config::{ServerAddress, Tls};
use crate::http::own_certificate::{self, Others, provider, verified_by};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

/// The client's side of TLS as `address` wants it for a host that is protected by `tls`. `ca_file`: authorities to trust
/// besides the platform's, where the address names none.
///
/// # Errors
///
/// A file that the address names cannot be used.
pub fn client_config(
    address: &ServerAddress,
    tls: Tls,
    ca_file: Option<&Path>,
) -> Result<ClientConfig, Refusal> {
    let verifier: Arc<dyn ServerCertVerifier> = match tls {
        Tls::Disable | Tls::Prefer | Tls::Require => {
            Arc::new(AnyServer(provider().signature_verification_algorithms))
        }
        Tls::VerifyCa => Arc::new(AnyName(judge(address, ca_file)?)),
        Tls::VerifyFull => judge(address, ca_file)?,
    };
    let builder = verified_by(verifier).map_err(|error| Refusal::Tls(error.to_string()))?;
    let Some((certificate, key)) = &address.certificate else { return Ok(builder.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| Refusal::File(format!("{} holds no PEM certificate", certificate.display())))?;
    let private = PrivateKeyDer::from_pem_slice(&private(key)?).map_err(|_| {
        Refusal::File(format!("{} holds no PEM key; one with a passphrase cannot be used", key.display()))
    })?;
    builder.with_client_auth_cert(chain, private).map_err(|_| {
        let message = format!("the key in {} is not that of {}", key.display(), certificate.display());
        Refusal::File(message)
    })
}

fn judge(address: &ServerAddress, ca_file: Option<&Path>) -> Result<Arc<dyn ServerCertVerifier>, Refusal> {
    let (files, others) = match (&address.roots, ca_file) {
        (Some(roots), _) => (vec![read(roots)?], Others::Nobody),
        (None, Some(file)) => (vec![read(file)?], Others::Platform),
        (None, None) => (Vec::new(), Others::Platform),
    };
    own_certificate::verifier(&files, others).map_err(|error| match (&address.roots, error) {
        (Some(roots), _) => Refusal::File(format!("{} holds no PEM certificate", roots.display())),
        (None, error) => Refusal::Tls(format!("there is no authority to ask: {error}")),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    std::fs::read(path).map_err(|error| Refusal::File(format!("{} cannot be read: {error}", path.display())))
}

/// A key's file, which others than its owner and its group may not read.
fn private(path: &Path) -> Result<Vec<u8>, Refusal> {
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o7777);
    match mode {
        Ok(mode) if mode & 0o007 != 0 => {
            let path = path.display();
            Err(Refusal::File(format!("any user may read {path} (mode {mode:04o}); run `chmod 600 {path}`")))
        }
        _ => read(path),
    }
}

/// Believes any server that holds the key of the certificate which it shows.
#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Believes whom the other believes, whatever the name: it is the last thing that the other asks for.
#[derive(Debug)]
struct AnyName(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
