//! Owns the certificates for TLS to Redis: whom to believe, and what to show. Knows no address.

use redis::{ClientTlsConfig, TlsCertificates};
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;

use crate::secret::{Secret, SecretError, SecretSource};
use crate::tls::{certificates, mismatch, private_key, read, roots};

/// The files for connections to Redis. They are read for each new connection, so a rotation needs
/// no restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// Who signed the server's certificate; `None` believes whom the system believes.
    pub ca: Option<SecretSource>,
    /// The gateway's own certificate and its key, for a server that asks for one.
    pub own: Option<(SecretSource, SecretSource)>,
}

// === impl RedisTls ===

impl RedisTls {
    /// What the files hold now, checked.
    pub fn certificates(&self) -> Result<TlsCertificates, SecretError> {
        Ok(TlsCertificates {
            client_tls: self.own.as_ref().map(own).transpose()?,
            root_cert: self.ca.as_ref().map(ca).transpose()?,
        })
    }
}

fn ca(source: &SecretSource) -> Result<Vec<u8>, SecretError> {
    let text = read(source)?;
    roots(source, &text).map(|_sound| bytes(&text))
}

fn own((certificate, key): &(SecretSource, SecretSource)) -> Result<ClientTlsConfig, SecretError> {
    let (certificate_text, key_text) = (read(certificate)?, read(key)?);
    let chain = certificates(certificate, &certificate_text)?;
    CertifiedKey::from_der(chain, private_key(key, &key_text)?, &ring::default_provider())
        .map_err(|error| mismatch(certificate, key, &error))?;
    Ok(ClientTlsConfig { client_cert: bytes(&certificate_text), client_key: bytes(&key_text) })
}

fn bytes(text: &Secret) -> Vec<u8> {
    text.reveal().as_bytes().to_owned()
}
