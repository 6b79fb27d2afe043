//! Owns certificates for tests, made anew each time: a CA, and pairs that it signs.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

/// Who signs.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its private key, in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// The files of a pair.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate's.
    pub certificate: PathBuf,
    /// The key's.
    pub key: PathBuf,
}

// === impl Authority ===

impl Authority {
    /// One that nobody knows.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = named("tidegate test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, new_key()).expect("a CA"))
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes its own certificate into a file of `dir`.
    pub fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, self.pem()).expect("a writable folder");
        path
    }

    /// A pair for 127.0.0.1 and localhost, good for servers and for clients.
    pub fn sign(&self) -> Pair {
        self.sign_with(&[])
    }

    /// The same for a workload that is named by a URI, too.
    pub fn sign_workload(&self, uri: &str) -> Pair {
        self.sign_with(&[SanType::URI(uri.try_into().expect("an ASCII URI"))])
    }

    fn sign_with(&self, more: &[SanType]) -> Pair {
        let names = ["127.0.0.1", "localhost"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("sound names");
        params.subject_alt_names.extend_from_slice(more);
        params.distinguished_name = named("tidegate test");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = new_key();
        let certificate = params.signed_by(&key, &self.0).expect("a certificate").pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Pair ===

impl Pair {
    /// Writes both parts into `dir`, as `name.crt` and `name.key`.
    pub fn write(&self, dir: &Path, name: &str) -> Files {
        let files = Files {
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        };
        fs::write(&files.certificate, &self.certificate).expect("a writable folder");
        fs::write(&files.key, &self.key).expect("a writable folder");
        files
    }
}

/// Not the same for both: a certificate whose issuer is named like itself passes for self-signed.
fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("randomness")
}
