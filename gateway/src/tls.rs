//! Owns certificates: which files hold them, what can be wrong with them, and what rustls is told.
//! Knows neither sockets nor who connects.
//!
//! The files of one side belong together and are followed together (see [`crate::secret`]): while a
//! rotation has replaced the certificate and not yet the key, the last good pair stays in force.
//! Why rustls with ring: record 0012.

use std::io::ErrorKind;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error as TlsError, InconsistentKeys, RootCertStore, ServerConfig};

use crate::secret::{Origin, Secret, SecretError, SecretSource};

/// HTTP/2 first: it is what the filter's callouts should speak.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and what leads from it to a CA, in PEM.
    pub certificate: SecretSource,
    /// Its private key, in PEM.
    pub key: SecretSource,
    /// Who signs the certificates that clients must have; `None` asks clients for none.
    pub client_ca: Option<SecretSource>,
}

/// What the files of a listener hold.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsTexts {
    certificate: Secret,
    key: Secret,
    client_ca: Option<Secret>,
}

// === impl TlsFiles ===

impl TlsFiles {
    /// The same certificate for clients that have none themselves.
    pub fn without_client_ca(&self) -> Self {
        Self { client_ca: None, ..self.clone() }
    }

    fn verifier(
        &self,
        text: Option<&Secret>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, SecretError> {
        let Some((source, text)) = self.client_ca.as_ref().zip(text) else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        let roots = Arc::new(roots(source, text)?);
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
            .build()
            .map_err(|error| unusable(source, format!("cannot be used: {error}")))
    }
}

impl Origin for TlsFiles {
    type Text = TlsTexts;
    type Value = ServerConfig;

    fn place(&self) -> String {
        self.certificate.place()
    }

    fn read(&self) -> Result<TlsTexts, SecretError> {
        Ok(TlsTexts {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_ref().map(read).transpose()?,
        })
    }

    fn parse(&self, texts: &TlsTexts) -> Result<ServerConfig, SecretError> {
        let chain = certificates(&self.certificate, &texts.certificate)?;
        let key = private_key(&self.key, &texts.key)?;
        let provider = Arc::new(ring::default_provider());
        let verifier = self.verifier(texts.client_ca.as_ref(), &provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&self.certificate, format!("cannot be used: {error}")))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| mismatch(&self.certificate, &self.key, &error))?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        Ok(config)
    }
}

/// A file of certificates; each kind of mistake has a sentence of its own.
pub fn certificates(
    source: &SecretSource,
    text: &Secret,
) -> Result<Vec<CertificateDer<'static>>, SecretError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text.reveal().as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| broken(source, &error))?;
    if chain.is_empty() {
        let problem = "holds no certificate: it must hold at least one between BEGIN CERTIFICATE and END CERTIFICATE";
        return Err(unusable(source, problem.to_owned()));
    }
    Ok(chain)
}

/// A file with one private key.
pub fn private_key(
    source: &SecretSource,
    text: &Secret,
) -> Result<PrivateKeyDer<'static>, SecretError> {
    PrivateKeyDer::from_pem_slice(text.reveal().as_bytes()).map_err(|error| match error {
        PemError::NoItemsFound => unusable(
            source,
            "holds no private key: it must hold one in PEM (PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY), without a passphrase".to_owned(),
        ),
        error => broken(source, &error),
    })
}

/// A file of certificates of those who may sign others.
pub fn roots(source: &SecretSource, text: &Secret) -> Result<RootCertStore, SecretError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(source, text)? {
        roots.add(certificate).map_err(|error| {
            unusable(source, format!("holds a certificate that cannot be a CA's: {error}"))
        })?;
    }
    Ok(roots)
}

/// What rustls says of a certificate and a key that it does not take together.
pub fn mismatch(certificate: &SecretSource, key: &SecretSource, error: &TlsError) -> SecretError {
    match error {
        TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => unusable(
            key,
            format!("is not the key of the certificate in {}: give the pair", certificate.place()),
        ),
        error => unusable(
            key,
            format!("cannot be used with the certificate in {}: {error}", certificate.place()),
        ),
    }
}

/// A file's text. One that is no text is most likely the binary form of what is asked for.
pub fn read(source: &SecretSource) -> Result<Secret, SecretError> {
    match source.read() {
        Err(SecretError::Unreadable { source: error, .. })
            if error.kind() == ErrorKind::InvalidData =>
        {
            Err(unusable(source, "is no text: convert it from DER to PEM".to_owned()))
        }
        other => other,
    }
}

fn broken(source: &SecretSource, error: &PemError) -> SecretError {
    // rustls names what it met by its bytes; of a key nothing may show.
    let what = match error {
        PemError::MissingSectionEnd { .. } => "an END line is missing",
        PemError::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        PemError::Base64Decode(_) => "what stands between BEGIN and END is no base64",
        _ => "it cannot be read",
    };
    unusable(source, format!("is no sound PEM ({what}): write the file anew"))
}

fn unusable(source: &SecretSource, problem: String) -> SecretError {
    SecretError::Unusable { place: source.place(), problem }
}
